//! The cluster writes objects once more by itself: one StorageVersionMigration for each resource.
//!
//! Room      `lastkey`.
//! Source    KEP-4192; k8s.io/api/storagemigration: v1, v1beta1.
//! Holds     Whether a cluster has migrations is asked of its discovery, never told by its version;
//!           whether somebody carries one out is seen by what becomes of it. One of an earlier run
//!           is followed when it was made for the same key, and no other.

use std::time::Duration;

use lastkey_kube::{Cluster, Form, KubeError};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::resource::Resource;
use crate::cli::failure::printable;

const GROUP: &str = "storagemigration.k8s.io";
/// Both have the same fields; the first one that is served is taken.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const PLURAL: &str = "storageversionmigrations";
/// Names, in an annotation of a migration, the hash of the key that everything is to be under.
const KEY_ANNOTATION: &str = "lastkey.dev/key-id-hash";
/// `app.kubernetes.io/managed-by=lastkey`.
const OURS: &str = "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dlastkey";
/// How often a migration is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// The migrations of a cluster that has them.
pub(super) struct Migrations<'a> {
    cluster: &'a Cluster,
    version: &'static str,
}

/// What became of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The cluster says that it is done.
    Succeeded,
    /// The cluster says why it is not.
    Failed(String),
    /// Nobody has begun with it.
    Unclaimed,
    /// It goes on, and fewer objects are not left.
    Stalled,
}

impl Ended {
    /// What a person should know of it.
    pub(super) fn remark(&self) -> Option<String> {
        match self {
            Self::Succeeded => None,
            Self::Failed(said) => Some(format!("the migration failed: {}", printable(said))),
            Self::Unclaimed => Some(
                "nobody in the cluster begins with the migration: does its controller manager run \
                 with StorageVersionMigrator? The migration was taken back"
                    .to_owned(),
            ),
            Self::Stalled => Some("the migration makes no progress; it was left alone".to_owned()),
        }
    }
}

