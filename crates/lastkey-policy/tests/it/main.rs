//! The public face of the policy room.
#![cfg(test)]

mod attacks;
mod documents;
mod questions;
mod support;
