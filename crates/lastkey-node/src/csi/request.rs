//! What a driver asks for: the pod, its tokens, and the parameters of its class.
//!
//! Room      `node`.
//! Source    Secrets Store CSI driver 1.6, `pkg/secrets-store/nodeserver.go`.
//! Holds     Whatever the class says about a pod, its token alone decides what is read. A pod can
//!           overlay any parameter, so none of them is a permission.

use std::collections::BTreeMap;

use lastkey_crypto::digest::sha256_of;
use lastkey_secret::SecretVec;
use lastkey_wire::grpc::csi_provider::MountRequest;
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

use super::refusal::Refusal;
use crate::ports::Holder;
use crate::tokens::{PodTokens, TOKENS};

const PREFIX: &str = "csi.storage.k8s.io/";
/// The parameter in which a pod names its class.
pub(super) const CLASS: &str = "secretProviderClass";
/// A mode when the driver sends none: everybody may read, as the driver's own default.
const DEFAULT_MODE: u32 = 0o644;

/// A request, taken apart.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) namespace: String,
    pub(super) service_account: String,
    pub(super) pod: String,
    pub(super) pod_uid: String,
    /// Parameters of the class and of the pod, without those about the pod.
    pub(super) parameters: BTreeMap<String, String>,
    /// Mode of files that name none.
    pub(super) mode: u32,
    pub(super) target: String,
    /// SHA-256 over everything but tokens: what is asked for.
    pub(super) fingerprint: [u8; 32],
    tokens: PodTokens,
}

impl Asked {
    /// Takes a request apart.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] when it is not what a driver sends.
    pub(super) fn parse(request: &MountRequest) -> Result<Self, Refusal> {
        let mut attributes = object(&request.attributes, "attributes")?;
        let mut secrets = object(&request.secrets, "secrets")?;
        // From Kubernetes 1.35 they are among the secrets; the driver copies them to the others.
        let (first, second) = (secrets.remove(TOKENS), attributes.remove(TOKENS));
        secrets.values_mut().for_each(wipe);
        let tokens = tokens(first.or(second))?;
        let mut parameters = BTreeMap::new();
        for (name, value) in attributes {
            let Value::String(text) = value else {
                return Err(invalid(format!("attribute {name} is no text")));
            };
            parameters.insert(name, text);
        }
        let fingerprint = fingerprint(&parameters, request);
        let mut about = |name: &str| parameters.remove(&format!("{PREFIX}{name}"));
        let (pod, pod_uid) = (about("pod.name"), about("pod.uid"));
        let (namespace, account) = (about("pod.namespace"), about("serviceAccount.name"));
        parameters.retain(|name, _| !name.starts_with(PREFIX));
        Ok(Self {
            namespace: namespace.unwrap_or_default(),
            service_account: account.unwrap_or_default(),
            pod: pod.unwrap_or_default(),
            pod_uid: pod_uid.unwrap_or_default(),
            parameters,
            mode: mode(&request.permission)?,
            target: request.target_path.clone(),
            fingerprint,
            tokens,
        })
    }

    /// The same without tokens.
    pub(super) fn again(&self) -> Self {
        Self {
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            pod: self.pod.clone(),
            pod_uid: self.pod_uid.clone(),
            parameters: self.parameters.clone(),
            mode: self.mode,
            target: self.target.clone(),
            fingerprint: self.fingerprint,
            tokens: PodTokens::default(),
        }
    }

    /// The pod, as one that holds nothing yet.
    pub(super) fn holder(&self) -> Holder {
        Holder {
            secret: String::new(),
            version: 0,
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            pod: self.pod.clone(),
            pod_uid: self.pod_uid.clone(),
            given_in_outage: false,
        }
    }

    /// Who asks, for messages: what the driver says, not what the token says.
    pub(super) fn who(&self) -> String {
        let (namespace, account) = (&self.namespace, &self.service_account);
        format!("service account {namespace}/{account} (pod {})", self.pod)
    }

    /// The same with the class of the volume, where the driver names it.
    pub(super) fn class_of_whom(&self) -> String {
        match self.class() {
            "" => self.who(),
            class => format!("class {class} for {}", self.who()),
        }
    }

    /// The SecretProviderClass, as the driver names it.
    pub(super) fn class(&self) -> &str {
        self.parameters.get(CLASS).map_or("", String::as_str)
    }

    /// The token of the first of these audiences for which there is one.
    ///
    /// # Errors
    /// [`Refusal::Unready`] when there is none.
    pub(super) fn token(&self, audiences: &[String]) -> Result<&SecretVec, Refusal> {
        self.tokens.first_of(audiences).ok_or_else(|| {
            let wanted = audiences.first().map(String::as_str).unwrap_or_default();
            let there = self.tokens.audiences();
            Refusal::Unready(format!(
                "{}: the driver sent no token of the audience {wanted} (audiences: {there}). Add \
                 `tokenRequests: [{{audience: {wanted}}}]` to the CSIDriver object \
                 secrets-store.csi.k8s.io",
                self.who()
            ))
        })
    }
}

