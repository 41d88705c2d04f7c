//! Dialects: what the door speaks. One folder each.
//!
//! Room      `http`.

pub(crate) mod native;
