//! Requests to one API server.
//!
//! Room      `kube`, inside.
//! Source    Kubernetes API concepts: lists in pages, resource versions, PartialObjectMetadata.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use lastkey_connect::guard::{Guard, Limits, OutboundError, Outgoing, Route};
use serde_json::{Value, json};

use crate::access::{Access, Credential};
use crate::kubeconfig::KubeconfigError;
use crate::watch::Watch;

/// Longest answer, in bytes: a page of objects.
const MAX_ANSWER_LEN: usize = 32 << 20;
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Objects in one page of a list.
const PAGE: usize = 500;
/// Characters of what the server says: admission names every policy that refuses.
const MAX_SAID: usize = 1_000;
/// A page counts as this many objects at least, so that empty ones come to an end.
const LEAST_IN_PAGE: usize = 100;
/// Most objects in a list.
const MAX_OBJECTS: usize = 1_000_000;

/// Why a cluster did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// A file with a credential or an authority.
    #[error("cannot read {0}")]
    File(PathBuf, #[source] io::Error),
    /// The kubeconfig.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// The connection.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The server refused; its reason and message, as it gave them.
    #[error("the API server answered {status} {reason}: {message}")]
    Refused {
        /// Status of the answer.
        status: u16,
        /// `NotFound`, `Forbidden`, `Conflict`, ...
        reason: String,
        /// For people.
        message: String,
    },
    /// The answer is none of an API server.
    #[error("the API server answered something that cannot be read")]
    Malformed,
    /// The watch is too old; list again.
    #[error("the watch is too old")]
    Expired,
    /// More objects than are read.
    #[error("the list has more than {MAX_OBJECTS} objects")]
    TooMany,
}

impl KubeError {
    /// Whether there is no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// How much of each object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All of it.
    Whole,
    /// `metadata` alone: neither spec nor data leaves the API server.
    Metadata,
}

impl Form {
    const fn accept(self, is_list: bool) -> HeaderValue {
        match (self, is_list) {
            (Self::Whole, _) => HeaderValue::from_static("application/json"),
            (Self::Metadata, true) => HeaderValue::from_static(
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            ),
            (Self::Metadata, false) => HeaderValue::from_static(
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            ),
        }
    }
}

/// How a change is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes' own.
    Strategic,
}

/// A list, whole.
#[derive(Debug)]
pub struct Listed {
    /// The objects.
    pub items: Vec<Value>,
    /// Where a watch goes on.
    pub version: String,
}

/// One API server.
#[derive(Debug)]
pub struct Cluster {
    route: Route,
    credential: Credential,
}

impl Cluster {
    /// Prepares calls; connects to nobody yet.
    ///
    /// # Errors
    /// [`KubeError::Outbound`] for an address that is not called or a malformed authority.
    pub fn new(guard: &Guard, access: Access) -> Result<Self, KubeError> {
        let Access { server, trust, credential, identity } = access;
        let route = guard.route(&server, &trust, identity.as_ref())?;
        Ok(Self { route, credential })
    }

