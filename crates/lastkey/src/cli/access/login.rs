//! `login`, `revoke`, `burn`: sessions begin and end.
//!
//! Room      `lastkey`.

use std::path::PathBuf;

use clap::Args;
use lastkey_client::{Error, token_from_env};
use lastkey_node::tokens::says_no_pod;
use lastkey_wire::{
    SecretText,
    native::sessions::{
        BurnRequest, CertificateRequest, LoginRequest, ProviderRequest, RevokeKind, RevokeRequest,
        TokenRequest,
    },
};

use super::{oidc, text};
use crate::cli::{
    args::{DryRunArgs, Format, Span},
    failure::Failure,
    input, output,
    session::Session,
};

/// Arguments of `login`.
#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// File with the token that shows who you are, such as a pod's ServiceAccount token
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present_any = ["user", "oidc", "certificate"],
        conflicts_with_all = ["user", "oidc", "certificate"],
        requires = "role"
    )]
    jwt_file: Option<PathBuf>,
    /// By the certificate of --identity (X.509-SVID). The session is good together with it alone
    #[arg(long, conflicts_with_all = ["user", "oidc"], requires = "role")]
    certificate: bool,
    /// Provider at which you log in, by a browser on this machine
    #[arg(long, value_name = "PROVIDER", conflicts_with = "user", requires = "role")]
    oidc: Option<String>,
    /// With --oidc: by a code that you enter on any other device
    #[arg(long, requires = "oidc")]
    device: bool,
    /// With --oidc: authority of the provider's servers [default: the one that the server names, or
    /// those that this machine knows]
    #[arg(long, value_name = "FILE", requires = "oidc")]
    oidc_ca: Option<PathBuf>,
    /// Your name, if you log in by password and one-time code
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// With --user: file with the password, instead of asking
    #[arg(long, value_name = "FILE", conflicts_with = "jwt_file")]
    password_file: Option<PathBuf>,
    /// With --user: read the one-time code from standard input instead of asking
    #[arg(long, requires = "password_file")]
    otp_stdin: bool,
    /// Role to open a session for; with --user one of the administrator roles, or none
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// How long, such as 15m (the default); at most what the role allows
    #[arg(long, value_name = "TIME")]
    duration: Option<Span>,
    /// File with a policy in Cedar that only takes away
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// Arguments of `revoke`.
#[derive(Args, Debug)]
#[group(id = "what", required = true, multiple = false)]
pub(crate) struct RevokeArgs {
    /// One session, by its id
    #[arg(long, value_name = "ID", group = "what")]
    session: Option<String>,
    /// Those of a pod, by UID
    #[arg(long, value_name = "UID", group = "what")]
    pod: Option<String>,
    /// Those of a ServiceAccount
    #[arg(long, value_name = "CLUSTER/NAMESPACE/NAME", group = "what")]
    service_account: Option<String>,
    /// Those of a node and of the pods on it
    #[arg(long, value_name = "NODE", group = "what")]
    node: Option<String>,
    /// Those of a role
    #[arg(long, value_name = "ROLE", group = "what")]
    role: Option<String>,
    /// Those of a cluster
    #[arg(long, value_name = "CLUSTER", group = "what")]
    cluster: Option<String>,
    /// Those of a person
    #[arg(long, value_name = "USER", group = "what")]
    user: Option<String>,
    /// All that were opened until now
    #[arg(long, group = "what")]
    all: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Opens a session and prints its credentials.
pub(crate) async fn login(args: LoginArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let duration_seconds = args.duration.map(|span| span.seconds);
    let policy = args.policy.as_deref().map(text).transpose()?;
    if args.certificate {
        let role = args.role.unwrap_or_default();
        let request = CertificateRequest { role, duration_seconds, policy };
        return session.show(&client.present_certificate(&request).await?);
    }
    // The parser takes exactly one of the others, and a role with a token.
    let reply = match (args.user, args.oidc) {
        (Some(user), _) => {
            let file = args.password_file.as_deref();
            let password = input::typed(file, "Password: ", "--password-file")?;
            let one_time_code = SecretText(input::one_time_code(args.otp_stdin)?);
            let (password, role) = (SecretText(password), args.role);
            let request =
                LoginRequest { user, password, one_time_code, role, duration_seconds, policy };
            client.log_in(&request).await?
        }
        (None, provider) => {
            let (subject_token, nonce) = match provider {
                Some(provider) => {
                    let place = client.login_provider(&ProviderRequest { provider }).await?;
                    let login = oidc::log_in(place, args.device, args.oidc_ca.as_deref()).await?;
                    (login.id_token, login.nonce)
                }
                None => {
                    let file = args.jwt_file.unwrap_or_default();
                    (SecretText(input::token_file(&file)?), None)
                }
            };
            let request = TokenRequest {
                grant_type: None,
                subject_token,
                subject_token_type: None,
                role: args.role.unwrap_or_default(),
                duration_seconds,
                policy,
                nonce,
            };
            client.exchange_token(&request).await.inspect_err(|error| {
                if session.format() == Format::Table {
                    advise(error, &request.subject_token);
                }
            })?
        }
    };
    session.show(&reply)
}

/// Says what the server does not: it tells nobody why a token is refused.
fn advise(error: &Error, token: &SecretText) {
    let is_refused = error.refusal().is_some_and(|one| one.detail.code == "Unauthenticated");
    if is_refused && says_no_pod(&token.0) {
        output::note(
            "this token is bound to no pod: a role is for such tokens when it was made with \
             --allow-without-pod",
        );
    }
}

/// Ends sessions of others.
pub(crate) async fn revoke(args: RevokeArgs, session: &Session) -> Result<(), Failure> {
    let dry_run = args.dry_run;
    let request = request(args);
    session.settle_and_show(session.client()?.revoke(&request), dry_run).await
}

fn request(args: RevokeArgs) -> RevokeRequest {
    let given = [
        (RevokeKind::Session, args.session),
        (RevokeKind::Pod, args.pod),
        (RevokeKind::ServiceAccount, args.service_account),
        (RevokeKind::Node, args.node),
        (RevokeKind::Role, args.role),
        (RevokeKind::Cluster, args.cluster),
        (RevokeKind::User, args.user),
    ];
    let given = given.into_iter().find_map(|(kind, value)| Some((kind, value?)));
    let (kind, value) = match given {
        Some((kind, value)) => (kind, Some(value)),
        // The parser takes exactly one, so this is --all.
        None => (RevokeKind::Everything, None),
    };
    RevokeRequest { kind, value }
}

/// Lists the revocations in force.
pub(crate) async fn revocations(session: &Session) -> Result<(), Failure> {
    session.show(&session.client()?.revocations().await?)
}

/// Arguments of `burn`.
#[derive(Args, Debug)]
pub(crate) struct BurnArgs {
    /// File with the token to make void [default: the one of LASTKEY_TOKEN]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Makes a credential void that one holds.
pub(crate) async fn burn(args: BurnArgs, session: &Session) -> Result<(), Failure> {
    let token = match &args.file {
        Some(path) => input::token_file(path)?,
        None => token_from_env().ok_or_else(|| {
            Failure::Usage("give a file with the token, or set LASTKEY_TOKEN".to_owned())
        })?,
    };
    let request = BurnRequest { token: Some(SecretText(token)), ..BurnRequest::default() };
    let reply = session.client()?.burn(&request).await?;
    session.show(&reply)
}
