//! `etcd`: Secrets encrypted at rest, from the first configuration to the proof.
//!
//! Room      `lastkey`. Speaks with etcd, with a KMS plugin, and with the API server; what is
//!           counted and judged is `lastkey-checks`.

mod by_server;
mod connect;
mod doctor;
mod enable;
mod live;
mod migration;
mod plugin;
mod report;
mod resource;
mod rewrite;
mod source;
mod verify;

use clap::Subcommand;

use super::{
    args::{ConnectionArgs, OutputForm},
    failure::Failure,
};

/// What `lastkey etcd` can do.
#[derive(Subcommand, Debug)]
pub(crate) enum EtcdCommand {
    /// Look whether this control-plane node can start by itself, before it has to
    Doctor(doctor::DoctorArgs),
    /// Write the API server's encryption configuration, and say what to do with it
    Enable(enable::EnableArgs),
    /// Have everything written once more that is not sealed under the current key
    Rewrite(rewrite::RewriteArgs),
    /// Count what is in the clear and under which key, and prove that it can be decrypted
    Verify(verify::VerifyArgs),
}

/// Does it.
pub(crate) async fn run(
    command: &EtcdCommand,
    connection: &ConnectionArgs,
    form: OutputForm,
) -> Result<(), Failure> {
    match command {
        EtcdCommand::Doctor(args) => doctor::doctor(args, form),
        EtcdCommand::Enable(args) => enable::enable(args, form),
        EtcdCommand::Rewrite(args) => rewrite::rewrite(args, form).await,
        EtcdCommand::Verify(args) => verify::verify(args, connection, form).await,
    }
}
