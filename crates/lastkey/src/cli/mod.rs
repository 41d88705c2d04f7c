//! The command line: what can be typed, and who does it.
//!
//! Room      `lastkey`. Commands of the client side live here and talk to a server; those that
//!           run one are in `roles`.

mod access;
mod args;
mod audit;
mod backup;
mod blob;
mod check;
mod completions;
mod data_key;
mod database;
mod envelope;
mod etcd;
mod exec;
mod failure;
mod input;
mod key;
mod kubernetes;
pub(crate) mod open_seal;
mod output;
mod progress;
mod scan;
mod seal;
mod secret;
mod session;
mod signals;
mod signature;
mod system;
mod table;
mod volume;

use std::pin::Pin;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use self::access::node::renew_identity;
pub(crate) use self::args::ConnectionArgs;
use self::{
    args::{DryRunArgs, Format, OutputForm},
    failure::{EXIT_CODES, Failure},
    session::Session,
};
use crate::{hardening, roles};

/// Keys that do not leave the server, and files encrypted with them.
#[derive(Parser, Debug)]
#[command(name = "lastkey", version = crate::VERSION, disable_help_subcommand = true)]
struct Cli {
    /// Print for people (table), or for programs (json); findings also as sarif, junit or html
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = true
    )]
    output: OutputForm,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    #[command(flatten)]
    Client(ClientCommand),
    #[command(flatten)]
    Role(RoleCommand),
}

/// Commands that talk to a server, or need none.
#[derive(Subcommand, Debug)]
enum ClientCommand {
    /// Encrypt a file of any size
    Encrypt(envelope::EncryptArgs),
    /// Decrypt a file
    Decrypt(envelope::DecryptArgs),
    /// Check every byte of an encrypted file, or with --key a signature
    Verify(envelope::VerifyArgs),
    /// Show the header of an encrypted file
    Inspect(envelope::InspectArgs),
    /// Change who can open encrypted files
    Rewrap(envelope::RewrapArgs),
    /// Create, list, rotate, delete and import keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Keep secrets for programs: versions, stages, search
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Databases whose accounts the server manages
    #[command(subcommand)]
    Database(database::DatabaseCommand),
    /// Encrypted volumes of all nodes: list them, rotate their keys, prove that one is gone
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Run a program with secrets in its environment, or in files in memory
    Exec(exec::ExecArgs),
    /// Encrypt or decrypt at most 64 KiB in the server
    #[command(subcommand)]
    Blob(blob::BlobCommand),
    /// Move a ciphertext to another key or context
    Reencrypt(blob::ReencryptArgs),
    /// Make a data key
    DataKey(data_key::DataKeyArgs),
    /// Make a key pair whose private half is protected
    DataKeyPair(data_key::DataKeyPairArgs),
    /// Sign a message
    Sign(signature::SignArgs),
    /// Write the public half of a key
    PublicKey(signature::PublicKeyArgs),
    /// Make a message authentication code
    Mac(signature::MacArgs),
    /// Verify a message authentication code
    VerifyMac(signature::VerifyMacArgs),
    /// Draw random bytes
    Random(data_key::RandomArgs),
    /// Send up to 256 operations of one kind in one request
    Batch(blob::BatchArgs),
    /// Clusters whose ServiceAccount tokens are taken
    #[command(subcommand)]
    Cluster(access::cluster::ClusterCommand),
    /// Machines that agents run on: how they join and renew
    #[command(subcommand)]
    Node(access::node::NodeCommand),
    /// Other providers of identities whose tokens are taken
    #[command(subcommand)]
    Provider(access::provider::ProviderCommand),
    /// Who may open sessions, and what they may do
    #[command(subcommand)]
    Role(access::role::RoleCommand),
    /// What may be done, by whom
    #[command(subcommand)]
    Policy(access::policy::PolicyCommand),
    /// People who log in with a password and a one-time code
    #[command(subcommand)]
    User(access::user::UserCommand),
    /// Open a session for a person, or for the holder of a token
    Login(access::login::LoginArgs),
    /// Show who you are to the server
    Whoami,
    /// Ask whether somebody may do something, and why
    Can(access::ask::CanArgs),
    /// Ask who may do something
    WhoCan(access::ask::WhoCanArgs),
    /// Say what became of a request, and why
    Explain(access::ask::ExplainArgs),
    /// End sessions of others before their time
    Revoke(access::login::RevokeArgs),
    /// List the revocations in force
    Revocations,
    /// Make a credential void that you hold
    Burn(access::login::BurnArgs),
    /// Read the audit log, prove what it says, check all of it
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Show whether the server is up, initialised and unsealed
    Status(system::StatusArgs),
    /// Let the server serve
    Unseal(system::UnsealArgs),
    /// Make the server forget its keys until it is unsealed; or look after its seals
    Seal(Box<seal::SealArgs>),
    /// Make, check, list and remove backups
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Make a data directory of a backup; needs no server
    Restore(Box<backup::RestoreArgs>),
    /// Let time go on after the server's clock jumped
    ConfirmClock(DryRunArgs),
    /// Check manifests, a live cluster, nodes and etcd snapshots: who reads Secrets, and what guards
    /// them
    Check(Box<check::CheckArgs>),
    /// Encrypt what Kubernetes keeps in etcd, and prove that it is
    #[command(subcommand)]
    Etcd(Box<etcd::EtcdCommand>),
    /// Find secrets that lie in files, git history and images; needs no server
    Scan(Box<scan::ScanArgs>),
    /// Write the completions of a shell
    Completions(completions::CompletionsArgs),
}

