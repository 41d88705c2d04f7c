//! Secret bytes: wiped on drop, never printed, never copied by accident.
//!
//! Room      `secret`. Every key, plaintext, passphrase and token of this process lives in
//!           [`SecretArray`] or [`SecretVec`].
//! Holds     No secret type has `Clone`, `PartialEq`, `Deref`, `AsRef`, `Serialize` or a
//!           `Debug` that shows content, so no struct around one can derive them either.
//!           Buffers of TLS, HTTP and JSON libraries are not ours and are not wiped.

mod array;
mod compare;
mod vec;

pub use array::SecretArray;
pub use compare::ct_eq;
pub use vec::SecretVec;
