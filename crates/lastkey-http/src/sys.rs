//! What can be asked without a token: health, readiness, status, unseal, documents, metrics.
//!
//! Room      `http`.
//! Holds     [`PUBLIC`] is the closed list of paths outside the authentication layer; a test
//!           compares it with a golden list. None of them reaches a key.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::Body;
use lastkey_core::audit::archive::LogState;
use lastkey_core::audit::witness::{AddCheckpoint, Refusal};
use lastkey_core::ids::RequestId;
use lastkey_core::principal::Peer;
use lastkey_secret::SecretVec;
use lastkey_service::error::Error;
use lastkey_wire::native::nodes::{
    ChallengeReply, ChallengeRequest, JoinRequest, NodeCertificateReply, RenewRequest,
};
use lastkey_wire::native::sessions::{
    BurnReply, BurnRequest, CertificateRequest, EnrolReply, EnrolRequest, LoginRequest,
    ProviderReply, ProviderRequest, TokenReply, TokenRequest,
};
use lastkey_wire::native::system::{
    ClockHold, ContinuityReply, ContinuityRequest, HealthReply, ReadyReply, SealView, StatusReply,
    UnsealReply, UnsealRequest,
};
use schemars::SchemaGenerator;
use serde::de::DeserializeOwned;

use crate::answer::{Answer, Content};
use crate::auth_layer::admit;
use crate::dialect::native::routes::SchemaOf;
use crate::dialect::native::{
    check_content_type, json, nodes, openapi, opened_at, rfc3339, sessions, standing, system,
    to_json, users,
};
use crate::door::Door;
use crate::limits::read_body;
use crate::metrics::MetricsAccess;
use crate::problem::{Problem, Syntax};
use crate::router::Routed;

/// A route outside the authentication layer.
pub(crate) struct PublicRoute {
    /// Its method.
    pub(crate) method: Method,
    /// Its path.
    pub(crate) path: &'static str,
    /// Its name in metrics.
    pub(crate) operation: &'static str,
    /// One sentence for the documents.
    pub(crate) summary: &'static str,
    /// What it reads.
    pub(crate) request: Option<SchemaOf>,
    /// What it answers, if that is JSON of ours.
    pub(crate) reply: Option<SchemaOf>,
    /// Whether it is answered even when too many requests are in flight.
    pub(crate) always: bool,
    page: Page,
}

#[derive(Clone, Copy, Debug)]
enum Page {
    Health,
    Ready,
    Status,
    Unseal,
    Continuity,
    OpenApi,
    Metrics,
    Token,
    Certificate,
    Provider,
    Login,
    Enrol,
    Burn,
    AddCheckpoint,
    Challenge,
    Join,
    Renew,
}

impl Routed for PublicRoute {
    fn method(&self) -> &Method {
        &self.method
    }

    fn path(&self) -> &'static str {
        self.path
    }
}