impl<'a> Migrations<'a> {
    /// Asks a cluster whether it has them.
    ///
    /// # Errors
    /// [`KubeError`]; not for a cluster that says no.
    pub(super) async fn find(cluster: &'a Cluster) -> Result<Option<Self>, KubeError> {
        for version in VERSIONS {
            let path = format!("/apis/{GROUP}/{version}");
            match cluster.get(&path, Form::Whole).await {
                Ok(resources) if serves(&resources) => {
                    return Ok(Some(Self { cluster, version }));
                }
                Ok(_) | Err(KubeError::Refused { status: 403 | 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Has a resource migrated and follows that to its end. `key` is the hash of the key that
    /// every API server knows by now; nobody having begun with it after `patience` is an end too.
    /// A person is told by `say`.
    ///
    /// # Errors
    /// [`KubeError`], also when the migration may not be made.
    pub(super) async fn carry_out(
        &self,
        resource: &Resource,
        key: &str,
        patience: Duration,
        say: impl Fn(&str),
    ) -> Result<Ended, KubeError> {
        let name = match self.unfinished(resource, key).await? {
            Some(name) => name,
            None => self.make(resource, key).await?,
        };
        say(&format!("{resource}: the cluster migrates them ({name})"));
        let path = format!("{}/{name}", self.path());
        let ended = self.follow(resource, &path, patience).await?;
        // One that failed stays for whoever looks for the reason.
        if matches!(ended, Ended::Succeeded | Ended::Unclaimed) {
            match self.cluster.delete(&path).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => say(&printable(&format!("{name} is left: {error}"))),
            }
        }
        Ok(ended)
    }

    async fn make(&self, resource: &Resource, key: &str) -> Result<String, KubeError> {
        let migration = json!({
            "apiVersion": format!("{GROUP}/{}", self.version),
            "kind": "StorageVersionMigration",
            "metadata": {
                "generateName": format!("lastkey-{}-", resource.name()),
                "labels": { "app.kubernetes.io/managed-by": "lastkey" },
                "annotations": { KEY_ANNOTATION: key },
            },
            "spec": { "resource": { "group": resource.group(), "resource": resource.name() } },
        });
        let made = self.cluster.create(&self.path(), &migration).await?;
        name_of(&made).ok_or(KubeError::Malformed)
    }

    async fn follow(
        &self,
        resource: &Resource,
        path: &str,
        patience: Duration,
    ) -> Result<Ended, KubeError> {
        let begin = Instant::now();
        loop {
            let state = match self.cluster.get(path, Form::Whole).await {
                Ok(migration) => State::of(&migration),
                Err(error) if error.is_not_found() => {
                    State::Failed("somebody deleted it".to_owned())
                }
                Err(error) => return Err(error),
            };
            let is_late = begin.elapsed() >= patience;
            match state {
                State::Succeeded => return Ok(Ended::Succeeded),
                State::Failed(said) => return Ok(Ended::Failed(said)),
                // Migrations of one resource are carried out one after the other.
                State::Waiting if is_late && !self.is_busy(resource).await? => {
                    return Ok(Ended::Unclaimed);
                }
                State::Waiting | State::Claimed => sleep(LOOK_PERIOD).await,
            }
        }
    }

    /// Whether another migration of the resource is being carried out.
    async fn is_busy(&self, resource: &Resource) -> Result<bool, KubeError> {
        let all = self.cluster.list(&self.path(), Form::Whole).await?.items;
        Ok(all.iter().any(|one| is_of(one, resource) && State::of(one) == State::Claimed))
    }

    /// The name of a migration of ours that is not at its end.
    async fn unfinished(
        &self,
        resource: &Resource,
        key: &str,
    ) -> Result<Option<String>, KubeError> {
        let ours = format!("{}?{OURS}", self.path());
        let ours = self.cluster.list(&ours, Form::Whole).await?.items;
        let annotation = format!("/metadata/annotations/{}", KEY_ANNOTATION.replace('/', "~1"));
        let found = ours.iter().find(|one| {
            is_of(one, resource)
                && one.pointer(&annotation).and_then(Value::as_str) == Some(key)
                && matches!(State::of(one), State::Waiting | State::Claimed)
        });
        Ok(found.and_then(name_of))
    }

    fn path(&self) -> String {
        format!("/apis/{GROUP}/{}/{PLURAL}", self.version)
    }
}

/// How a migration is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has touched it.
    Waiting,
    /// Somebody carries it out.
    Claimed,
    Succeeded,
    /// With what was said.
    Failed(String),
}

impl State {
    fn of(migration: &Value) -> Self {
        let conditions = migration.pointer("/status/conditions").and_then(Value::as_array);
        let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
        let text = |one: &Value, name: &str| {
            one.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let holds = |kind: &str| {
            conditions.iter().find(|one| text(one, "type") == kind && text(one, "status") == "True")
        };
        let version = migration.pointer("/status/resourceVersion").and_then(Value::as_str);
        let is_begun = !conditions.is_empty() || version.is_some_and(|version| !version.is_empty());
        match (holds("Failed"), holds("Succeeded")) {
            (Some(failed), _) => Self::Failed(text(failed, "message")),
            (None, Some(_)) => Self::Succeeded,
            (None, None) if is_begun => Self::Claimed,
            (None, None) => Self::Waiting,
        }
    }
}

/// Whether a group's version serves migrations that can be made and read.
fn serves(resources: &Value) -> bool {
    let resources = resources.get("resources").and_then(Value::as_array);
    resources.into_iter().flatten().any(|one| {
        let verbs = one.get("verbs").and_then(Value::as_array);
        let has = |verb: &str| verbs.into_iter().flatten().any(|one| one.as_str() == Some(verb));
        one.get("name").and_then(Value::as_str) == Some(PLURAL) && has("create") && has("get")
    })
}

fn is_of(migration: &Value, resource: &Resource) -> bool {
    let text = |name: &str| {
        let value = migration.pointer(&format!("/spec/resource/{name}"));
        value.and_then(Value::as_str).unwrap_or_default()
    };
    (text("resource"), text("group")) == (resource.name(), resource.group())
}

fn name_of(migration: &Value) -> Option<String> {
    let name = migration.pointer("/metadata/name").and_then(Value::as_str)?;
    // It becomes a part of a path.
    let is_plain = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-.".contains(letter)
    };
    (!name.is_empty() && name.chars().all(is_plain)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{State, name_of, serves};

    fn migration(conditions: Value, version: &str) -> Value {
        json!({ "status": { "conditions": conditions, "resourceVersion": version } })
    }

    #[test]
    fn state_of_a_migration_is_that_of_its_conditions() {
        let one =
            |kind: &str, status: &str| json!({ "type": kind, "status": status, "message": "m" });
        for (conditions, version, state) in [
            (json!([]), "", State::Waiting),
            (Value::Null, "", State::Waiting),
            (json!([]), "7", State::Claimed),
            (json!([one("Running", "True")]), "", State::Claimed),
            (json!([one("Running", "False"), one("Succeeded", "True")]), "7", State::Succeeded),
            (json!([one("Succeeded", "False")]), "7", State::Claimed),
            (
                json!([one("Running", "True"), one("Failed", "True")]),
                "7",
                State::Failed("m".to_owned()),
            ),
        ] {
            assert_eq!(State::of(&migration(conditions.clone(), version)), state, "{conditions}");
        }
        assert_eq!(State::of(&json!({})), State::Waiting);
    }

    #[test]
    fn version_of_a_group_counts_when_migrations_can_be_made_in_it() {
        let verbs = json!(["create", "get", "list"]);
        let of =
            |name: &str, verbs: &Value| json!({ "resources": [{ "name": name, "verbs": verbs }] });
        assert!(serves(&of("storageversionmigrations", &verbs)));
        assert!(!serves(&of("storageversionmigrations/status", &verbs)));
        assert!(!serves(&of("storageversionmigrations", &json!(["get"]))));
        assert!(!serves(&json!({ "resources": null })));
    }

    #[test]
    fn name_that_would_leave_its_path_is_none() {
        let named = |name: &str| name_of(&json!({ "metadata": { "name": name } }));
        assert_eq!(named("lastkey-secrets-x7b2").as_deref(), Some("lastkey-secrets-x7b2"));
        for bad in ["", "a/b", "a?b", "a b"] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }
}