fn invalid(problem: String) -> Refusal {
    Refusal::Invalid(problem)
}

fn object(text: &str, what: &str) -> Result<Map<String, Value>, Refusal> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    // The cause would repeat what was sent.
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | Err(_) => {
            Err(invalid(format!("the {what} of the request are no JSON object")))
        }
    }
}

fn tokens(value: Option<Value>) -> Result<PodTokens, Refusal> {
    let Some(Value::String(text)) = value else { return Ok(PodTokens::default()) };
    PodTokens::parse(text).map_err(|wrong| invalid(wrong.to_string()))
}

fn wipe(value: &mut Value) {
    if let Value::String(text) = value {
        text.zeroize();
    }
}

fn fingerprint(parameters: &BTreeMap<String, String>, request: &MountRequest) -> [u8; 32] {
    let mut parts: Vec<&[u8]> = vec![request.permission.as_bytes(), b"\0"];
    for (name, value) in parameters {
        parts.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
    }
    sha256_of(&parts)
}

/// A mode in decimal, as JSON.
fn mode(permission: &str) -> Result<u32, Refusal> {
    if permission.is_empty() {
        return Ok(DEFAULT_MODE);
    }
    let mode = permission.parse().ok().filter(|mode| (1..=0o777).contains(mode));
    mode.ok_or_else(|| invalid("the permission of the request is no mode in decimal".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(attributes: &Value, secrets: &str) -> MountRequest {
        MountRequest {
            attributes: attributes.to_string(),
            secrets: secrets.to_owned(),
            target_path: "/t".to_owned(),
            permission: "420".to_owned(),
            current_object_version: Vec::new(),
        }
    }

    fn attributes(token: &str) -> Value {
        let tokens = json!({ "lastkey": { "token": token, "expirationTimestamp": "x" } });
        json!({ "csi.storage.k8s.io/pod.name": "p", "csi.storage.k8s.io/pod.uid": "u",
            "csi.storage.k8s.io/pod.namespace": "n", "csi.storage.k8s.io/ephemeral": "true",
            "csi.storage.k8s.io/serviceAccount.name": "s", "role": "r",
            "csi.storage.k8s.io/serviceAccount.tokens": tokens.to_string() })
    }

    fn lastkey() -> [String; 1] {
        ["lastkey".to_owned()]
    }

    #[test]
    fn request_of_a_driver_is_taken_apart() {
        for secrets in ["null", "{}", "", r#"{"user": "x"}"#] {
            let asked = Asked::parse(&request(&attributes("tok"), secrets)).unwrap();
            assert_eq!(asked.who(), "service account n/s (pod p)");
            assert_eq!((asked.pod_uid.as_str(), asked.mode), ("u", 0o644));
            assert!(asked.token(&lastkey()).unwrap().ct_eq(&SecretVec::copy_of(b"tok")));
            assert_eq!(
                asked.parameters.into_iter().collect::<Vec<_>>(),
                [("role".into(), "r".into())]
            );
        }
    }

    #[test]
    fn tokens_among_the_secrets_count_first() {
        let tokens = json!({ "lastkey": { "token": "new" } }).to_string();
        let secrets = json!({ TOKENS: tokens }).to_string();
        let asked = Asked::parse(&request(&attributes("old"), &secrets)).unwrap();
        assert!(asked.token(&lastkey()).unwrap().ct_eq(&SecretVec::copy_of(b"new")));
    }

    #[test]
    fn new_token_asks_for_the_same_and_another_parameter_does_not() {
        let of = |attributes: &Value| Asked::parse(&request(attributes, "")).unwrap().fingerprint;
        let (old, new) = (attributes("a"), attributes("b"));
        assert_eq!(of(&old), of(&new));
        let mut other = attributes("a");
        other["objects"] = "[]".into();
        assert_ne!(of(&old), of(&other));
    }

    #[test]
    fn missing_token_is_told_with_what_to_add() {
        let asked = Asked::parse(&request(&json!({}), "null")).unwrap();
        let said = asked.token(&lastkey()).unwrap_err().to_string();
        assert!(said.contains("tokenRequests: [{audience: lastkey}]"), "{said}");
    }

    #[test]
    fn what_no_driver_sends_is_refused_without_repeating_it() {
        for bad in ["[1]", "\"hunter2\"", "{\"a\": \"hunter2\"", "7"] {
            let mut request = request(&json!({}), "");
            request.attributes = bad.to_owned();
            let said = Asked::parse(&request).unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{said}");
        }
        for permission in ["0", "512", "-1", "rw"] {
            let mut request = request(&json!({}), "");
            request.permission = permission.to_owned();
            assert!(Asked::parse(&request).is_err(), "{permission}");
        }
    }
}