/// Commands that run a server, or prepare one.
#[derive(Subcommand, Debug)]
enum RoleCommand {
    /// Run a server on this machine to try things out
    Dev(roles::dev::Args),
    /// Prepare a data directory
    Init(roles::init::Args),
    /// Run a server
    Server(roles::server::Args),
    /// Replace the administrator's token
    AdminToken(roles::admin_token::Args),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Let a kube-apiserver encrypt what it keeps in etcd
    KmsPlugin(roles::kms_plugin::Args),
    /// Put secrets into volumes of the pods on this node
    SecretsProvider(roles::secrets_provider::Args),
    /// Serve encrypted volumes to pods, by CSI
    Volumes(roles::volumes::Args),
    /// Measure this machine
    Bench(roles::bench::Args),
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Print the whole configuration, every default included
    Show(roles::config_show::Args),
}

/// Headings of `lastkey --help`; each command stands under one.
const GROUPS: [(&str, &[&str]); 10] = [
    ("Files", &["encrypt", "decrypt", "verify", "inspect", "rewrap"]),
    ("Keys and secrets", &["key", "secret", "database", "exec"]),
    ("Findings", &["check", "scan"]),
    ("Kubernetes", &["etcd", "volume"]),
    (
        "Operations",
        &[
            "blob",
            "reencrypt",
            "data-key",
            "data-key-pair",
            "sign",
            "public-key",
            "mac",
            "verify-mac",
            "random",
            "batch",
        ],
    ),
    (
        "Who may do what",
        &[
            "cluster",
            "node",
            "provider",
            "role",
            "policy",
            "user",
            "login",
            "whoami",
            "can",
            "who-can",
            "explain",
            "revoke",
            "revocations",
            "burn",
        ],
    ),
    ("Who did what", &["audit"]),
    ("A running server", &["status", "unseal", "seal", "backup", "restore", "confirm-clock"]),
    ("A Kubernetes node", &["kms-plugin", "secrets-provider", "volumes"]),
    ("This machine", &["dev", "init", "server", "admin-token", "config", "bench", "completions"]),
];

const EXAMPLES: &str = "\
Examples:
  lastkey dev --data ./lastkey-dev          try it: a server, and what to paste next
  lastkey key create --alias alias/app
  lastkey encrypt --key alias/app report.pdf -o report.pdf.lk
  lastkey decrypt report.pdf.lk -o report.pdf
  tar c folder | lastkey encrypt --key alias/app > folder.lk
  lastkey key rotate alias/app
  lastkey key show alias/app --output json

The token comes from the variable LASTKEY_TOKEN or from --token-file, never from an argument.";

/// Parses what was typed, does it, and says how it ended.
pub(crate) fn run() -> ExitCode {
    let matches = command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Role(command) => {
            hardening::give_back_early();
            run_role(&command, &cli.connection)
        }
        Command::Client(command) => {
            if hardening::apply().is_err() {
                output::note("warning: the kernel refuses to switch core dumps off");
            }
            if let Some(ended) = reported(&command, &cli.connection, cli.output) {
                return ended;
            }
            let Some(format) = cli.output.plain() else {
                let refused = "only `lastkey check`, `lastkey scan` and `lastkey etcd verify` print sarif, junit and html";
                return ended(Format::Table, Err(Failure::Usage(refused.to_owned())));
            };
            let session = Session::new(cli.connection, format);
            ended(format, start(run_client(command, &session)))
        }
    }
}

