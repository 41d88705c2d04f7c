//! A program that is looked after: signals reach it, changes of its secrets too.
//!
//! Room      `lastkey`.
//! Holds     a server that is away or refuses changes nothing for the program; it is asked again,
//!           ever less often, until it answers. After a refusal the credentials are read anew: the
//!           program may outlive a token that somebody renews.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    process::ExitStatus,
    time::Duration,
};

use lastkey_client::Client;
use lastkey_wire::native::secrets::{SeenSecret, WatchSecretsRequest};
use rustix::process::{Pid, PidfdFlags, Signal as Number, pidfd_open, pidfd_send_signal};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::{Delivery, ExecArgs, Fetched, OnChange};
use crate::cli::{failure::Failure, output, session::Session};

/// How long one question to the server waits for a change.
const WAIT_SECONDS: u32 = 20;
/// How long a program may take to end before it is killed.
const LONGEST_END: Duration = Duration::from_secs(30);
/// Pauses between questions that failed.
const PAUSES: [u64; 6] = [1, 2, 5, 10, 20, 30];

/// Signals that are passed on.
struct Forwarded([(Signal, Number); 6]);

impl Forwarded {
    fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|cause| Failure::io("listen for signals", cause));
        Ok(Self([
            (on(SignalKind::terminate())?, Number::TERM),
            (on(SignalKind::interrupt())?, Number::INT),
            (on(SignalKind::hangup())?, Number::HUP),
            (on(SignalKind::quit())?, Number::QUIT),
            (on(SignalKind::user_defined1())?, Number::USR1),
            (on(SignalKind::user_defined2())?, Number::USR2),
        ]))
    }

    async fn next(&mut self) -> Number {
        let [a, b, c, d, e, f] = &mut self.0;
        tokio::select! {
            _ = a.0.recv() => a.1,
            _ = b.0.recv() => b.1,
            _ = c.0.recv() => c.1,
            _ = d.0.recv() => d.1,
            _ = e.0.recv() => e.1,
            _ = f.0.recv() => f.1,
        }
    }
}

/// A program that was started, and how it will have ended.
struct Running {
    handle: OwnedFd,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
}

impl Running {
    fn start(args: &ExecArgs, delivery: &Delivery) -> Result<Self, Failure> {
        let mut command = super::command(args)?;
        delivery.apply(&mut command);
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |cause| Failure::io(format!("start {name}"), cause);
        let mut child = command.spawn().map_err(failed)?;
        // A handle and no number: it never means another process.
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let handle = handle.map_err(|cause| {
            // It has the secrets, and nobody would look after it.
            drop(child.kill().and_then(|()| child.wait()));
            failed(cause.into())
        })?;
        let (tell, ended) = oneshot::channel();
        // Nobody may be listening any more when it ends.
        std::thread::spawn(move || drop(tell.send(child.wait())));
        Ok(Self { handle, ended })
    }

    async fn ended(&mut self) -> Result<ExitStatus, Failure> {
        let gone = |_| io::Error::other("nobody waited for it");
        let status = (&mut self.ended).await.map_err(gone).flatten();
        status.map_err(|cause| Failure::io("wait for the program", cause))
    }

