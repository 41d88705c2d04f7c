//! Sessions: decode, one use case, encode. Two of the routes need no other credential.
//!
//! Room      `http`.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::access::{Revocation, RevokedWhat};
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::principal::Peer;
use lastkey_service::engine::Engine;
use lastkey_service::ops::Opening;
use lastkey_service::ops::exchange_token::{LoginPlace, Request};
use lastkey_service::ops::present_certificate;
use lastkey_service::ops::revoke::Burned;
use lastkey_wire::SecretText;
use lastkey_wire::native::query::DryRunQuery;
use lastkey_wire::native::sessions::{
    BurnReply, BurnRequest, CertificateRequest, JWT_TYPE, ListRevocationsReply, ProviderReply,
    ProviderRequest, RevocationView, RevokeKind, RevokeRequest, TokenReply, TokenRequest,
    WhoAmIReply,
};

use super::decode::{Ask, RequestBody, parse};
use super::encode::{rfc3339, to_json};
use crate::answer::Answer;
use crate::problem::{Problem, Syntax};

impl RequestBody for RevokeRequest {}

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";

/// `POST /v1/sts/token`
pub(crate) async fn token(
    engine: &Arc<Engine>,
    body: TokenRequest,
    peer: &Peer,
    id: RequestId,
) -> Result<Answer, Problem> {
    expect_only("grant_type", body.grant_type.as_deref(), EXCHANGE)?;
    expect_only("subject_token_type", body.subject_token_type.as_deref(), JWT_TYPE)?;
    let request = Request {
        token: body.subject_token.0,
        role: parse("role", &body.role, Name::parse)?,
        duration: body.duration_seconds.map(Duration::from_secs),
        policy: body.policy,
        nonce: body.nonce.map(|nonce| nonce.0),
    };
    let opening = engine.exchange_token(id, peer, request).await?;
    Ok(Answer::json(to_json(&token_reply(opening))))
}

/// `POST /v1/sts/certificate`
pub(crate) async fn certificate(
    engine: &Arc<Engine>,
    body: CertificateRequest,
    peer: &Peer,
    id: RequestId,
) -> Result<Answer, Problem> {
    let request = present_certificate::Request {
        role: parse("role", &body.role, Name::parse)?,
        duration: body.duration_seconds.map(Duration::from_secs),
        policy: body.policy,
    };
    let opening = engine.present_certificate(id, peer, request).await?;
    Ok(Answer::json(to_json(&token_reply(opening))))
}

/// `POST /v1/sts/provider`
pub(crate) async fn provider(
    engine: &Arc<Engine>,
    body: ProviderRequest,
    peer: &Peer,
    id: RequestId,
) -> Result<Answer, Problem> {
    let name = parse("provider", &body.provider, Name::parse)?;
    let LoginPlace { issuer, client_id, authority } = engine.login_place(id, peer, name).await?;
    Ok(Answer::json(to_json(&ProviderReply { issuer, client_id, ca: authority })))
}

fn expect_only(field: &str, value: Option<&str>, only: &'static str) -> Result<(), Syntax> {
    match value {
        Some(value) if value != only => Err(Syntax {
            field: Some(field.to_owned()),
            message: "expected the allowed value".into(),
            allowed: vec![only.to_owned()],
        }),
        Some(_) | None => Ok(()),
    }
}

/// A new session as it goes to its holder.
pub(crate) fn token_reply(opening: Opening) -> TokenReply {
    let Opening { bearer, triple, principal, .. } = opening;
    let session = principal.session();
    let lasts = session.map_or(0, |one| one.expires_at.seconds_since(one.issued_at));
    TokenReply {
        access_token: SecretText(bearer),
        issued_token_type: ACCESS_TOKEN_TYPE.to_owned(),
        token_type: "Bearer".to_owned(),
        expires_in: u64::try_from(lasts).unwrap_or(0),
        expiration: session.map_or_else(String::new, |one| rfc3339(one.expires_at)),
        access_key_id: triple.access_key_id,
        secret_access_key: SecretText(triple.secret),
        session_token: SecretText(triple.session_token),
        principal: principal.name().to_owned(),
        role: principal.role().map(str::to_owned),
    }
}

/// `POST /v1/sts/burn`
pub(crate) async fn burn(
    engine: &Arc<Engine>,
    body: BurnRequest,
    peer: &Peer,
    id: RequestId,
) -> Result<Answer, Problem> {
    let credential = match (body.token, body.access_key_id, body.secret_access_key) {
        (Some(token), None, None) => Burned::Bearer(token.0),
        (None, Some(access_key_id), Some(secret)) => {
            Burned::Triple { access_key_id, secret: secret.0 }
        }
        _none_or_mixed => {
            let expected = "expected `token`, or `access_key_id` and `secret_access_key`";
            return Err(Syntax::field("token", expected).into());
        }
    };
    let burned = engine.burn(id, peer, credential).await?;
    Ok(Answer::json(to_json(&BurnReply { burned })))
}

/// `POST /v1/sts/revoke`
pub(super) async fn revoke(ask: &Ask, body: RevokeRequest) -> Result<RevocationView, Problem> {
    let value = body.value.unwrap_or_default();
    let what = RevokedWhat::of(word_of(body.kind), &value);
    let what = what.ok_or_else(|| Syntax::field("value", "expected none for everything"))?;
    Ok(view(&ask.engine().revoke(ask.call(), what).await?))
}

/// `GET /v1/sts/revocations`
pub(super) async fn revocations(
    ask: &Ask,
    _: DryRunQuery,
) -> Result<ListRevocationsReply, Problem> {
    let all = ask.engine().list_revocations(ask.call()).await?;
    Ok(ListRevocationsReply { revocations: all.iter().map(view).collect() })
}

/// `GET /v1/sts/whoami`
pub(super) async fn who_am_i(ask: &Ask, _: DryRunQuery) -> Result<WhoAmIReply, Problem> {
    let who = &ask.call().caller.principal;
    let session = who.session();
    Ok(WhoAmIReply {
        principal: who.name().to_owned(),
        role: who.role().map(str::to_owned),
        session: session.map(|session| session.id.to_string()),
        expiration: session.map(|session| rfc3339(session.expires_at)),
    })
}

const fn word_of(kind: RevokeKind) -> &'static str {
    match kind {
        RevokeKind::Session => "session",
        RevokeKind::Pod => "pod",
        RevokeKind::ServiceAccount => "service-account",
        RevokeKind::Node => "node",
        RevokeKind::Role => "role",
        RevokeKind::Cluster => "cluster",
        RevokeKind::User => "user",
        RevokeKind::Everything => "everything",
    }
}

fn view(revocation: &Revocation) -> RevocationView {
    let value = revocation.what.value();
    RevocationView {
        kind: match revocation.what {
            RevokedWhat::Session(_) => RevokeKind::Session,
            RevokedWhat::Pod(_) => RevokeKind::Pod,
            RevokedWhat::ServiceAccount(_) => RevokeKind::ServiceAccount,
            RevokedWhat::Node(_) => RevokeKind::Node,
            RevokedWhat::Role(_) => RevokeKind::Role,
            RevokedWhat::Cluster(_) => RevokeKind::Cluster,
            RevokedWhat::User(_) => RevokeKind::User,
            RevokedWhat::Everything => RevokeKind::Everything,
        },
        value: (!value.is_empty()).then(|| value.to_owned()),
        issued_until: rfc3339(revocation.issued_until),
        needed_until: rfc3339(revocation.needed_until),
    }
}
