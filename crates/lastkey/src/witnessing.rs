//! Asks the witnesses of the audit log to cosign what it has signed.
//!
//! Room      the binary.
//! Source    C2SP tlog-witness.
//! Holds     a witness that is away holds up nothing; it is asked again. One that knew more of the
//!           log than there is shows that an older state was put back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use lastkey_client::{Addr, Client, ClientConfig, Trust};
use lastkey_core::audit::archive::Witness;
use lastkey_core::audit::checkpoint::Checkpoint;
use lastkey_core::audit::note::{NoteKey, split};
use lastkey_core::audit::witness::AddCheckpoint;
use lastkey_core::ports::{Audit, AuditArchive};
use lastkey_service::rollback::RolledBack;
use lastkey_service::sealing::Gate;

/// How often witnesses are asked.
const PERIOD: Duration = Duration::from_secs(2);
/// How often one checkpoint is submitted to a witness that remembers another size.
const ATTEMPTS: usize = 3;

/// Runs until it is dropped.
pub(crate) async fn run(audit: Arc<dyn Audit>, gate: Arc<Gate>) {
    let Some(archive) = audit.archive() else { return };
    let mut known = Known::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        if let Err(error) = known.round(archive, &gate).await {
            tracing::warn!(error = format!("{error:#}"), "the witnesses cannot be asked");
        }
    }
}

/// What is known of the witnesses.
#[derive(Default)]
struct Known {
    /// Size of the newest checkpoint that each has cosigned.
    sizes: HashMap<NoteKey, u64>,
    /// Size of the last checkpoint that all were asked about.
    asked: u64,
}

impl Known {
    /// Asks every witness about the newest checkpoint, once.
    async fn round(&mut self, archive: &dyn AuditArchive, gate: &Gate) -> anyhow::Result<()> {
        let state = archive.state();
        if state.log_key.is_none() || state.signed == self.asked {
            return Ok(());
        }
        let witnesses = archive.witnesses().await.map_err(|e| anyhow!(e))?.ours;
        if witnesses.is_empty() {
            return Ok(());
        }
        let note = archive.checkpoint().await.map_err(|e| anyhow!(e))?;
        let checkpoint = Checkpoint::parse(split(&note)?.0)?;
        let mut lines = String::new();
        for witness in &witnesses {
            let asked = self.ask(archive, witness, &note, checkpoint.size).await;
            match asked {
                Ok(line) => lines.push_str(&line),
                Err(error) => {
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
        if lines.is_empty() {
            return Ok(());
        }
        archive.add_cosignatures(&note, &lines).await.map_err(|e| anyhow!(e))
    }

    async fn ask(
        &mut self,
        archive: &dyn AuditArchive,
        witness: &Witness,
        note: &str,
        size: u64,
    ) -> anyhow::Result<String> {
        let (client, path) = client_of(witness)?;
        for _ in 0..ATTEMPTS {
            let old = self.sizes.get(&witness.key).copied().unwrap_or(0);
            if old > size {
                bail!(RolledBack::Cut { old, size });
            }
            let proof = archive.consistency(old, size).await.map_err(|e| anyhow!(e))?;
            let request = AddCheckpoint { old, proof, checkpoint: note.to_owned() };
            let (status, text) = client.add_checkpoint(&path, request.to_string()).await?;
            match status {
                200 => {
                    self.sizes.insert(witness.key.clone(), size);
                    return Ok(text);
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
                _ => bail!("it answered {status}: {}", text.trim_end()),
            }
        }
        bail!("it remembers another checkpoint each time")
    }
}

/// A client of a witness, and the path of `add-checkpoint` there.
fn client_of(witness: &Witness) -> anyhow::Result<(Client, String)> {
    let (scheme, rest) = witness.url.split_once("://").context("the URL has no scheme")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let addr: Addr = format!("{scheme}://{host}").parse()?;
    let mut config = ClientConfig::new(addr);
    if let Some(fingerprint) = &witness.ca_fingerprint {
        config.trust = Trust::Pinned(fingerprint.parse()?);
    }
    let path = path.trim_end_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    Ok((Client::new(&config)?, format!("{slash}{path}/add-checkpoint")))
}

#[cfg(test)]
mod tests {
    use lastkey_core::audit::note::{KeyKind, NoteSigner};
    use lastkey_secret::SecretArray;

    use super::*;

    #[test]
    fn the_url_of_a_witness_is_where_add_checkpoint_is_found() {
        let seed = SecretArray::copy_of(&[1; 32]);
        let key = NoteSigner::from_seed("w", KeyKind::Cosignature, &seed).unwrap().key().clone();
        let path = |url: &str| {
            let witness = Witness { key: key.clone(), url: url.to_owned(), ca_fingerprint: None };
            client_of(&witness).map(|(_, path)| path)
        };
        assert_eq!(path("http://127.0.0.1:1").unwrap(), "/add-checkpoint");
        assert_eq!(path("http://127.0.0.1:1/a/w/").unwrap(), "/a/w/add-checkpoint");
        assert!(path("127.0.0.1:1").is_err());
    }
}
