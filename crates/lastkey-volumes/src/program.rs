//! Programs of the machine, each with a time in which it has to end.
//!
//! Room      `volumes`.
//! Holds     Nobody waits for a program without bound, not for one either that is killed and does
//!           not end: what it waits for may be a volume that stands still until the call is over.

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

/// So long one is waited for that was told to end, and again when it was killed.
const GRACE: Duration = Duration::from_secs(2);
/// Longest complaint of a program that goes into an error, in characters.
const COMPLAINT_LEN: usize = 300;

/// A program without a shell: what it said, or in the error what it complained of.
///
/// # Errors
/// When it does not start, fails, or has not ended within the limit: then it is killed, and the
/// error is [`io::ErrorKind::TimedOut`].
pub(crate) fn run(command: &mut Command, limit: Duration) -> io::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("{name} does not start ({error}); is it installed?"))
    })?;
    let Some(done) = ended_within(child, limit)? else {
        let message = format!(
            "{name} has not ended within {} seconds and was stopped: what it works on may hang, or \
             another program may hold it",
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

/// What came of it; none when it had to be killed.
fn ended_within(mut child: Child, limit: Duration) -> io::Result<Option<Output>> {
    // Not by its number, which is somebody else's once it was waited for.
    let handle = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(error) => {
            child.kill()?;
            return Err(error.into());
        }
    };
    let (tell, told) = mpsc::channel();
    // The thread stays until the program has ended, however long that takes after all.
    let waiting = thread::Builder::new().name("program".to_owned());
    let waiting = waiting.spawn(move || drop(tell.send(child.wait_with_output())));
    if waiting.is_ok()
        && let Ok(done) = told.recv_timeout(limit)
    {
        return done.map(Some);
    }
    // lvm2 ends by the first one where it leaves nothing half done, and hears it at no other time.
    for signal in [Signal::TERM, Signal::KILL] {
        // It may have ended by now.
        let _ = pidfd_send_signal(&handle, signal);
        if told.recv_timeout(GRACE).is_ok() {
            break;
        }
    }
    waiting.map(|_| None)
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
        let error = run(&mut sh(&script), Duration::from_secs(1)).unwrap_err();
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
        let error = run(&mut sh("sleep 20 & wait"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn what_a_program_says_and_complains_of_is_heard() {
        assert_eq!(run(&mut sh("echo all is well"), LONG).unwrap(), "all is well\n");
        let error = run(&mut sh("echo no room >&2; exit 3"), LONG).unwrap_err();
        assert!(error.to_string().contains("sh: no room"), "{error}");
        let error = run(&mut Command::new("lastkey-no-such-program"), LONG).unwrap_err();
        assert!(error.to_string().contains("is it installed?"), "{error}");
        // More than a pipe holds.
        let long = run(&mut sh("head -c 300000 /dev/zero | tr '\\0' x"), LONG).unwrap();
        assert_eq!(long.len(), 300_000);
    }
}
