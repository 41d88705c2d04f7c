//! The file envelope: data of any length under one data key, in segments that are
//! authenticated one by one.
//!
//! Room      `crypto`. Bytes in, bytes out: reading and writing is in [`crate::stream`].
//! Source    `docs/formats/envelope.md`; the STREAM construction (Hoang, Reyhanitabar,
//!           Rogaway, Vizár, 2015); RFC 5869, NIST SP 800-38D.
//! Holds     The data key is committed to the header and the context. Reordered, repeated,
//!           dropped and truncated segments are refused. Recipients change without touching a
//!           segment, and a crash while they change leaves one whole slot.

mod header;
mod segment;
mod slot;

pub use header::{EnvelopeOptions, Header, PREFIX_LEN, PayloadKeys, SlotUpdate, build};
pub use segment::{Opener, RandomAccess, SEGMENT_OVERHEAD_LEN, Sealer, Span};
pub use slot::{KIND_LASTKEY, Recipient};

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

/// Why an envelope was not made or not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not an envelope, or a damaged one.
    #[error("this is not a Lastkey envelope, or it is damaged")]
    Malformed,
    /// An envelope of a later format.
    #[error("this envelope was made by a newer version")]
    UnsupportedVersion,
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