    fn send(&self, signal: Number) {
        // It may have ended just now; then the next look says so.
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Ends the program, kindly first. Answers how it ended if somebody asked for that meanwhile.
    async fn end(mut self, signals: &mut Forwarded) -> Result<Option<ExitStatus>, Failure> {
        self.send(Number::TERM);
        let patience = tokio::time::sleep(LONGEST_END);
        tokio::pin!(patience);
        let mut is_asked_for = false;
        let status = loop {
            tokio::select! {
                status = self.ended() => break status?,
                signal = signals.next() => {
                    is_asked_for |= signal == Number::TERM || signal == Number::INT;
                    self.send(signal);
                }
                () = &mut patience => {
                    self.send(Number::KILL);
                    break self.ended().await?;
                }
            }
        };
        Ok(is_asked_for.then_some(status))
    }
}

/// Runs the program until it ends, and answers as it ended.
pub(super) async fn supervise(
    args: &ExecArgs,
    session: &Session,
    mut client: Client,
    mut fetched: Fetched,
    mut delivery: Delivery,
) -> Result<(), Failure> {
    let mut signals = Forwarded::listen()?;
    let mut program = Running::start(args, &delivery)?;
    loop {
        let news = {
            let changed = news(args, session, &mut client, &fetched);
            tokio::pin!(changed);
            loop {
                tokio::select! {
                    status = program.ended() => return as_ended(status?),
                    signal = signals.next() => program.send(signal),
                    news = &mut changed => break news,
                }
            }
        };
        let renewed = delivery.renew(args, &news);
        // Also when it cannot be delivered: what is waited for is the version after it.
        fetched = news;
        if let Err(failure) = renewed {
            let kept = "the program keeps what it has";
            output::note(&format!("warning: a secret changed, and {kept}: {failure}"));
            continue;
        }
        if args.on_change == OnChange::Hangup {
            program.send(Number::HUP);
            continue;
        }
        if let Some(status) = program.end(&mut signals).await? {
            return as_ended(status);
        }
        output::note("a secret changed; the program starts anew");
        program = Running::start(args, &delivery)?;
    }
}

/// The secrets anew when one of them has changed; never, when nobody wants to know.
async fn news(
    args: &ExecArgs,
    session: &Session,
    client: &mut Client,
    fetched: &Fetched,
) -> Fetched {
    match args.on_change {
        OnChange::Nothing => std::future::pending().await,
        OnChange::Restart | OnChange::Hangup => changed(args, session, client, fetched).await,
    }
}

/// The program's own end, as an exit code.
fn as_ended(status: ExitStatus) -> Result<(), Failure> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Ended(u8::try_from(code).unwrap_or(u8::MAX))),
        (None, signal) => {
            let number = signal.and_then(|number| u8::try_from(number).ok()).unwrap_or_default();
            Err(Failure::Ended(128_u8.saturating_add(number)))
        }
    }
}

/// Waits until one of the secrets changed, and answers all of them anew.
async fn changed(
    args: &ExecArgs,
    session: &Session,
    client: &mut Client,
    fetched: &Fetched,
) -> Fetched {
    let request = question(fetched);
    let mut failed = 0_usize;
    loop {
        let asked = client.watch_secrets(&request).within(Duration::from_secs(60)).send().await;
        let (problem, is_denied) = match asked {
            Ok(reply) if reply.changed.is_empty() => {
                failed = 0;
                continue;
            }
            Ok(reply) if reply.changed.iter().any(|one| one.version.is_none()) => {
                let gone = "a secret is gone, or may not be read any more; the program keeps what \
                            it has";
                (gone.to_owned(), true)
            }
            Ok(_) => match Fetched::of(args, client).await {
                Ok(fresh) => return fresh,
                Err(failure) => (failure.to_string(), failure.is_denied()),
            },
            Err(error) => {
                let failure = Failure::from(error);
                (failure.to_string(), failure.is_denied())
            }
        };
        if failed == 0 {
            output::note(&format!("warning: the secrets cannot be watched now: {problem}"));
        }
        let pause = PAUSES.get(failed).or(PAUSES.last()).copied().unwrap_or(1);
        failed = failed.saturating_add(1);
        tokio::time::sleep(Duration::from_secs(pause)).await;
        if is_denied {
            *client = session.client_anew(client);
        }
    }
}

/// What is watched: each secret once, also one that is delivered twice.
fn question(fetched: &Fetched) -> WatchSecretsRequest {
    let versions: BTreeMap<_, _> =
        fetched.0.iter().map(|(wanted, reply)| (&wanted.name, reply.version)).collect();
    let seen =
        |(name, version): (&String, u32)| SeenSecret { name: name.clone(), version: Some(version) };
    WatchSecretsRequest {
        secrets: versions.into_iter().map(seen).collect(),
        wait_seconds: Some(WAIT_SECONDS),
        ..WatchSecretsRequest::default()
    }
}
