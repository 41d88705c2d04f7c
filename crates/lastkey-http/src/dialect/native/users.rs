//! People: decode, one use case, encode. Two of the routes need no other credential.
//!
//! Room      `http`.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::access::User;
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::principal::Peer;
use lastkey_secret::SecretVec;
use lastkey_service::engine::Engine;
use lastkey_service::ops::enrol::{Chosen, Enrolled, Request as Enrol};
use lastkey_service::ops::log_in::Request as LogIn;
use lastkey_service::ops::set_user::Change;
use lastkey_service::people::ENROLMENT_SECS;
use lastkey_wire::SecretText;
use lastkey_wire::native::Empty;
use lastkey_wire::native::query::{DryRunQuery, PageQuery};
use lastkey_wire::native::sessions::{EnrolReply, EnrolRequest, LoginRequest};
use lastkey_wire::native::users::{
    AddUserRequest, EnrolmentReply, ListUsersReply, UpdateUserRequest, UserView,
};

use super::access::{marker, name, page};
use super::decode::{Ask, RequestBody};
use super::encode::{rfc3339, to_json};
use super::sessions::token_reply;
use crate::answer::Answer;
use crate::problem::{Problem, Syntax};

impl RequestBody for AddUserRequest {}
impl RequestBody for UpdateUserRequest {}

fn user_view(user: User) -> UserView {
    UserView {
        name: user.name.to_string(),
        groups: texts(&user.groups),
        enrolled: user.password.is_some(),
        disabled: user.disabled,
        created_at: rfc3339(user.created_at),
    }
}

fn texts(groups: &[Name]) -> Vec<String> {
    groups.iter().map(ToString::to_string).collect()
}

fn groups(texts: &[String]) -> Result<Vec<Name>, Syntax> {
    texts.iter().map(|text| name("groups", text)).collect()
}

fn enrolment((user, code): (User, SecretVec)) -> EnrolmentReply {
    let (user, enrolment_code) = (user_view(user), SecretText(code));
    EnrolmentReply { user, enrolment_code, expires_in: ENROLMENT_SECS }
}

/// `POST /v1/iam/users`
pub(super) async fn add_user(ask: &Ask, body: AddUserRequest) -> Result<EnrolmentReply, Problem> {
    let (user, groups) = (name("name", &body.name)?, groups(&body.groups)?);
    Ok(enrolment(ask.engine().add_user(ask.call(), user, groups).await?))
}

/// `POST /v1/iam/users/{name}/enrolment`
pub(super) async fn renew_enrolment(ask: &Ask, _: Empty) -> Result<EnrolmentReply, Problem> {
    Ok(enrolment(ask.engine().renew_enrolment(ask.call(), ask.name()?).await?))
}

/// `PATCH /v1/iam/users/{name}`
pub(super) async fn update_user(ask: &Ask, body: UpdateUserRequest) -> Result<UserView, Problem> {
    let groups = body.groups.as_deref().map(groups).transpose()?;
    let change = Change { groups, disabled: body.disabled };
    Ok(user_view(ask.engine().set_user(ask.call(), ask.name()?, change).await?))
}

/// `GET /v1/iam/users/{name}`
pub(super) async fn describe_user(ask: &Ask, _: DryRunQuery) -> Result<UserView, Problem> {
    Ok(user_view(ask.engine().read_named::<User>(ask.call(), &ask.name()?).await?))
}

/// `DELETE /v1/iam/users/{name}`
pub(super) async fn remove_user(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    ask.engine().remove_user(ask.call(), ask.name()?).await?;
    Ok(Empty {})
}

/// `GET /v1/iam/users`
pub(super) async fn list_users(ask: &Ask, query: PageQuery) -> Result<ListUsersReply, Problem> {
    let (after, limit) = page(&query)?;
    let page = ask.engine().list_named::<User>(ask.call(), after, limit).await?;
    let users: Vec<_> = page.items.into_iter().map(user_view).collect();
    let next_marker = marker(users.last().map(|last| &last.name), page.more);
    Ok(ListUsersReply { users, next_marker })
}

/// `POST /v1/sts/login`
pub(crate) async fn log_in(
    engine: &Arc<Engine>,
    body: LoginRequest,
    peer: &Peer,
    id: RequestId,
) -> Result<Answer, Problem> {
    let request = LogIn {
        name: name("user", &body.user)?,
        password: body.password.0,
        code: body.one_time_code.0,
        role: body.role.as_deref().map(|role| name("role", role)).transpose()?,
        duration: body.duration_seconds.map(Duration::from_secs),
        policy: body.policy,
    };
    let opening = engine.log_in(id, peer, request).await?;
    Ok(Answer::json(to_json(&token_reply(opening))))
}

/// `POST /v1/sts/enrol`
pub(crate) async fn enrol(
    engine: &Arc<Engine>,
    body: EnrolRequest,
    peer: &Peer,
    id: RequestId,
) -> Result<Answer, Problem> {
    let chosen = match (body.password, body.one_time_code) {
        (Some(password), Some(code)) => {
            Some(Chosen { password: password.0, one_time_code: code.0 })
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let expected = "expected `password` and `one_time_code`, or neither";
            return Err(Syntax::field("password", expected).into());
        }
    };
    let request = Enrol { name: name("user", &body.user)?, code: body.enrolment_code.0, chosen };
    let reply = match engine.enrol(id, peer, request).await? {
        Enrolled::Offered(address) => EnrolReply {
            user: body.user,
            enrolled: false,
            otpauth_uri: Some(SecretText(address)),
            groups: Vec::new(),
        },
        Enrolled::Done(groups) => EnrolReply {
            user: body.user,
            enrolled: true,
            otpauth_uri: None,
            groups: texts(&groups),
        },
    };
    Ok(Answer::json(to_json(&reply)))
}
