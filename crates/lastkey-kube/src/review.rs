//! TokenReview: what the cluster itself says of a token.
//!
//! Room      `kube`, inside.
//! Source    `authentication.k8s.io/v1`, TokenReview.
//! Holds     Nothing is taken from an answer that is not authenticated, or that has an error.

use lastkey_secret::SecretVec;
use serde_json::{Value, json};

use crate::cluster::{Cluster, KubeError};

/// What the cluster says of a token that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// UID of the account.
    pub uid: String,
    /// UID of the pod that the token is bound to.
    pub pod_uid: Option<String>,
    /// The audiences that were asked for and that the token has.
    pub audiences: Vec<String>,
}

impl Cluster {
    /// Asks whether a token is good for one of these audiences; `None` when it is not.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn review_token(
        &self,
        token: &SecretVec,
        audiences: &[String],
    ) -> Result<Option<Reviewed>, KubeError> {
        let text = token.expose(|token| std::str::from_utf8(token).map(str::to_owned));
        // What is no text is no token.
        let Ok(text) = text else { return Ok(None) };
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": text, "audiences": audiences },
        });
        let answer = self.create("/apis/authentication.k8s.io/v1/tokenreviews", &review).await?;
        Ok(parse(&answer))
    }
}

fn parse(answer: &Value) -> Option<Reviewed> {
    let status = answer.get("status")?;
    let is_clean = status.get("error").and_then(Value::as_str).is_none_or(str::is_empty);
    if status.get("authenticated") != Some(&Value::Bool(true)) || !is_clean {
        return None;
    }
    let text = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let audiences = status.get("audiences")?.as_array()?;
    Some(Reviewed {
        username: text("/user/username")?,
        uid: text("/user/uid")?,
        pod_uid: text("/user/extra/authentication.kubernetes.io~1pod-uid/0"),
        audiences: audiences.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: Value) -> Option<Reviewed> {
        parse(&json!({ "kind": "TokenReview", "status": status }))
    }

    #[test]
    fn review_is_believed_when_it_is_authenticated_and_has_no_error() {
        let user = json!({
            "username": "system:serviceaccount:shop:api", "uid": "u1",
            "extra": { "authentication.kubernetes.io/pod-uid": ["p1"] },
        });
        let good = json!({ "authenticated": true, "user": user, "audiences": ["a"] });
        let read = status(good.clone()).unwrap();
        assert_eq!((read.uid.as_str(), read.pod_uid.as_deref()), ("u1", Some("p1")));
        for (name, value) in [
            ("authenticated", json!(false)),
            ("authenticated", json!("true")),
            ("error", json!("token was revoked")),
            ("audiences", Value::Null),
            ("user", json!({})),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert_eq!(status(bad), None, "{name}");
        }
        assert_eq!(parse(&json!({})), None);
    }
}
