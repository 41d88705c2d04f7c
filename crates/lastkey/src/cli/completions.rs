//! `completions`: what a shell needs to complete this command line.
//!
//! Room      `lastkey`.

use clap::Args;
use clap_complete::Shell;

use super::{
    args::OutArgs,
    failure::Failure,
    output::{self, Content},
};

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the completions of a shell to standard output.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "lastkey", &mut script);
    output::write_whole(&OutArgs::default(), &script, Content::Unknown)
}
