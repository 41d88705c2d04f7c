//! The service through its public face, over the fakes of `testkit`.

#![cfg(test)]

mod audit;
mod deletion;
mod import;
mod lifecycle;
mod nodes;
mod operations;
mod people;
mod rotation;
mod sealing;
mod secrets;
mod world;
