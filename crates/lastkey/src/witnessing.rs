//! Asks the witnesses of the audit log to cosign what it has signed.
//!
//! Room      the binary.
//! Source    C2SP tlog-witness.
//! Holds     a witness that is away holds up nothing; it is asked again. One that knew more of the
//!           log than there is shows that an older state was put back. They are called through the
//!           guard of `connect`, as everybody is whose address somebody named.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use http::Method;
use lastkey_connect::guard::{Guard, Limits, Outgoing, Route, Trust};
use lastkey_core::audit::archive::Witness;
use lastkey_core::audit::checkpoint::Checkpoint;
use lastkey_core::audit::note::{NoteKey, open, split};
use lastkey_core::audit::witness::AddCheckpoint;
use lastkey_core::ports::{Audit, AuditArchive};
use lastkey_service::rollback::RolledBack;
use lastkey_service::sealing::Gate;

/// How often witnesses are asked.
const PERIOD: Duration = Duration::from_secs(2);
/// How often one checkpoint is submitted to a witness that remembers another size.
const ATTEMPTS: usize = 3;
/// How long one that did not cosign is left alone while the log does not grow.
const RETRY: Duration = Duration::from_secs(60);
/// Longest answer that is read, in bytes; what is logged of it, in characters.
const MAX_ANSWER_LEN: usize = 64 << 10;
const MAX_TOLD_LEN: usize = 200;

/// Runs until it is dropped.
pub(crate) async fn run(audit: Arc<dyn Audit>, gate: Arc<Gate>, guard: Guard) {
    let Some(archive) = audit.archive() else { return };
    let mut known = Known::behind(guard);
    loop {
        tokio::time::sleep(PERIOD).await;
        if let Err(error) = known.round(archive, &gate).await {
            tracing::warn!(error = format!("{error:#}"), "the witnesses cannot be asked");
        }
    }
}

/// What is known of the witnesses.
struct Known {
    guard: Guard,
    /// Size of the newest checkpoint that each has cosigned.
    sizes: HashMap<NoteKey, u64>,
    /// Size of the last checkpoint that all were asked about.
    asked: u64,
    /// When those are asked again who did not cosign that.
    again: Option<Instant>,
    /// The last checkpoint that was asked about, and who cosigned it.
    note: String,
    lines: HashMap<NoteKey, String>,
}

impl Known {
    fn behind(guard: Guard) -> Self {
        let (sizes, lines) = (HashMap::new(), HashMap::new());
        Self { guard, sizes, asked: 0, again: None, note: String::new(), lines }
    }

    /// Whether there is nobody to ask about a log of this size.
    fn is_done(&self, size: u64, now: Instant) -> bool {
        size == self.asked && self.again.is_none_or(|again| now < again)
    }

    /// Asks every witness about the newest checkpoint.
    async fn round(&mut self, archive: &dyn AuditArchive, gate: &Gate) -> anyhow::Result<()> {
        let state = archive.state();
        if state.log_key.is_none() || self.is_done(state.signed, Instant::now()) {
            return Ok(());
        }
        let witnesses = archive.witnesses().await.map_err(|e| anyhow!(e))?.ours;
        if witnesses.is_empty() {
            return Ok(());
        }
        let note = archive.checkpoint().await.map_err(|e| anyhow!(e))?;
        let checkpoint = Checkpoint::parse(split(&note)?.0)?;
        if note != self.note {
            self.note.clone_from(&note);
            self.lines.clear();
        }
        let before = self.lines.len();
        self.again = None;
        for witness in &witnesses {
            if self.lines.contains_key(&witness.key) {
                continue;
            }
            match self.ask(archive, witness, &note, checkpoint.size).await {
                Ok(line) => {
                    self.lines.insert(witness.key.clone(), line);
                }
                Err(error) => {
                    self.again = Some(Instant::now() + RETRY);
                    if let Some(rolled_back) = error.downcast_ref::<RolledBack>() {
                        let (who, what) = (witness.key.name(), rolled_back.to_string());
                        gate.note_rollback(who, &format!("witness/{who}"), &what).await;
                    }
                    let (witness, error) = (witness.key.name(), format!("{error:#}"));
                    tracing::warn!(witness, error, "a witness did not cosign the audit log");
                }
            }
        }
        self.asked = checkpoint.size;
        if self.lines.len() == before {
            return Ok(());
        }
        let lines = witnesses.iter().filter_map(|witness| self.lines.get(&witness.key));
        let lines: String = lines.map(String::as_str).collect();
        archive.add_cosignatures(&note, &lines).await.map_err(|e| anyhow!(e))
    }

