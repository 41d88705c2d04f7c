//! Witnessing: another node remembers the newest checkpoint of a log and vouches only for one
//! that continues it, so that not even the log's own machine can go back unnoticed.
//!
//! Room      `core`. Both sides of the protocol: what a log asks, and what a witness answers.
//! Source    C2SP tlog-witness (`add-checkpoint`).

use core::fmt;

use super::checkpoint::{Checkpoint, hash_from_base64, hash_to_base64};
use super::merkle::{Hash, empty_root, verify_consistency};
use super::note::{NoteError, NoteKey};
use super::receipt::MAX_PROOF_LEN;

/// A request to cosign a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the checkpoint that the witness is thought to remember.
    pub old: u64,
    /// Proof that the new tree begins with that one.
    pub proof: Vec<Hash>,
    /// The new checkpoint, signed.
    pub checkpoint: String,
}

/// What a witness remembers of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Size of the newest checkpoint.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { size: 0, root: empty_root() }
    }
}

/// Why a witness does not cosign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be read, or is about an older tree than it proves from (400).
    #[error("not a request of the witness protocol")]
    Malformed,
    /// No known key of the log has signed it (403).
    #[error("no known key of this log has signed the checkpoint")]
    Forbidden,
    /// The log is not known here (404).
    #[error("this log is not witnessed here")]
    UnknownLog,
    /// The witness remembers another size (409).
    #[error("the newest checkpoint that was witnessed has size {0}")]
    Conflict(u64),
    /// The log shows another tree of the same size: it has been rewritten (409).
    #[error("another tree of size {0} was witnessed: the log was rewritten")]
    Rewritten(u64),
    /// The proof does not hold (422).
    #[error("the checkpoint does not continue the one that was witnessed")]
    Inconsistent,
}

impl AddCheckpoint {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        Self::parsed(text).ok_or(Refusal::Malformed)
    }

    fn parsed(text: &str) -> Option<Self> {
        let (old, rest) = text.strip_prefix("old ")?.split_once('\n')?;
        let number: u64 = old.parse().ok().filter(|number: &u64| number.to_string() == old)?;
        let (lines, checkpoint) = match rest.strip_prefix('\n') {
            Some(checkpoint) => ("", checkpoint),
            None => rest.split_once("\n\n")?,
        };
        let proof: Option<Vec<_>> = lines.lines().map(hash_from_base64).collect();
        let proof = proof.filter(|proof| proof.len() <= MAX_PROOF_LEN)?;
        Some(Self { old: number, proof, checkpoint: checkpoint.to_owned() })
    }

    /// Decides as a witness: what to remember, durably, before it cosigns. `remembered` tells what
    /// it remembers of a log, and is `None` for a log that it does not witness.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn judge(
        &self,
        known: &[NoteKey],
        remembered: impl FnOnce(&str) -> Option<Remembered>,
    ) -> Result<Checkpoint, Refusal> {
        let (text, _) = super::note::split(&self.checkpoint).map_err(|_| Refusal::Malformed)?;
        let claimed = Checkpoint::parse(text).map_err(|_| Refusal::Malformed)?;
        let remembered = remembered(&claimed.origin).ok_or(Refusal::UnknownLog)?;
        let (checkpoint, _) = Checkpoint::open(&self.checkpoint, known).map_err(forbidden)?;
        if self.old > checkpoint.size {
            return Err(Refusal::Malformed);
        }
        if self.old != remembered.size {
            return Err(Refusal::Conflict(remembered.size));
        }
        if self.old == checkpoint.size && checkpoint.root != remembered.root {
            return Err(Refusal::Rewritten(remembered.size));
        }
        let (old, new) = ((self.old, &remembered.root), (checkpoint.size, &checkpoint.root));
        if verify_consistency(&self.proof, old, new) {
            Ok(checkpoint)
        } else {
            Err(Refusal::Inconsistent)
        }
    }
}

fn forbidden(error: NoteError) -> Refusal {
    match error {
        NoteError::Malformed => Refusal::Malformed,
        NoteError::Unsigned | NoteError::BadSignature => Refusal::Forbidden,
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", hash_to_base64(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretArray;
    use proptest::prelude::*;

    use super::*;
    use crate::audit::merkle::{leaf_hash, root_of};
    use crate::audit::note::{KeyKind, NoteSigner};
    use crate::time::Timestamp;

    fn log() -> NoteSigner {
        NoteSigner::from_seed("log", KeyKind::Ed25519, &SecretArray::copy_of(&[1; 32])).unwrap()
    }

    fn at(size: u64, root: Hash) -> String {
        let text = Checkpoint { origin: "log".into(), size, root }.to_string();
        format!("{text}\n{}", log().sign(&text, Timestamp(1)).unwrap())
    }

    fn ask(old: u64, proof: Vec<Hash>, checkpoint: String) -> AddCheckpoint {
        AddCheckpoint { old, proof, checkpoint }
    }

    #[test]
    fn a_witness_cosigns_what_continues_and_refuses_everything_else() {
        let leaves = [leaf_hash(b"a"), leaf_hash(b"b")];
        let (one, two) = (root_of(&leaves[..1]), root_of(&leaves));
        let known = [log().key().clone()];
        let knows = |size, root| move |_: &str| Some(Remembered { size, root });
        let good = ask(1, vec![leaves[1]], at(2, two));
        assert!(good.judge(&known, knows(1, one)).is_ok());
        assert!(ask(0, vec![], at(1, one)).judge(&known, |_| Some(Remembered::default())).is_ok());
        assert!(ask(1, vec![], at(1, one)).judge(&known, knows(1, one)).is_ok());

        assert_eq!(good.judge(&known, |_| None), Err(Refusal::UnknownLog));
        assert_eq!(good.judge(&[], knows(1, one)), Err(Refusal::Forbidden));
        assert_eq!(good.judge(&known, knows(2, two)), Err(Refusal::Conflict(2)));
        let rewritten = ask(1, vec![], at(1, two));
        assert_eq!(rewritten.judge(&known, knows(1, one)), Err(Refusal::Rewritten(1)));
        let other = ask(1, vec![leaf_hash(b"x")], at(2, two));
        assert_eq!(other.judge(&known, knows(1, one)), Err(Refusal::Inconsistent));
        let back = ask(2, vec![], at(1, one));
        assert_eq!(back.judge(&known, knows(2, two)), Err(Refusal::Malformed));
    }

    #[test]
    fn a_request_reads_back() {
        for request in
            [ask(0, vec![], at(1, [7; 32])), ask(5, vec![[1; 32], [2; 32]], at(9, [7; 32]))]
        {
            assert_eq!(AddCheckpoint::parse(&request.to_string()), Ok(request));
        }
        for bad in ["", "old 1\n", "old 01\n\nx\n", "old 1\nAA\n\nx", "new 1\n\nx"] {
            assert_eq!(AddCheckpoint::parse(bad), Err(Refusal::Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fail(text: String) {
            let _ = AddCheckpoint::parse(&text);
        }
    }
}
