//! The scanner: secrets that lie in code, configuration and images.
//!
//! Room      `checks`.
