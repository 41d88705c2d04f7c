//! `scan --confirm`: asks the key service about what a scan pack has found.
//!
//! Room      `lastkey`.
//! Source    docs/formats/scan-pack.md, "Confirmation".
//! Holds     Nothing of what was read leaves: a claim is a proof under a key that is drawn for the
//!           run. What the service does not answer stays a finding, and is listed as not checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lastkey_checks::{
    finding::Finding,
    scan::{
        Outcome,
        pack::{Claim, PROOF_LEN, ProofKey, confirmed},
    },
};
use lastkey_client::Client;
use lastkey_core::{leak::MAX_CLAIMS, secret_item::SecretId};
use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_wire::{
    Base64Bytes,
    native::leaks::{ConfirmLeaksRequest, LeakClaim, LeakVerdictView},
    words::LeakVerdict,
};

use crate::cli::{
    args::{ConnectionArgs, Format},
    failure::{Failure, printable},
    progress::CountProgress,
    session::Session,
};

/// Longest time for one question. The service may ask for a minute's patience between two.
const PATIENCE: Duration = Duration::from_secs(300);

/// Whom to ask, and the key of this run's proofs.
pub(super) struct Confirmer {
    client: Client,
    key: [u8; PROOF_LEN],
}

impl Confirmer {
    /// Prepares questions.
    ///
    /// # Errors
    /// [`Failure::Config`] and the like when no server is named; [`Failure::Input`] without
    /// randomness.
    pub(super) fn new(connection: &ConnectionArgs) -> Result<Self, Failure> {
        let client = Session::new(connection.clone(), Format::Table).client()?;
        let mut key = [0; PROOF_LEN];
        SystemEntropy.fill(&mut key).map_err(|error| Failure::Input(error.to_string()))?;
        Ok(Self { client, key })
    }

    /// Under which the scanner proves what it has seen.
    pub(super) fn proof_key(&self) -> ProofKey {
        ProofKey::new(&self.key)
    }

    /// Asks about everything that was claimed. What is confirmed or not told becomes a finding;
    /// answers how many places were refuted.
    pub(super) async fn settle(&self, outcome: &mut Outcome) -> u64 {
        let claimed = std::mem::take(&mut outcome.claimed);
        let claims: BTreeSet<Claim> = claimed.iter().map(|(_, claim)| *claim).collect();
        let claims: Vec<Claim> = claims.into_iter().collect();
        let mut answers = BTreeMap::new();
        let progress = CountProgress::new("asking the key service", claims.len() as u64);
        for some in claims.chunks(MAX_CLAIMS) {
            match self.ask(some).await {
                Ok(verdicts) => answers.extend(some.iter().copied().zip(verdicts)),
                Err(failure) => {
                    let reason =
                        format!("the key service does not confirm it: {}", failure.chain());
                    outcome.miss("values of the scan pack", printable(&reason));
                    if failure.will_repeat() {
                        break;
                    }
                }
            }
            some.iter().for_each(|_| progress.advance());
        }
        drop(progress);
        let (mut refuted, mut untold) = (0, 0_u64);
        for (finding, claim) in claimed {
            match answers.get(&claim) {
                Some(answer) => match answer.verdict {
                    LeakVerdict::Confirmed => outcome.findings.push(named(finding, answer)),
                    LeakVerdict::Refuted => refuted += 1,
                    LeakVerdict::Untold => {
                        untold += 1;
                        outcome.findings.push(finding);
                    }
                },
                None => outcome.findings.push(finding),
            }
        }
        if untold > 0 {
            let reason = format!(
                "the key service does not tell about {untold} of these places: the version is gone, \
                 or you may not ask about its secret (secrets:ConfirmLeak)"
            );
            outcome.miss("values of the scan pack", reason);
        }
        refuted
    }

    async fn ask(&self, claims: &[Claim]) -> Result<Vec<LeakVerdictView>, Failure> {
        let request = ConfirmLeaksRequest {
            proof_key: Base64Bytes(self.key.to_vec()),
            claims: claims.iter().map(on_the_wire).collect(),
        };
        let reply = self.client.confirm_leaks(&request).within(PATIENCE).await?;
        if reply.verdicts.len() == claims.len() {
            Ok(reply.verdicts)
        } else {
            Err(Failure::Input("the answer has another number of verdicts".to_owned()))
        }
    }
}

fn on_the_wire(claim: &Claim) -> LeakClaim {
    LeakClaim {
        id: SecretId(claim.value.secret).to_string(),
        version: claim.value.version,
        proof: Base64Bytes(claim.proof.to_vec()),
    }
}

/// A confirmed finding, with the name of its secret when that was told.
fn named(finding: Finding, answer: &LeakVerdictView) -> Finding {
    let subject = answer.name.as_ref().zip(answer.version).map(|(name, version)| {
        let stages = match answer.stages.as_slice() {
            [] => "at no stage".to_owned(),
            stages => stages.join(", "),
        };
        (format!("ManagedSecret/{name}"), format!("version {version}, {stages}"))
    });
    confirmed(finding, subject)
}
