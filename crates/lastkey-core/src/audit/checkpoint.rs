//! Checkpoints: what the log was, at one size.
//!
//! Room      `core`.
//! Source    C2SP tlog-checkpoint.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::merkle::Hash;
use super::note::{NoteError, NoteKey, Vouched, open};

/// The log at one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log.
    pub origin: String,
    /// Records in it.
    pub size: u64,
    /// Root of their tree.
    pub root: Hash,
}

impl Checkpoint {
    /// Reads the text of a note. Lines after the third are let through, as the standard wants.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.strip_suffix('\n').ok_or(NoteError::Malformed)?.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty()).ok_or(NoteError::Malformed);
        let (origin, size, root) = (line()?, line()?, line()?);
        if lines.any(str::is_empty) {
            return Err(NoteError::Malformed);
        }
        let number: u64 = size.parse().map_err(|_| NoteError::Malformed)?;
        let root = hash_from_base64(root).filter(|_| number.to_string() == size);
        let root = root.ok_or(NoteError::Malformed)?;
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }

    /// Opens a signed checkpoint: one that a key of `known` has signed under the log's own name,
    /// and whoever else of them has.
    ///
    /// # Errors
    /// [`NoteError`]; [`NoteError::Unsigned`] also when only others than the log have signed.
    pub fn open(note: &str, known: &[NoteKey]) -> Result<(Self, Vec<Vouched>), NoteError> {
        let (text, vouched) = open(note, known)?;
        let checkpoint = Self::parse(text)?;
        let by_log = |v: &Vouched| v.name == checkpoint.origin && v.at.is_none();
        if vouched.iter().any(by_log) {
            Ok((checkpoint, vouched))
        } else {
            Err(NoteError::Unsigned)
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }
}

/// A hash in standard base64; `None` for anything else.
#[must_use]
pub fn hash_from_base64(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// A hash in standard base64.
#[must_use]
pub fn hash_to_base64(hash: &Hash) -> String {
    STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretArray;

    use super::*;
    use crate::audit::note::{KeyKind, NoteSigner};
    use crate::time::Timestamp;

    #[test]
    fn the_example_of_the_standard_reads_back() {
        let text = "example.com/behind-the-sofa\n20852163\n\
            CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let checkpoint = Checkpoint::parse(text).unwrap();
        assert_eq!((checkpoint.size, checkpoint.to_string().as_str()), (20_852_163, text));
        assert!(Checkpoint::parse(&format!("{text}extension\n")).is_ok());
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        for bad in [
            String::new(),
            format!("log\n1\n{root}"),
            format!("\n1\n{root}\n"),
            format!("log\n01\n{root}\n"),
            format!("log\n-1\n{root}\n"),
            format!("log\n+1\n{root}\n"),
            format!("log\n18446744073709551616\n{root}\n"),
            "log\n1\nAAAA\n".to_owned(),
            format!("log\n1\n{root}\n\nmore\n"),
        ] {
            assert_eq!(Checkpoint::parse(&bad), Err(NoteError::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_checkpoint_needs_the_signature_of_its_own_log() {
        let seed = SecretArray::copy_of(&[1; 32]);
        let by = |name: &str, kind| NoteSigner::from_seed(name, kind, &seed).unwrap();
        let (log, other) = (by("log", KeyKind::Ed25519), by("other", KeyKind::Ed25519));
        let witness = by("log", KeyKind::Cosignature);
        let text = Checkpoint { origin: "log".into(), size: 1, root: [7; 32] }.to_string();
        let known = [&log, &other, &witness].map(|signer| signer.key().clone());
        let note =
            |signer: &NoteSigner| format!("{text}\n{}", signer.sign(&text, Timestamp(1)).unwrap());
        assert!(Checkpoint::open(&note(&log), &known).is_ok());
        assert_eq!(Checkpoint::open(&note(&other), &known), Err(NoteError::Unsigned));
        assert_eq!(Checkpoint::open(&note(&witness), &known), Err(NoteError::Unsigned));
    }
}
