//! The public face of the room.
//!
//! Room      `trust`, tests. One binary.

#![cfg(test)]