/// All routes that need no token.
pub(crate) static PUBLIC: &[PublicRoute] = &[
    PublicRoute {
        method: Method::GET,
        path: "/healthz",
        operation: "sys:Health",
        summary: "Answers while the process lives.",
        request: None,
        reply: Some(SchemaGenerator::subschema_for::<HealthReply>),
        always: true,
        page: Page::Health,
    },
    PublicRoute {
        method: Method::GET,
        path: "/readyz",
        operation: "sys:Ready",
        summary: "Answers 200 while the server is unsealed and can serve, else 503.",
        request: None,
        reply: Some(SchemaGenerator::subschema_for::<ReadyReply>),
        always: true,
        page: Page::Ready,
    },
    PublicRoute {
        method: Method::GET,
        path: "/v1/sys/status",
        operation: "sys:Status",
        summary: "Tells whether the server is initialised and sealed.",
        request: None,
        reply: Some(SchemaGenerator::subschema_for::<StatusReply>),
        always: false,
        page: Page::Status,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/sys/unseal",
        operation: "sys:Unseal",
        summary: "Unseals the server. Attempts are limited and recorded.",
        request: Some(SchemaGenerator::subschema_for::<UnsealRequest>),
        reply: Some(SchemaGenerator::subschema_for::<UnsealReply>),
        always: false,
        page: Page::Unseal,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/sys/continuity",
        operation: "sys:CompareState",
        summary: "Tells whether the state of the installation continues one that is remembered, and what to remember.",
        request: Some(SchemaGenerator::subschema_for::<ContinuityRequest>),
        reply: Some(SchemaGenerator::subschema_for::<ContinuityReply>),
        always: false,
        page: Page::Continuity,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/sts/token",
        operation: "sts:OpenSession",
        summary: "Opens a session for the holder of a ServiceAccount token or another JWT.",
        request: Some(SchemaGenerator::subschema_for::<TokenRequest>),
        reply: Some(SchemaGenerator::subschema_for::<TokenReply>),
        always: false,
        page: Page::Token,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/sts/certificate",
        operation: "sts:PresentCertificate",
        summary: "Opens a session for the workload whose certificate is on the connection.",
        request: Some(SchemaGenerator::subschema_for::<CertificateRequest>),
        reply: Some(SchemaGenerator::subschema_for::<TokenReply>),
        always: false,
        page: Page::Certificate,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/sts/provider",
        operation: "sts:ReadProvider",
        summary: "Tells where people of a provider log in.",
        request: Some(SchemaGenerator::subschema_for::<ProviderRequest>),
        reply: Some(SchemaGenerator::subschema_for::<ProviderReply>),
        always: false,
        page: Page::Provider,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/sts/login",
        operation: "sts:Login",
        summary: "Opens a session for a person by password and one-time code. Attempts are limited and recorded.",
        request: Some(SchemaGenerator::subschema_for::<LoginRequest>),
        reply: Some(SchemaGenerator::subschema_for::<TokenReply>),
        always: false,
        page: Page::Login,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/sts/enrol",
        operation: "sts:Enrol",
        summary: "Sets a person's password and second factor by the code that he was given. Attempts are limited and recorded.",
        request: Some(SchemaGenerator::subschema_for::<EnrolRequest>),
        reply: Some(SchemaGenerator::subschema_for::<EnrolReply>),
        always: false,
        page: Page::Enrol,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/sts/burn",
        operation: "sts:Burn",
        summary: "Ends the session of whoever shows its credential.",
        request: Some(SchemaGenerator::subschema_for::<BurnRequest>),
        reply: Some(SchemaGenerator::subschema_for::<BurnReply>),
        always: false,
        page: Page::Burn,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/nodes/challenge",
        operation: "sys:ChallengeNode",
        summary: "Answers what the TPM of a node has to sign for it to join.",
        request: Some(SchemaGenerator::subschema_for::<ChallengeRequest>),
        reply: Some(SchemaGenerator::subschema_for::<ChallengeReply>),
        always: false,
        page: Page::Challenge,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/nodes/join",
        operation: "sys:JoinNode",
        summary: "Exchanges the one-time token of a node, what its TPM says, or the certificate of its kubelet, for its certificate.",
        request: Some(SchemaGenerator::subschema_for::<JoinRequest>),
        reply: Some(SchemaGenerator::subschema_for::<NodeCertificateReply>),
        always: false,
        page: Page::Join,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/nodes/renew",
        operation: "sys:RenewNode",
        summary: "Signs the next certificate of the node whose certificate is on the connection.",
        request: Some(SchemaGenerator::subschema_for::<RenewRequest>),
        reply: Some(SchemaGenerator::subschema_for::<NodeCertificateReply>),
        always: false,
        page: Page::Renew,
    },
    PublicRoute {
        method: Method::GET,
        path: "/v1/openapi.json",
        operation: "sys:OpenApi",
        summary: "This document.",
        request: None,
        reply: None,
        always: false,
        page: Page::OpenApi,
    },
    PublicRoute {
        method: Method::GET,
        path: "/metrics",
        operation: "sys:Metrics",
        summary: "Counters in OpenMetrics text; the configuration may ask for a token.",
        request: None,
        reply: None,
        always: true,
        page: Page::Metrics,
    },
    PublicRoute {
        method: Method::POST,
        path: "/v1/audit/witness/add-checkpoint",
        operation: "audit:AddCheckpoint",
        summary: "Cosigns the checkpoint of a log that is witnessed here (C2SP tlog-witness).",
        request: None,
        reply: None,
        always: false,
        page: Page::AddCheckpoint,
    },
];

