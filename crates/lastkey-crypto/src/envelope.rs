//! The file envelope: data of any length under one data key, in segments that are
//! authenticated one by one.
//!
//! Room      `crypto`. Bytes in, bytes out: reading and writing is in [`crate::stream`].
//! Source    `docs/formats/envelope.md`; the STREAM construction (Hoang, Reyhanitabar,
//!           Rogaway, Vizár, 2015); RFC 5869; each suite and kind of recipient names its own.
//! Holds     The data key is committed to the header and the context. Reordered, repeated,
//!           dropped and truncated segments are refused. Recipients change without touching a
//!           segment, and a crash while they change leaves one whole slot.

mod age;
mod age_file;
mod header;
mod layout;
mod passphrase;
mod recipient;
mod segment;
mod slot;
mod ssh;
mod suite;

pub use age::{AgeIdentity, AgeKeyError, AgeRecipient};
pub use age_file::{FileRecipient, encrypt_for};
pub use header::{EnvelopeOptions, Header, PREFIX_LEN, PayloadKeys, SlotUpdate, build};
pub use layout::{Layout, Span};
pub use passphrase::{MAX_PASSPHRASE_MEMORY_KIB, MAX_PASSPHRASE_WORK_KIB};
pub use recipient::{KIND_AGE, KIND_LASTKEY, KIND_PASSPHRASE, Recipient, RecipientName};
pub use segment::{Opener, RandomAccess, SEGMENT_OVERHEAD_LEN, Sealer};
pub(crate) use segment::{SegmentCipher, sealed_len_of};
pub use ssh::SshRecipient;
pub use suite::Suite;

/// The shortest segment as a power of two: 4 KiB.
pub const MIN_SEGMENT_LOG2: u8 = 12;
/// The longest segment as a power of two: 16 MiB.
pub const MAX_SEGMENT_LOG2: u8 = 24;
/// The shortest slot, in bytes; every slot is a multiple of it.
pub const SLOT_UNIT_LEN: u32 = 512;
/// The longest slot, in bytes.
pub const MAX_SLOT_LEN: u32 = 1_048_576;
/// The most segments of one envelope.
pub const MAX_SEGMENTS: u64 = 1 << 32;
/// The most recipients of one envelope.
pub const MAX_RECIPIENTS: u16 = 1_024;
/// The most passphrases of one envelope that are tried: each guess costs its Argon2id.
pub const MAX_PASSPHRASES: usize = 4;

/// Why an envelope was not made or not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not an envelope, or a damaged one.
    #[error("this is not a Lastkey envelope, or it is damaged")]
    Malformed,
    /// An envelope of a later format.
    #[error("this envelope was made by a newer version")]
    UnsupportedVersion,
    /// A suite that this build lacks: SM4 without the cargo feature `sm`.
    #[error("this build lacks the suite of the envelope (SM4 needs the feature sm)")]
    UnsupportedSuite,
    /// More than [`MAX_RECIPIENTS`].
    #[error("an envelope has at most 1,024 recipients")]
    TooManyRecipients,
    /// A passphrase asks for more memory or time than the format allows.
    #[error("a passphrase of the envelope asks for more memory or time than is allowed")]
    PassphraseCost,
    /// None of the recipients is of the kind that was given, or knows it.
    #[error("the envelope has no recipient for what was given")]
    NoRecipient,
    /// Both recipient slots are damaged.
    #[error("both recipient slots of the envelope are damaged")]
    NoSlot,
    /// Options outside their limits, or no recipient.
    #[error("envelope options are out of range")]
    Options,
    /// The recipients do not fit into a slot.
    #[error("the recipients do not fit into the slot of the envelope")]
    RecipientsTooLong,
    /// Wrong data key, or altered bytes: deliberately one value.
    #[error("the envelope cannot be decrypted")]
    Undecryptable,
    /// The envelope ends too early.
    #[error("the envelope is truncated")]
    Truncated,
    /// More than [`MAX_SEGMENTS`].
    #[error("the data is too long for this segment size")]
    TooManySegments,
    /// A segment of the wrong length, or no such segment: a mistake of the caller.
    #[error("no segment of this length is possible here")]
    WrongSegment,
    /// No randomness for the salt.
    #[error("no randomness available")]
    Entropy,
    /// The primitive refused, which it has no reason to.
    #[error("the cryptographic operation failed")]
    Failed,
}
