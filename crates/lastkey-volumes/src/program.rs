//! Programs of the machine, each with a time in which it has to end.
//!
//! Room      `volumes`.
//! Holds     Nobody waits for a program without bound, not for one either that does not end when it is
//!           to: what it waits for may be a volume that stands still until the call is over.

use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// For what tells something, and for whatever runs while a volume stands still.
pub(crate) const SHORT: Duration = Duration::from_secs(30);
/// For what makes, grows or removes something whose size is not known.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// How a program is ended that takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is told to, and killed when it does not.
    Killed,
    /// It is told to, and goes on when it does not: killed, it would leave half done what it works
    /// on. lvm2 has volumes stand still meanwhile.
    Told,
}

/// So long one is waited for that was told to end, and again when it was killed.
const GRACE: Duration = Duration::from_secs(2);
/// Longest complaint of a program that goes into an error, in characters.
const COMPLAINT_LEN: usize = 300;

/// A program without a shell: what it said, or in the error what it complained of.
///
/// # Errors
/// When it does not start, fails, or has not ended within the limit: then it is to end, and the error
/// is [`io::ErrorKind::TimedOut`].
pub(crate) fn run(command: &mut Command, limit: Duration, ending: Ending) -> io::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Some(done) = ended_within(command, &name, (limit, ending))? else {
        let message = format!(
            "{name} has not ended within {} seconds: what it works on may hang, or another program \
             may hold it",
            limit.as_secs_f32()
        );
        return Err(io::Error::new(io::ErrorKind::TimedOut, message));
    };
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let complaint: String =
        String::from_utf8_lossy(&done.stderr).trim().chars().take(COMPLAINT_LEN).collect();
    Err(io::Error::other(format!("{name}: {complaint} ({})", done.status)))
}

/// What came of it; none when it took too long.
fn ended_within(
    command: &mut Command,
    name: &str,
    (limit, ending): (Duration, Ending),
) -> io::Result<Option<Output>> {
    let (hand, handed) = mpsc::channel::<Child>();
    let (tell, told) = mpsc::channel();
    // It is there before the program, and stays until that has ended, however long it takes after
    // all: nobody is left who was not waited for.
    thread::Builder::new().name("program".to_owned()).spawn(move || {
        if let Ok(child) = handed.recv() {
            // Nobody may be listening any more.
            drop(tell.send(child.wait_with_output()));
        }
    })?;
    let child = command.spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("{name} does not start ({error}); is it installed?"))
    })?;
    // Not by its number, which is somebody else's once it was waited for. Without a handle it
    // is not told to end.
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    if hand.send(child).is_ok()
        && let Ok(done) = told.recv_timeout(limit)
    {
        return done.map(Some);
    }
    let handle = handle?;
    // lvm2 ends by the first one where it leaves nothing half done, and hears it at no other time.
    let signals: &[Signal] = match ending {
        Ending::Killed => &[Signal::TERM, Signal::KILL],
        Ending::Told => &[Signal::TERM],
    };
    for signal in signals {
        // It may have ended by now.
        let _ = pidfd_send_signal(&handle, *signal);
        if told.recv_timeout(GRACE).is_ok() {
            break;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn program_that_hangs_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 86400", pid.display());
        let error = run(&mut sh(&script), Duration::from_secs(1), Ending::Killed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(error.to_string().contains("sh has not ended within 1 seconds"), "{error}");
        // A machine that is slow enough has killed it before it wrote anything.
        let Ok(pid) = std::fs::read_to_string(pid) else { return };
        let stat = format!("/proc/{}/stat", pid.trim());
        let sleeps = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains("(sleep) S"));
        let waited = (0..600).take_while(|_| sleeps()).map(|_| thread::sleep(GRACE / 10)).count();
        assert!(waited < 600, "it sleeps on");
    }

    /// Whoever inherited its output keeps that open.
    #[test]
    fn program_whose_child_goes_on_is_not_waited_for_either() {
        let limit = Duration::from_millis(50);
        let error = run(&mut sh("sleep 20 & wait"), limit, Ending::Killed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn program_that_is_only_told_to_end_goes_on_when_it_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (begun, ended) = (folder.path().join("begun"), folder.path().join("ended"));
        let script = format!(
            "trap '' TERM; touch {}; while [ ! -e {}/go ]; do sleep 0.1; done; touch {}",
            begun.display(),
            folder.path().display(),
            ended.display()
        );
        let error = run(&mut sh(&script), Duration::from_secs(1), Ending::Told).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        // A machine that is slow enough has told it before it could refuse.
        if begun.exists() {
            std::fs::write(folder.path().join("go"), "").unwrap();
            let waited = (0..600).take_while(|_| !ended.exists());
            assert!(waited.map(|_| thread::sleep(GRACE / 10)).count() < 600, "it was killed");
        }
    }

    #[test]
    fn what_a_program_says_and_complains_of_is_heard() {
        assert_eq!(
            run(&mut sh("echo all is well"), LONG, Ending::Killed).unwrap(),
            "all is well\n"
        );
        let error = run(&mut sh("echo no room >&2; exit 3"), LONG, Ending::Killed).unwrap_err();
        assert!(error.to_string().contains("sh: no room"), "{error}");
        let error =
            run(&mut Command::new("lastkey-no-such-program"), LONG, Ending::Killed).unwrap_err();
        assert!(error.to_string().contains("is it installed?"), "{error}");
        // More than a pipe holds.
        let script = "head -c 300000 /dev/zero | tr '\\0' x";
        let long = run(&mut sh(script), LONG, Ending::Killed).unwrap();
        assert_eq!(long.len(), 300_000);
    }
}
