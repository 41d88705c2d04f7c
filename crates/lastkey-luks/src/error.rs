//! Why a header was not read, or not changed.
//!
//! Room      `luks`.

use std::io;

/// Sorted by what the caller can do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The medium refused. Never to be read as "there is nothing".
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is a LUKS2 header, and neither copy of it is whole. A backup of the header helps.
    #[error("both copies of the LUKS2 header are damaged: {0}")]
    Damaged(&'static str),
    /// Whole, but made in a way that this room does not read.
    #[error("the LUKS2 header asks for what is not supported here: {0}")]
    Unsupported(&'static str),
    /// No key slot opens with this secret, or it gives another key than the volume's.
    #[error("no key slot opens with this key")]
    WrongKey,
    /// No number or no room left for one more key slot or token.
    #[error("the header has no room left: {0}")]
    Full(&'static str),
    /// The medium is too small, or its length is no multiple of the sector size.
    #[error("the device is too short for a LUKS2 volume")]
    TooShort,
    /// A primitive refused: no randomness, no memory.
    #[error("a cryptographic primitive failed")]
    Primitive,
}

/// Attaches what was being done.
pub(crate) fn io_while(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { doing, source }
}
