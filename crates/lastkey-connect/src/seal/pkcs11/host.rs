//! The host: a process of its own that loads the module of a vendor and answers one question.
//!
//! Room      `connect`. The main function of `lastkey-pkcs11`.
//! Holds     the module's code never runs in the server: it cannot read its memory, end it, or
//!           keep it waiting. What a module prints goes to standard error.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use lastkey_secret::SecretVec;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::message::{Fault, MAX_LEN, Question, USUAL_LEN, encode_answer};
use super::token::answer;

/// Answers the question on standard input.
///
/// # Errors
/// When the pipes break.
pub fn run() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut out = File::from(rustix::io::dup(rustix::stdio::stdout())?);
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    // With room for a whole question: a buffer that grows leaves copies behind.
    let mut asked = Vec::with_capacity(USUAL_LEN);
    io::stdin().take(MAX_LEN).read_to_end(&mut asked)?;
    let question = SecretVec::take(asked).expose(Question::decode);
    let answer = question
        .map_err(|error| (Fault::Failed, error.to_string()))
        .and_then(|question| answer(&question));
    encode_answer(&answer).expose(|bytes| out.write_all(bytes))
}