/// Answers a public route.
///
/// # Errors
/// [`Problem`].
pub(crate) async fn answer<B>(
    door: &Door,
    route: &PublicRoute,
    request: Request<B>,
    peer: &Peer,
    id: RequestId,
) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    match route.page {
        Page::Token => {
            let engine = door.gate().engine()?;
            sessions::token(&engine, json_body(request).await?, peer, id).await
        }
        Page::Certificate => {
            let engine = door.gate().engine()?;
            sessions::certificate(&engine, json_body(request).await?, peer, id).await
        }
        Page::Provider => {
            let engine = door.gate().engine()?;
            sessions::provider(&engine, json_body(request).await?, peer, id).await
        }
        Page::Burn => {
            let engine = door.gate().engine()?;
            sessions::burn(&engine, json_body(request).await?, peer, id).await
        }
        Page::Login => {
            let engine = door.gate().engine()?;
            users::log_in(&engine, json_body(request).await?, peer, id).await
        }
        Page::Enrol => {
            let engine = door.gate().engine()?;
            users::enrol(&engine, json_body(request).await?, peer, id).await
        }
        Page::Challenge => {
            let engine = door.gate().engine()?;
            nodes::challenge(&engine, &json_body(request).await?)
        }
        Page::Join => {
            let engine = door.gate().engine()?;
            nodes::join(&engine, json_body(request).await?, peer, id).await
        }
        Page::Renew => {
            let engine = door.gate().engine()?;
            nodes::renew(&engine, json_body(request).await?, peer, id).await
        }
        Page::Health => Ok(Answer::json(to_json(&HealthReply { status: "ok".to_owned() }))),
        Page::Ready => Ok(ready(door).await),
        Page::Status => status(door).await,
        Page::Unseal => unseal(door, request, id).await,
        Page::Continuity => system::continuity(door.gate(), json_body(request).await?).await,
        Page::OpenApi => Ok(Answer::json(door.openapi(openapi::document))),
        Page::Metrics => metrics(door, &request, peer, id).await,
        Page::AddCheckpoint => add_checkpoint(door, request).await,
    }
}

async fn ready(door: &Door) -> Answer {
    let reason = match door.gate().status().await {
        Ok(status) if !status.initialised => Some("uninitialised"),
        Ok(status) if status.sealed => Some("sealed"),
        Ok(status) if status.rollback.is_some() => Some("rolled-back"),
        Ok(_) => None,
        Err(_) => Some("unavailable"),
    };
    let reply = ReadyReply { ready: reason.is_none(), reason: reason.map(str::to_owned) };
    let mut answer = Answer::json(to_json(&reply));
    if !reply.ready {
        answer.status = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}

async fn status(door: &Door) -> Result<Answer, Problem> {
    let status = door.gate().status().await?;
    let seal = |seal: &lastkey_service::sealing::SealInfo| SealView {
        id: seal.id.to_string(),
        kind: seal.kind.to_owned(),
        shares_brought: seal.shares.map(|(have, _)| u8::try_from(have).unwrap_or(u8::MAX)),
        shares_needed: seal.shares.map(|(_, need)| need),
        health: seal.health.as_ref().map(|health| health.as_str().to_owned()),
        opened_at: seal.health.as_ref().and_then(opened_at).map(rfc3339),
        problem: seal.problem.clone(),
    };
    Ok(Answer::json(to_json(&StatusReply {
        server_version: door.server_version().to_owned(),
        initialised: status.initialised,
        sealed: status.sealed,
        instance: status.instance.map(|id| id.to_string()),
        seals: status.seals.iter().map(seal).collect(),
        clock_hold: status
            .clock_hold
            .map(|hold| ClockHold { seen_at: rfc3339(hold.seen_at), jump_seconds: hold.jump }),
        backup: status.backup.map(standing),
        rollback: status.rollback,
        audit_problem: door
            .gate()
            .audit_state()
            .as_ref()
            .and_then(audit_problem)
            .map(str::to_owned),
    })))
}

/// The gravest that an audit log suffers from. Everybody may ask, so it names no file.
const fn audit_problem(state: &LogState) -> Option<&'static str> {
    match state {
        LogState { refusing: Some(_), .. } => Some("refusing"),
        LogState { has_unsynced_tiles: true, .. } => Some("tiles-behind"),
        LogState { is_alarming: true, .. } => Some("space-short"),
        LogState { .. } => None,
    }
}

async fn unseal<B>(door: &Door, request: Request<B>, id: RequestId) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    let presented = presented(json_body(request).await?)?;
    let outcome = match presented {
        Presented::Bytes(bytes) => {
            door.gate().unseal(id, bytes).await.map(|done| (None, Some(done)))
        }
        Presented::Share(share) => {
            let brought = door.gate().unseal_by_share(id, share).await;
            brought.map(|(gathered, done)| (Some(gathered), done))
        }
    };
    let outcome = outcome.map_err(|error| {
        if matches!(error, Error::Unauthenticated) {
            Problem::WrongPassphrase
        } else {
            error.into()
        }
    });
    door.metrics().count_unseal(outcome.as_ref().err().map(Problem::code));
    let (gathered, unsealed) = outcome?;
    Ok(Answer::json(to_json(&UnsealReply {
        sealed: door.gate().engine().is_err(),
        attempt: id.to_string(),
        seal_kind: unsealed.map_or("shamir", |unsealed| unsealed.seal_kind).to_owned(),
        shares_brought: gathered.map(|gathered| gathered.have),
        shares_needed: gathered.map(|gathered| gathered.need),
    })))
}