    /// Reads one object, or any document, by its path such as `/api/v1/namespaces/a/pods/b`.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn get(&self, path: &str, form: Form) -> Result<Value, KubeError> {
        let asked = self.outgoing(Method::GET, path.to_owned())?;
        self.json(asked.with(ACCEPT, form.accept(false))).await
    }

    /// Reads a document as it is, such as `/openid/v1/jwks`.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn document(&self, path: &str) -> Result<Bytes, KubeError> {
        self.call(self.outgoing(Method::GET, path.to_owned())?).await
    }

    /// Lists every object of a kind. `path` may have a query.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn list(&self, path: &str, form: Form) -> Result<Listed, KubeError> {
        let mut items = Vec::new();
        let version = self.each_page(path, form, &mut |page| items.extend(page)).await?;
        Ok(Listed { items, version })
    }

    /// The same, each page handed over before the next one is asked for. Answers where a watch
    /// goes on.
    ///
    /// # Errors
    /// [`KubeError`]; pages that were handed over by then are no whole list.
    pub async fn each_page(
        &self,
        path: &str,
        form: Form,
        take: &mut (dyn FnMut(Vec<Value>) + Send),
    ) -> Result<String, KubeError> {
        let (mut count, mut mark) = (0_usize, String::new());
        loop {
            let marked = if mark.is_empty() { mark } else { format!("&continue={mark}") };
            let page = with_query(path, &format!("limit={PAGE}{marked}"));
            let asked = self.outgoing(Method::GET, page)?.with(ACCEPT, form.accept(true));
            let mut answer = self.json(asked).await?;
            match answer.get_mut("items").map(Value::take) {
                Some(Value::Array(page)) => {
                    count = count.saturating_add(page.len().max(LEAST_IN_PAGE));
                    take(page);
                }
                // Go writes an empty list so.
                Some(Value::Null) => count = count.saturating_add(LEAST_IN_PAGE),
                Some(_) | None => return Err(KubeError::Malformed),
            }
            if count > MAX_OBJECTS {
                return Err(KubeError::TooMany);
            }
            let text = |name: &str| {
                let value = answer.pointer(&format!("/metadata/{name}"));
                value.and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            mark = escaped(&text("continue"));
            if mark.is_empty() {
                return Ok(text("resourceVersion"));
            }
        }
    }

    /// Watches the objects of a kind from a version of its list on.
    ///
    /// # Errors
    /// [`KubeError`]; [`KubeError::Expired`] when the version is too old.
    pub async fn watch(&self, path: &str, form: Form, version: &str) -> Result<Watch, KubeError> {
        let version = escaped(version);
        let query = format!("watch=1&allowWatchBookmarks=true&resourceVersion={version}");
        let asked = self.outgoing(Method::GET, with_query(path, &query))?;
        let asked = asked.with(ACCEPT, form.accept(false));
        let mut stream = self.route.stream(asked, limits()).await?;
        if stream.status != StatusCode::OK {
            let body = stream.next().await?.unwrap_or_default();
            return Err(refused(stream.status, &body));
        }
        Ok(Watch::new(stream))
    }

    /// Creates an object below a path; what comes of it is answered.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, KubeError> {
        self.send(Method::POST, path, "application/json", object).await
    }

    /// Changes an object.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn patch(&self, path: &str, kind: Patch, patch: &Value) -> Result<Value, KubeError> {
        let content = match kind {
            Patch::Merge => "application/merge-patch+json",
            Patch::Json => "application/json-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
        };
        self.send(Method::PATCH, path, content, patch).await
    }

    /// Deletes an object now, without the time that it may take to end.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn delete(&self, path: &str) -> Result<Value, KubeError> {
        let options =
            json!({ "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0 });
        self.send(Method::DELETE, path, "application/json", &options).await
    }

    /// Has an object written once more as it is. Only its metadata is answered, so nothing of a
    /// Secret comes back.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn touch(&self, path: &str) -> Result<(), KubeError> {
        let nothing = Value::Object(serde_json::Map::new());
        let content = "application/merge-patch+json";
        self.send_as(Form::Metadata, Method::PATCH, path, content, &nothing).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: &'static str,
        body: &Value,
    ) -> Result<Value, KubeError> {
        self.send_as(Form::Whole, method, path, content, body).await
    }

    async fn send_as(
        &self,
        form: Form,
        method: Method,
        path: &str,
        content: &'static str,
        body: &Value,
    ) -> Result<Value, KubeError> {
        let mut asked = self
            .outgoing(method, path.to_owned())?
            .with(ACCEPT, form.accept(false))
            .with(CONTENT_TYPE, HeaderValue::from_static(content));
        asked.body = Bytes::from(body.to_string());
        self.json(asked).await
    }

    fn outgoing(&self, method: Method, path: String) -> Result<Outgoing, KubeError> {
        let outgoing = Outgoing { method, ..Outgoing::get(path) };
        let Some(token) = self.credential.token()? else { return Ok(outgoing) };
        let bearer = token.expose(|token| HeaderValue::from_bytes(&[b"Bearer ", token].concat()));
        let mut bearer = bearer.map_err(|_| KubeError::Malformed)?;
        bearer.set_sensitive(true);
        Ok(outgoing.with(AUTHORIZATION, bearer))
    }

    async fn json(&self, outgoing: Outgoing) -> Result<Value, KubeError> {
        let body = self.call(outgoing).await?;
        serde_json::from_slice(&body).map_err(|_| KubeError::Malformed)
    }

    async fn call(&self, outgoing: Outgoing) -> Result<Bytes, KubeError> {
        let answer = self.route.call(outgoing, limits()).await?;
        if answer.status.is_success() {
            Ok(answer.body)
        } else {
            Err(refused(answer.status, &answer.body))
        }
    }
}

const fn limits() -> Limits {
    Limits { len: MAX_ANSWER_LEN, time: DEADLINE }
}

fn with_query(path: &str, query: &str) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}{query}")
}

/// Percent-encodes what may not stand in a query.
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let each = text.bytes().map(|b| match plain(b) {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    });
    each.collect()
}

/// What a `Status` says, in characters that move no cursor.
pub(crate) fn refused(status: StatusCode, body: &[u8]) -> KubeError {
    let told: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| {
        let text = told.get(name).and_then(Value::as_str).unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect::<String>()
    };
    if status == StatusCode::GONE {
        return KubeError::Expired;
    }
    KubeError::Refused { status: status.as_u16(), reason: text("reason"), message: text("message") }
}
