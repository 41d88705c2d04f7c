//! Receipts: a proof that one record is in the log, to be kept by whom it concerns.
//!
//! Room      `core`.
//! Source    C2SP tlog-proof.

use core::fmt;

use super::checkpoint::{Checkpoint, hash_from_base64, hash_to_base64};
use super::merkle::{Hash, leaf_hash, verify_inclusion};
use super::note::{NoteError, NoteKey, Vouched};

/// A proof that one record is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Number of the record.
    pub index: u64,
    /// Siblings from the leaf up.
    pub proof: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

/// Why a receipt does not show what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Its checkpoint is not taken.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The proof does not lead from this record to that checkpoint.
    #[error("the record is not what was logged at this place")]
    NotIncluded,
}

const HEAD: &str = "c2sp.org/tlog-proof@v1\n";
/// A tree of 2^63 records has proofs of this length.
pub(super) const MAX_PROOF_LEN: usize = 63;

impl Receipt {
    /// Reads a receipt; data that is not signed (`extra`) is passed over.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        Self::parsed(text).ok_or(NoteError::Malformed)
    }

    fn parsed(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix(HEAD)?;
        if rest.starts_with("extra ") {
            rest = rest.split_once('\n')?.1;
        }
        let (index, rest) = rest.strip_prefix("index ")?.split_once('\n')?;
        let number: u64 = index.parse().ok().filter(|number: &u64| number.to_string() == index)?;
        let (lines, checkpoint) = match rest.strip_prefix('\n') {
            Some(checkpoint) => ("", checkpoint),
            None => rest.split_once("\n\n")?,
        };
        let proof: Option<Vec<_>> = lines.lines().map(hash_from_base64).collect();
        let proof = proof.filter(|proof| proof.len() <= MAX_PROOF_LEN)?;
        Some(Self { index: number, proof, checkpoint: checkpoint.to_owned() })
    }

    /// Checks that this record is in a log whose checkpoint a known key has signed.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(
        &self,
        record: &[u8],
        known: &[NoteKey],
    ) -> Result<(Checkpoint, Vec<Vouched>), ReceiptError> {
        let (checkpoint, vouched) = Checkpoint::open(&self.checkpoint, known)?;
        let leaf = leaf_hash(record);
        let size = checkpoint.size;
        if verify_inclusion(&self.proof, self.index, &leaf, size, &checkpoint.root) {
            Ok((checkpoint, vouched))
        } else {
            Err(ReceiptError::NotIncluded)
        }
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}index {}", self.index)?;
        for hash in &self.proof {
            writeln!(f, "{}", hash_to_base64(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretArray;

    use super::*;
    use crate::audit::merkle::{node_hash, root_of};
    use crate::audit::note::{KeyKind, NoteSigner};
    use crate::time::Timestamp;

    #[test]
    fn a_receipt_holds_for_its_record_alone_and_reads_back() {
        let seed = SecretArray::copy_of(&[1; 32]);
        let log = NoteSigner::from_seed("log", KeyKind::Ed25519, &seed).unwrap();
        let leaves = [leaf_hash(b"a"), leaf_hash(b"b"), leaf_hash(b"c")];
        let text = Checkpoint { origin: "log".into(), size: 3, root: root_of(&leaves) }.to_string();
        let checkpoint = format!("{text}\n{}", log.sign(&text, Timestamp(1)).unwrap());
        let proof = vec![node_hash(&leaves[0], &leaves[1])];
        let receipt = Receipt { index: 2, proof, checkpoint };
        let known = [log.key().clone()];
        assert!(receipt.verify(b"c", &known).is_ok());
        assert_eq!(receipt.verify(b"b", &known), Err(ReceiptError::NotIncluded));
        let moved = Receipt { index: 1, ..receipt.clone() };
        assert_eq!(moved.verify(b"c", &known), Err(ReceiptError::NotIncluded));
        let text = receipt.to_string();
        assert_eq!(Receipt::parse(&text).as_ref(), Ok(&receipt));
        let extra = text.replace("index", "extra AAAA\nindex");
        assert_eq!(Receipt::parse(&extra).as_ref(), Ok(&receipt));
        let alone = Receipt { index: 0, proof: Vec::new(), ..receipt };
        assert_eq!(Receipt::parse(&alone.to_string()), Ok(alone));
    }

    #[test]
    fn what_is_no_receipt_is_refused() {
        for bad in ["", HEAD, "c2sp.org/tlog-proof@v2\nindex 0\n\nx\n"] {
            assert_eq!(Receipt::parse(bad), Err(NoteError::Malformed), "{bad}");
        }
        for bad in ["index 01\n\nx\n", "index 1\nAAAA\n\nx\n", "index -1\n\nx\n", "index 1\n"] {
            assert!(Receipt::parse(&format!("{HEAD}{bad}")).is_err(), "{bad}");
        }
    }
}