    async fn ask(
        &mut self,
        archive: &dyn AuditArchive,
        witness: &Witness,
        note: &str,
        size: u64,
    ) -> anyhow::Result<String> {
        let route = route_to(&self.guard, witness)?;
        for _ in 0..ATTEMPTS {
            let old = self.sizes.get(&witness.key).copied().unwrap_or(0);
            if old > size {
                bail!(RolledBack::Cut { old, size });
            }
            let proof = archive.consistency(old, size).await.map_err(|e| anyhow!(e))?;
            let request = AddCheckpoint { old, proof, checkpoint: note.to_owned() };
            let (status, text) = submit(&route, request.to_string()).await?;
            match status {
                200 => {
                    let line = cosignature(note, &text, &witness.key)?;
                    self.sizes.insert(witness.key.clone(), size);
                    return Ok(line);
                }
                409 => {
                    let remembered = text.trim_end().parse().context("an unreadable answer")?;
                    if remembered == old {
                        bail!(RolledBack::Rewritten { old });
                    }
                    self.sizes.insert(witness.key.clone(), remembered);
                }
                // The proof that this log continues the one that it knew is none.
                422 => bail!(RolledBack::Rewritten { old }),
                _ => {
                    let told: String = text.trim_end().chars().take(MAX_TOLD_LEN).collect();
                    bail!("it answered {status}: {told:?}")
                }
            }
        }
        bail!("it remembers another checkpoint each time")
    }
}

/// The cosignature of a checkpoint by a witness, of all that it answered.
fn cosignature(note: &str, answer: &str, key: &NoteKey) -> anyhow::Result<String> {
    let (text, _) = split(note)?;
    let is_one =
        |line: &&str| open(&format!("{text}\n{line}\n"), std::slice::from_ref(key)).is_ok();
    let line = answer.lines().find(is_one);
    line.map(|line| format!("{line}\n")).context("its answer is no cosignature of the checkpoint")
}

/// The way to a witness.
fn route_to(guard: &Guard, witness: &Witness) -> anyhow::Result<Route> {
    let trust = match &witness.ca_fingerprint {
        Some(fingerprint) => Trust::Pinned(fingerprint.parse()?),
        None => Trust::System,
    };
    Ok(guard.route(&witness.url, &trust, None)?)
}

/// Submits a checkpoint; the status and the text of the answer.
async fn submit(route: &Route, text: String) -> anyhow::Result<(u16, String)> {
    let outgoing = Outgoing {
        method: Method::POST,
        path: "/add-checkpoint".to_owned(),
        headers: Vec::new(),
        body: text.into(),
    };
    let limits = Limits { len: MAX_ANSWER_LEN, ..Limits::default() };
    let answer = route.call(outgoing, limits).await?;
    Ok((answer.status.as_u16(), String::from_utf8(answer.body.into())?))
}

#[cfg(test)]
mod tests {
    use lastkey_connect::guard::Allowed;
    use lastkey_core::audit::note::{KeyKind, NoteSigner};
    use lastkey_core::time::Timestamp;
    use lastkey_secret::SecretArray;

    use super::*;

    fn witness(url: &str) -> Witness {
        let seed = SecretArray::copy_of(&[1; 32]);
        let key = NoteSigner::from_seed("w", KeyKind::Cosignature, &seed).unwrap().key().clone();
        Witness { key, url: url.to_owned(), ca_fingerprint: None }
    }

    #[test]
    fn witnesses_are_called_through_the_guard_alone() {
        let route = |guard: &Guard, url: &str| route_to(guard, &witness(url)).map(drop);
        let any = Guard::new(Allowed::Any);
        assert!(route(&any, "http://127.0.0.1:1/a/w/").is_ok());
        for url in ["127.0.0.1:1", "http://witness.example", "ftp://witness.example"] {
            assert!(route(&any, url).is_err(), "{url}");
        }
        let nobody = Guard::new(Allowed::Only(Vec::new()));
        let refused = route(&nobody, "http://127.0.0.1:1").unwrap_err().to_string();
        assert!(refused.contains("connect.allow"), "{refused}");
    }

    #[test]
    fn nobody_is_asked_about_a_log_again_while_all_have_cosigned_it_or_too_soon() {
        let mut known = Known::behind(Guard::new(Allowed::Any));
        let now = Instant::now();
        (known.asked, known.again) = (7, None);
        assert!(known.is_done(7, now) && !known.is_done(8, now));
        known.again = Some(now + RETRY);
        assert!(known.is_done(7, now) && !known.is_done(8, now));
        assert!(!known.is_done(7, now + RETRY));
    }
    #[test]
    fn only_the_cosignature_of_the_witness_that_was_asked_is_taken() {
        let signer = |seed: u8, kind| {
            NoteSigner::from_seed("w", kind, &SecretArray::copy_of(&[seed; 32])).unwrap()
        };
        let line =
            |signer: &NoteSigner, text: &str| signer.sign(text, Timestamp(1_800_000_000)).unwrap();
        let text = "log\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
        let note = format!("{text}\n{}", line(&signer(1, KeyKind::Ed25519), text));
        let (asked, other) = (signer(2, KeyKind::Cosignature), signer(3, KeyKind::Cosignature));
        let good = line(&asked, text);
        let taken = |answer: &str| cosignature(&note, answer, asked.key()).ok();
        assert_eq!(taken(&good).as_ref(), Some(&good));
        let among_others = format!("junk\n{}{good}", line(&other, text));
        assert_eq!(taken(&among_others).as_ref(), Some(&good));
        for bad in ["", "junk\n", &line(&other, text), &line(&asked, "log\n2\nAAAA\n")] {
            assert_eq!(taken(bad), None, "{bad}");
        }
    }
}