/// Runs a command that reports findings; none for any other one.
fn reported(
    command: &ClientCommand,
    connection: &ConnectionArgs,
    form: OutputForm,
) -> Option<ExitCode> {
    let outcome = if let ClientCommand::Check(args) = command {
        start(check::run(args, form))
    } else if let ClientCommand::Scan(args) = command {
        start(scan::run(args, connection, form))
    } else if let ClientCommand::Etcd(command) = command {
        start(etcd::run(command, connection, form))
    } else {
        return None;
    };
    Some(ended(form.plain().unwrap_or_default(), outcome))
}

/// Runs a command of the client side to its end.
fn start(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::io("start", cause))?;
    // Behind a pointer the code of all commands is there once; the runtime would have it thrice.
    let command: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(command);
    let outcome = runtime.block_on(command);
    // A thread may still wait for input that never comes; it ends with the process.
    runtime.shutdown_background();
    outcome
}

fn ended(format: Format, outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(format);
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run_client(command: ClientCommand, session: &Session) -> Result<(), Failure> {
    match command {
        ClientCommand::Encrypt(args) => envelope::encrypt(args, session).await,
        ClientCommand::Decrypt(args) => envelope::decrypt(args, session).await,
        ClientCommand::Verify(args) => envelope::verify(args, session).await,
        ClientCommand::Inspect(args) => envelope::inspect(&args, session),
        ClientCommand::Rewrap(args) => envelope::rewrap(args, session).await,
        ClientCommand::Key(command) => key::run(command, session).await,
        ClientCommand::Secret(command) => secret::run(command, session).await,
        ClientCommand::Database(command) => database::run(command, session).await,
        ClientCommand::Volume(command) => volume::run(command, session).await,
        ClientCommand::Exec(args) => exec::exec(args, session).await,
        ClientCommand::Blob(command) => blob::blob(command, session).await,
        ClientCommand::Reencrypt(args) => blob::reencrypt(args, session).await,
        ClientCommand::DataKey(args) => data_key::data_key(args, session).await,
        ClientCommand::DataKeyPair(args) => data_key::data_key_pair(args, session).await,
        ClientCommand::Sign(args) => signature::sign(args, session).await,
        ClientCommand::PublicKey(args) => signature::public_key(args, session).await,
        ClientCommand::Mac(args) => signature::mac(args, session).await,
        ClientCommand::VerifyMac(args) => signature::verify_mac(args, session).await,
        ClientCommand::Random(args) => data_key::random(args, session).await,
        ClientCommand::Batch(args) => blob::batch(args, session).await,
        ClientCommand::Cluster(command) => access::cluster::run(command, session).await,
        ClientCommand::Node(command) => access::node::run(command, session).await,
        ClientCommand::Provider(command) => access::provider::run(command, session).await,
        ClientCommand::Role(command) => access::role::run(command, session).await,
        ClientCommand::Policy(command) => access::policy::run(command, session).await,
        ClientCommand::User(command) => access::user::run(command, session).await,
        ClientCommand::Login(args) => access::login::login(args, session).await,
        ClientCommand::Whoami => access::ask::whoami(session).await,
        ClientCommand::Can(args) => access::ask::can(args, session).await,
        ClientCommand::WhoCan(args) => access::ask::who_can(args, session).await,
        ClientCommand::Explain(args) => access::ask::explain(args, session).await,
        ClientCommand::Revoke(args) => access::login::revoke(args, session).await,
        ClientCommand::Revocations => access::login::revocations(session).await,
        ClientCommand::Burn(args) => access::login::burn(args, session).await,
        ClientCommand::Audit(command) => audit::run(command, session).await,
        ClientCommand::Status(args) => system::status(args, session).await,
        ClientCommand::Unseal(args) => system::unseal(args, session).await,
        ClientCommand::Seal(args) => seal::run(*args, session).await,
        ClientCommand::Backup(command) => backup::run(command, session).await,
        ClientCommand::Restore(args) => backup::restore(*args, session).await,
        ClientCommand::ConfirmClock(args) => system::confirm_clock(args, session).await,
        ClientCommand::Completions(args) => completions::completions(&args),
        // `reported` took these.
        ClientCommand::Check(_) | ClientCommand::Scan(_) | ClientCommand::Etcd(_) => Ok(()),
    }
}

fn run_role(command: &RoleCommand, connection: &ConnectionArgs) -> ExitCode {
    let outcome = match command {
        RoleCommand::Init(args) => roles::init::run(args),
        RoleCommand::Server(args) => roles::server::run(args),
        RoleCommand::AdminToken(args) => roles::admin_token::run(args),
        RoleCommand::Dev(args) => roles::dev::run(args),
        RoleCommand::Config(ConfigCommand::Show(args)) => roles::config_show::run(args),
        RoleCommand::KmsPlugin(args) => roles::kms_plugin::run(args, connection),
        RoleCommand::SecretsProvider(args) => roles::secrets_provider::run(args, connection),
        RoleCommand::Volumes(args) => roles::volumes::run(args, connection),
        RoleCommand::Bench(args) => roles::bench::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The command line with its grouped help.
fn command() -> clap::Command {
    let command = Cli::command();
    let mut template = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (heading, names) in GROUPS {
        template.push_str(&format!("\n{heading}:\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            template.push_str(&format!("  {name:14} {about}\n"));
        }
    }
    template.push_str("\nOptions:\n{options}{after-help}");
    command.help_template(template).after_help(format!("{EXAMPLES}\n\n{EXIT_CODES}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::FromArgMatches;

    use super::{Cli, EXAMPLES, EXIT_CODES, GROUPS, command};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let matches = command().try_get_matches_from(line.split_whitespace())?;
        Cli::from_arg_matches(&matches)
    }

    /// Every command with the names of its parents.
    fn all_commands(parent: &clap::Command, path: &str, into: &mut Vec<String>) {
        for child in parent.get_subcommands() {
            let path = format!("{path} {}", child.get_name());
            all_commands(child, &path, into);
            into.push(path);
        }
    }

    #[test]
    fn command_line_has_no_contradictions() {
        command().debug_assert();
    }

    #[test]
    fn help_shows_each_command_under_one_heading() {
        let shown: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let command = command();
        let there: BTreeSet<&str> =
            command.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(shown.len(), there.len());
        assert_eq!(shown.into_iter().collect::<BTreeSet<_>>(), there);
    }

    #[test]
    fn help_explains_exit_codes_and_connection() {
        let help = command().render_help().to_string();
        for part in ["Files:\n", EXIT_CODES, EXAMPLES, "--addr", "--output", "--token-file"] {
            assert!(help.contains(part), "{part}\n{help}");
        }
    }

    #[test]
    fn forms_of_the_manual_parse() {
        for line in [
            "lastkey key create --alias alias/app",
            "lastkey key create --alias alias/app --spec AES_256",
            "lastkey key rotate alias/app",
            "lastkey key show alias/app --output json",
            "lastkey encrypt --key alias/app FILE -o FILE.lk",
            "lastkey encrypt --key alias/app - -o OUT",
            "lastkey encrypt --key alias/app --context k=v DIR -o OUT",
            "lastkey decrypt IN -o OUT --range 5-9",
            "lastkey decrypt IN -o OUT --range -9",
            "lastkey inspect IN --output json",
            "lastkey rewrap IN",
            "lastkey rewrap IN --add-key alias/app",
            "lastkey rewrap IN --remove-key alias/app",
            "lastkey verify IN",
            "lastkey decrypt FILE.lk -o OUT",
            "lastkey encrypt --key alias/app",
            "lastkey key rotation set alias/app 90d",
            "lastkey key import alias/app --material-file m",
            "lastkey key import alias/app --wrapped-file w --import-token-file t",
            "lastkey key delete alias/a alias/b --window-days 7 --yes",
            "lastkey verify FILE.lk",
            "lastkey verify --key alias/s --signature AAAA FILE",
            "lastkey random --bytes 16 --format hex",
            "lastkey --output json status",
            "lastkey audit verify",
            "lastkey audit verify --offline DIR --public-key F",
            "lastkey audit tail --output json",
            "lastkey audit tail --follow",
            "lastkey audit search --key K --since 2h --action kms:*",
            "lastkey audit export --format ocsf --cursor C --follow",
            "lastkey audit receipt 7 -o r",
            "lastkey check --manifests . --output sarif --fail-on high",
            "lastkey check --manifests a --manifests b --node-root / --etcd-snapshot F",
            "lastkey check --kubeconfig F --context C",
            "lastkey check policy -o DIR",
            "lastkey scan .",
            "lastkey scan --git REPO --rules F --pack F --output sarif --baseline F",
            "lastkey scan --stdin --output json --fail-on high",
            "lastkey scan . --pack F --confirm",
            "lastkey login --jwt-file F --role R --output json",
            "lastkey login --user alice --role security-administrator",
            "lastkey user enrol --name alice --code-stdin",
            "lastkey user enrol-code",
            "lastkey volumes --csi-endpoint unix:///run/csi.sock --node-id n --driver-name d --backend loop:/d",
            "lastkey volumes --csi-endpoint unix:///run/csi.sock --node-id n --backend lvm:vg/pool",
            "lastkey volumes --csi-endpoint unix:///run/csi.sock --node-id n --backend raw:/etc/devices",
            "lastkey key impact KEY --output json",
            "lastkey volume list --key alias/a --output json",
            "lastkey volume rotate alias/a --new-version --data-keys --timeout 1h",
            "lastkey volume rotate --all --no-wait",
            "lastkey volume escrow lkv-1 -o header.json",
            "lastkey volume restore-header lkv-1 --device /dev/sdb --unseen",
            "lastkey volume erase-proof lkv-1 --output json",
            "lastkey reencrypt --to-key alias/b --context a=b --to-context c=d FILE",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn forms_of_seals_parse() {
        for line in [
            "lastkey seal",
            "lastkey seal --dry-run",
            "lastkey seal list --output json",
            "lastkey seal add shamir --shares 3 --threshold 2 --out DIR",
            "lastkey seal add shamir --shares 2 --threshold 2 --out DIR --recipient a --recipient b",
            "lastkey seal add passphrase --passphrase-file F --argon2-memory 128",
            "lastkey seal change-passphrase ID --passphrase-file F",
            "lastkey seal remove ID",
            "lastkey seal rotate --keyring",
            "lastkey seal drill --output json",
            "lastkey seal drill --passphrase-file F",
            "lastkey seal check",
            "lastkey seal check --force",
            "lastkey seal check-share F --list shares.json",
            "lastkey unseal --share F --share G",
            "lastkey backup create --to DIR",
            "lastkey backup verify DIR",
            "lastkey backup verify DIR --passphrase-file F --public-key K",
            "lastkey backup list --output json",
            "lastkey restore --from DIR --data NEWDIR",
            "lastkey restore --from DIR --data NEWDIR --share F --share G --accept-rollback",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn contradictory_forms_are_usage_errors() {
        for line in [
            "lastkey",
            "lastkey encrypt FILE",
            "lastkey key create --spec AES_512",
            "lastkey key delete",
            "lastkey key import alias/a",
            "lastkey key import alias/a --material-file m --wrapped-file w --import-token-file t",
            "lastkey verify FILE --signature AAAA",
            "lastkey data-key --key k --spec AES_256 --bytes 16",
            "lastkey login --role R",
            "lastkey login --jwt-file F",
            "lastkey login --jwt-file F --role R --user alice",
            "lastkey login --user alice --otp-stdin",
            "lastkey user enrol --name alice",
            "lastkey status --token secret",
            "lastkey seal add",
            "lastkey seal add shamir --shares 3 --out DIR",
            "lastkey seal add shamir --shares 3 --threshold 1 --out DIR",
            "lastkey unseal --share F --passphrase-file G",
            "lastkey scan",
            "lastkey scan . --stdin",
            "lastkey scan --staged",
            "lastkey scan . --confirm",
            "lastkey scan . --fail-on dreadful",
            "lastkey key create --token secret",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn manual_mentions_each_command_and_each_exit_code() {
        let manual = include_str!("../../../../docs/cli.md");
        let mut commands = Vec::new();
        all_commands(&command(), "lastkey", &mut commands);
        for command in commands {
            let is_there =
                ["`", " "].iter().any(|end| manual.contains(&format!("`{command}{end}")));
            assert!(is_there, "docs/cli.md lacks `{command}`");
        }
        assert!(manual.contains(EXIT_CODES), "docs/cli.md has other exit codes");
    }
}
