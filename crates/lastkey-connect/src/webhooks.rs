//! Programs that rotate secrets: signed calls.
//!
//! Room      `connect`. Implements `core::outside::Webhooks`.
//! Source    Standard Webhooks, 1.0.0: headers `webhook-id`, `webhook-timestamp` and
//!           `webhook-signature`, HMAC-SHA256. `docs/rotation.md`, "A program of yours".
//! Holds     calls go through the guard, to hosts that the operator named and no others; each step
//!           of a rotation has one id, however often it is done.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};
use lastkey_core::outside::{HookCall, HookError, Webhooks};
use lastkey_core::secret_item::ValueKind;
use lastkey_core::secret_value::Fields;
use lastkey_secret::SecretVec;
use serde::{Deserialize, Serialize};

use crate::guard::{Guard, Limits, OutboundError, Outgoing, Route, Trust};

/// Programs behind a guard.
#[derive(Clone, Debug)]
pub struct GuardedWebhooks {
    guard: Guard,
}

impl GuardedWebhooks {
    /// Those that a guard lets through by name: what calls get is worth more than a document.
    #[must_use]
    pub fn behind(guard: Guard) -> Self {
        Self { guard: guard.by_name() }
    }

    fn route(&self, url: &str, authority: Option<&str>) -> Result<Route, HookError> {
        let route = self.guard.route(url, &Trust::from(authority), None);
        route.map_err(|error| HookError::Away(error.to_string()))
    }
}

/// What is sent. Values are base64, and wiped with the text that they stand in by nobody: the
/// program gets them, over TLS.
#[derive(Serialize)]
struct Sent<'a> {
    step: &'static str,
    rotation: &'a str,
    // secrets: allow, the name of a secret is none
    secret: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(flatten)]
    value: Told,
}

/// A value, or fields, or neither.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<String, String>>,
}

#[async_trait]
impl Webhooks for GuardedWebhooks {
    fn check(&self, url: &str, authority: Option<&str>) -> Result<(), HookError> {
        self.route(url, authority).map(drop)
    }

    async fn call(&self, call: HookCall<'_>) -> Result<Option<(ValueKind, SecretVec)>, HookError> {
        let step = call.step.as_str();
        let route = self.route(call.url, call.authority)?;
        let unwritten = || HookError::Away("the call cannot be written".to_owned());
        let outgoing = outgoing(&call).ok_or_else(unwritten)?;
        let answer = route.call(outgoing, Limits::default()).await.map_err(unanswered)?;
        if !answer.status.is_success() {
            let status = answer.status.as_u16();
            return Err(HookError::No(format!("it answered {status} to the step {step}")));
        }
        if step != "create" || answer.body.is_empty() {
            return Ok(None);
        }
        made(&answer.body).ok_or_else(|| {
            let forms = r#"{}, {"value": BASE64} or {"fields": {NAME: BASE64}}"#;
            HookError::No(format!("it answered something else than {forms}"))
        })
    }
}

/// A redirect is an answer that is no yes; nothing else is known to be one.
fn unanswered(error: OutboundError) -> HookError {
    let text = error.to_string();
    if matches!(error, OutboundError::Redirect(_)) {
        HookError::No(text)
    } else {
        HookError::Away(text)
    }
}

fn outgoing(call: &HookCall<'_>) -> Option<Outgoing> {
    let value = match call.value {
        Some((kind, value)) => told(kind, value)?,
        None => Told::default(),
    };
    let (step, rotation, secret) = (call.step.as_str(), call.rotation, call.secret);
    let sent = Sent { step, rotation, secret, version: call.version, value };
    let body = serde_json::to_vec(&sent).ok()?;
    let id = format!("{rotation}-{step}");
    let signature = signature(call.signing, &id, call.at.0, &body);
    let own = |name: &'static str, value: String| {
        Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
    };
    let headers = vec![
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        own("webhook-id", id)?,
        own("webhook-timestamp", call.at.0.to_string())?,
        own("webhook-signature", format!("v1,{signature}"))?,
    ];
    Some(Outgoing { method: Method::POST, path: String::new(), headers, body: Bytes::from(body) })
}

fn signature(signing: &SecretVec, id: &str, at: u64, body: &[u8]) -> String {
    let tag = signing.expose(|key| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        context.update(format!("{id}.{at}.").as_bytes());
        context.update(body);
        context.sign()
    });
    STANDARD.encode(tag)
}

fn told(kind: ValueKind, value: &SecretVec) -> Option<Told> {
    let encode = |value: &SecretVec| value.expose(|bytes| STANDARD.encode(bytes));
    match kind {
        ValueKind::Opaque => Some(Told { value: Some(encode(value)), fields: None }),
        ValueKind::Fields => {
            let fields = value.expose(Fields::parse).ok()?.into_inner();
            let fields = fields.iter().map(|(name, value)| (name.clone(), encode(value)));
            Some(Told { value: None, fields: Some(fields.collect()) })
        }
    }
}

/// What a program made; the inner `None` when it leaves that to us.
fn made(body: &[u8]) -> Option<Option<(ValueKind, SecretVec)>> {
    let decode = |text: &str| STANDARD.decode(text).ok().map(SecretVec::take);
    // An array would be taken for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    match serde_json::from_slice(body).ok()? {
        Told { value: None, fields: None } => Some(None),
        Told { value: Some(value), fields: None } => {
            Some(Some((ValueKind::Opaque, decode(&value)?)))
        }
        Told { value: None, fields: Some(fields) } => {
            let fields = fields.into_iter().map(|(name, value)| Some((name, decode(&value)?)));
            let fields = Fields::new(fields.collect::<Option<Vec<_>>>()?).ok()?;
            Some(Some((ValueKind::Fields, fields.encode()?)))
        }
        Told { value: Some(_), fields: Some(_) } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Standard Webhooks, whose key is `whsec_` and the base64 of these bytes.
    #[test]
    fn a_call_is_signed_as_the_standard_says() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(&SecretVec::take(key), id, 1_614_265_330, body);
        assert_eq!(signed, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_a_program_makes_is_a_value_or_fields_or_nothing() {
        assert!(made(b"{}").unwrap().is_none());
        let (kind, value) = made(br#"{"value":"AQI="}"#).unwrap().unwrap();
        assert!(kind == ValueKind::Opaque && value.expose(|bytes| bytes == [1, 2]));
        let (kind, value) = made(br#"{"fields":{"b":"AQ==","a":"Ag=="}}"#).unwrap().unwrap();
        let fields = value.expose(Fields::parse).unwrap().into_inner();
        assert!(kind == ValueKind::Fields && fields[0].0 == "a");
        for bad in [&b"[]"[..], b"", br#"{"value":"!"}"#, br#"{"x":1}"#, br#"{"fields":{}}"#] {
            assert!(made(bad).is_none());
        }
    }
}