/// What is to open a seal.
enum Presented {
    /// A passphrase or key file.
    Bytes(SecretVec),
    /// A share.
    Share(SecretVec),
}

fn presented(request: UnsealRequest) -> Result<Presented, Syntax> {
    match (request.passphrase, request.keyfile, request.share) {
        (Some(passphrase), None, None) => Ok(Presented::Bytes(passphrase.0)),
        (None, Some(keyfile), None) => Ok(Presented::Bytes(keyfile.0)),
        (None, None, Some(share)) => Ok(Presented::Share(share.0)),
        (_, _, _) => {
            Err(Syntax::field("passphrase", "expected one of `passphrase`, `keyfile` and `share`"))
        }
    }
}

/// Reads a body of somebody who is not known yet.
async fn json_body<B, T>(request: Request<B>) -> Result<T, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    T: DeserializeOwned,
{
    let (head, body) = request.into_parts();
    let body = read_body(body, MAX_PUBLIC_LEN).await?;
    check_content_type(&head.headers, &body)?;
    Ok(json(&body)?)
}

/// The witness protocol has answers of its own.
async fn add_checkpoint<B>(door: &Door, request: Request<B>) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    // A sealed server has no key to cosign with.
    door.gate().engine()?;
    let body = read_body(request.into_body(), MAX_CHECKPOINT_LEN).await?;
    let asked = std::str::from_utf8(&body).map_err(|_| Refusal::Malformed);
    let judged = match asked.and_then(AddCheckpoint::parse) {
        Ok(asked) => door.gate().cosign(&asked).await?,
        Err(refusal) => Err(refusal),
    };
    let (status, content, text) = match judged {
        Ok(line) => (StatusCode::OK, Content::Text, line),
        Err(refusal) => {
            let (status, content) = refused(refusal);
            let text = match refusal {
                Refusal::Conflict(size) | Refusal::Rewritten(size) => size.to_string(),
                Refusal::Malformed
                | Refusal::Forbidden
                | Refusal::UnknownLog
                | Refusal::Inconsistent => refusal.to_string(),
            };
            (status, content, format!("{text}\n"))
        }
    };
    Ok(Answer { status, content, ..Answer::json(text) })
}

const fn refused(refusal: Refusal) -> (StatusCode, Content) {
    match refusal {
        Refusal::Malformed => (StatusCode::BAD_REQUEST, Content::Text),
        Refusal::Forbidden => (StatusCode::FORBIDDEN, Content::Text),
        Refusal::UnknownLog => (StatusCode::NOT_FOUND, Content::Text),
        Refusal::Conflict(_) | Refusal::Rewritten(_) => (StatusCode::CONFLICT, Content::LogSize),
        Refusal::Inconsistent => (StatusCode::UNPROCESSABLE_ENTITY, Content::Text),
    }
}

/// A checkpoint with its signatures and a proof.
const MAX_CHECKPOINT_LEN: usize = 64 << 10;

/// Nobody is known yet who may send more; a token has at most 20,000 bytes.
const MAX_PUBLIC_LEN: usize = 32 << 10;

async fn metrics<B>(
    door: &Door,
    request: &Request<B>,
    peer: &Peer,
    id: RequestId,
) -> Result<Answer, Problem> {
    if door.metrics_access() == MetricsAccess::Token {
        // A signature over the empty body of a scrape is one over nothing that matters.
        drop(admit(door.gate(), request, peer, id).await?);
    }
    let (seals, backup) = match door.gate().status().await {
        Ok(status) => (status.seals, status.backup),
        Err(_) => (Vec::new(), None),
    };
    let mut answer = Answer::json(door.scrape(&seals, backup));
    answer.content = Content::Metrics;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gravest_problem_of_the_audit_log_is_the_one_that_is_told() {
        let mut state = LogState::default();
        assert_eq!(audit_problem(&state), None);
        state.is_alarming = true;
        assert_eq!(audit_problem(&state), Some("space-short"));
        state.has_unsynced_tiles = true;
        assert_eq!(audit_problem(&state), Some("tiles-behind"));
        state.refusing = Some("cannot write /var/lib/lastkey/audit".to_owned());
        assert_eq!(audit_problem(&state), Some("refusing"));
    }

    #[test]
    fn public_paths_are_the_ones_in_the_golden_list() {
        let list: String =
            PUBLIC.iter().map(|route| format!("{} {}\n", route.method, route.path)).collect();
        assert_eq!(list, include_str!("../tests/golden/public-paths.txt"));
    }
}
