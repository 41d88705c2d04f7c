//! What the server asks of others: every connection that it makes itself begins here.
//!
//! Room      `connect`.
//! Holds     [`guard`] is the only way out. Who is reached, for how long and how much is read is
//!           said before the connection is made.

pub mod guard;
