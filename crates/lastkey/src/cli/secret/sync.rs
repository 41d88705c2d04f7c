//! `secret sync`: Kubernetes Secrets that follow managed secrets, for those who need them.
//!
//! Room      `lastkey`.
//! Holds     A Secret that somebody else made is not touched: one of ours says of which secret it
//!           is, and the API server compares that in the same request that changes it. Credentials
//!           are read anew when they count no more, and who is let do nothing for long gives up.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use lastkey_client::Client;
use lastkey_connect::guard::{Allowed, Guard};
use lastkey_kube::{Cluster, Form, KubeError, Patch};
use lastkey_wire::SecretBase64;
use lastkey_wire::native::secrets::{
    SecretValueQuery, SecretValueReply, SeenSecret, WatchSecretsRequest,
};
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        args::Encoding,
        failure::{Failure, printable},
        kubernetes, output,
        session::Session,
    },
    in_cluster,
};

/// Says of which secret an object is.
const OF: &str = "lastkey.dev/secret";
/// Says of which version.
const VERSION: &str = "lastkey.dev/version";
/// How long one question to the server waits for a change.
const WAIT_SECONDS: u32 = 20;
/// Pause after a question that failed.
const PAUSE: Duration = Duration::from_secs(5);
/// Turns in a row in which nothing was allowed, after which it ends: half a minute.
const REFUSALS: u32 = 6;
/// Questions after which every Secret is looked at, whether or not something changed: in ten
/// minutes.
const ROUNDS: u32 = 30;

/// Arguments of `secret sync`.
#[derive(Args, Debug)]
pub(crate) struct SyncArgs {
    /// A secret and the Kubernetes Secret that follows it (repeatable): NAME=NAMESPACE/SECRET
    #[arg(long = "secret", required = true, value_name = "NAME=NAMESPACE/SECRET")]
    pairs: Vec<Pair>,
    /// Type of Secrets that are made
    #[arg(long = "type", value_name = "TYPE", default_value = "Opaque")]
    kind: String,
    /// Name in the Secret of a value without fields
    #[arg(long, value_name = "NAME", default_value = "value")]
    key: String,
    /// Take Secrets over that are there already and belong to nobody
    #[arg(long)]
    adopt: bool,
    /// End when all are as they should be, instead of following changes
    #[arg(long)]
    once: bool,
    /// Kubeconfig of the cluster [default: the pod's own account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,
}

/// A secret, and the object that follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    name: String,
    namespace: String,
    object: String,
}

impl FromStr for Pair {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The name of a secret may have the sign too, that of an object may not.
        let split = text.rsplit_once('=').and_then(|(name, object)| {
            let (namespace, object) = object.split_once('/')?;
            Some((name, namespace, object))
        });
        let plain = |text: &str| {
            let is_good =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
            (1..=253).contains(&text.len()) && text.bytes().all(is_good)
        };
        match split {
            Some((name, namespace, object))
                if !name.is_empty() && plain(namespace) && plain(object) =>
            {
                let (name, namespace) = (name.to_owned(), namespace.to_owned());
                Ok(Self { name, namespace, object: object.to_owned() })
            }
            Some(_) | None => Err("expected NAME=NAMESPACE/SECRET"),
        }
    }
}

impl Pair {
    fn all(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.all(), self.object)
    }
}

/// What is known of the object of a pair.
#[derive(Clone, Debug, Default)]
struct Written {
    version: Option<u32>,
    /// As the API server counted it.
    revision: String,
    len: usize,
}

/// Keeps Kubernetes Secrets as managed secrets are.
pub(crate) async fn sync(args: SyncArgs, session: &Session) -> Result<(), Failure> {
    let mut client = session.client()?;
    let cluster = cluster(&args)?;
    let mut written = vec![Written::default(); args.pairs.len()];
    let mut turn = round(&args, &client, &cluster, &mut written, true).await;
    tell_cost(&written);
    if args.once {
        return turn.failed.map_or(Ok(()), Err);
    }
    let (mut rounds, mut refusals) = (0_u32, 0);
    loop {
        refusals = turn.refusals_after(refusals);
        let is_behind = turn.failed.is_some();
        if let Some(failure) = turn.failed {
            if refusals >= REFUSALS {
                tell_end();
                return Err(failure);
            }
            tokio::time::sleep(PAUSE).await;
            if refusals > 0 {
                client = session.client_anew(&client);
            }
        }
        rounds = (rounds + 1) % ROUNDS;
        turn = match changed(&args, &client, &written).await {
            Ok(false) if rounds != 0 && !is_behind => Turn::default(),
            Ok(is_told) => {
                let turn = round(&args, &client, &cluster, &mut written, rounds == 0).await;
                if is_told && turn.was_for_nothing() {
                    // Told again at once: of a secret that may be read and not listed.
                    tokio::time::sleep(PAUSE).await;
                }
                turn
            }
            Err(failure) => {
                output::note(&format!("warning: the secrets cannot be watched now: {failure}"));
                Turn { failed: Some(failure), ..Turn::default() }
            }
        };
    }
}

/// What came of one look at all pairs.
#[derive(Debug, Default)]
struct Turn {
    /// The last failure, when there was one.
    failed: Option<Failure>,
    /// Pairs that are as they should be.
    done: usize,
    /// Those of them that were not before.
    written: usize,
}

impl Turn {
    /// Whether everything was as it should be already.
    const fn was_for_nothing(&self) -> bool {
        self.failed.is_none() && self.written == 0
    }

    /// Turns in a row in which nothing was allowed, when there were so many before this one.
    fn refusals_after(&self, before: u32) -> u32 {
        match &self.failed {
            Some(failure) if self.done == 0 && failure.is_denied() => before.saturating_add(1),
            // An outage says nothing about who may.
            Some(_) if self.done == 0 => before,
            Some(_) | None => 0,
        }
    }
}

fn tell_end() {
    output::note(&format!(
        "nothing was allowed {REFUSALS} times in a row, also with the credentials read anew. Put a \
         token that counts into --token-file, or permit secrets:ListSecrets, secrets:DescribeSecret \
         and secrets:GetSecret, and of the cluster get, create and patch; then start this again"
    ));
}

fn cluster(args: &SyncArgs) -> Result<Cluster, Failure> {
    if let Some(path) = &args.kubeconfig {
        return kubernetes::connect(path, args.context.as_deref(), None);
    }
    let access = in_cluster::access();
    let access = access.map_err(|error| Failure::Usage(format!("{error:#}: give --kubeconfig")))?;
    let cluster = Cluster::new(&Guard::new(Allowed::Any), access);
    cluster.map_err(|error| kubernetes::refused(&error))
}

/// Whether a secret has another current version than was written.
async fn changed(args: &SyncArgs, client: &Client, written: &[Written]) -> Result<bool, Failure> {
    let mut secrets: Vec<SeenSecret> = Vec::new();
    for (pair, one) in args.pairs.iter().zip(written) {
        // A name may stand there once.
        if !secrets.iter().any(|seen| seen.name == pair.name) {
            secrets.push(SeenSecret { name: pair.name.clone(), version: one.version });
        }
    }
    let request = WatchSecretsRequest {
        secrets,
        wait_seconds: Some(WAIT_SECONDS),
        holders_digest: None,
        holders: None,
        holders_incomplete: false,
    };
    Ok(!client.watch_secrets(&request).await?.changed.is_empty())
}

/// Brings every object to where it should be.
async fn round(
    args: &SyncArgs,
    client: &Client,
    cluster: &Cluster,
    written: &mut [Written],
    looks_at_all: bool,
) -> Turn {
    let mut turn = Turn::default();
    for (pair, before) in args.pairs.iter().zip(written) {
        match follow(args, client, cluster, pair, before, looks_at_all).await {
            Ok(is_written) => {
                turn.done += 1;
                turn.written += usize::from(is_written);
                if is_written {
                    let version = before.version.map(|one| format!(" version {one}"));
                    let version = version.unwrap_or_default();
                    output::note(&format!(
                        "{}{version} is in {}/{}",
                        pair.name, pair.namespace, pair.object
                    ));
                }
            }
            Err(failure) => {
                output::note(&format!("warning: {}: {failure}", pair.name));
                turn.failed = Some(failure);
            }
        }
    }
    turn
}

/// Writes one object if it is not as it should be; whether it was written.
async fn follow(
    args: &SyncArgs,
    client: &Client,
    cluster: &Cluster,
    pair: &Pair,
    before: &mut Written,
    looks_at_all: bool,
) -> Result<bool, Failure> {
    let shown = client.describe_secret(&pair.name).await?;
    if shown.destroyed_at.is_some() {
        let problem = "it is deleted; the Kubernetes Secret stays as it is until it is restored";
        return Err(Failure::Input(problem.to_owned()));
    }
    let current = shown.stages.get("current").copied();
    if !looks_at_all && current.is_some() && current == before.version {
        return Ok(false);
    }
    let refused = |error: KubeError| kubernetes::refused(&error);
    let there = match cluster.get(&pair.path(), Form::Whole).await {
        Ok(object) => Some(object),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(refused(error)),
    };
    let is_as_written = there.as_ref().is_some_and(|object| {
        text(object, "/metadata/resourceVersion") == before.revision && current == before.version
    });
    if is_as_written {
        return Ok(false);
    }
    let read = client.get_secret(&pair.name, &SecretValueQuery::default()).await?;
    let data = data(&read, &args.key)?;
    let len = data.iter().map(|(name, value)| name.len() + value.to_string().len()).sum();
    let annotations = json!({ OF: pair.name, VERSION: read.version.to_string() });
    let written = |object: &Value| {
        let revision = text(object, "/metadata/resourceVersion").to_owned();
        Written { version: Some(read.version), revision, len }
    };
    if let Some(there) = there.as_ref().filter(|there| is_so(there, &annotations, &data)) {
        *before = written(there);
        return Ok(false);
    }
    let object = match there {
        None => {
            let metadata = json!({ "name": pair.object, "annotations": annotations });
            let object = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata,
                "type": args.kind, "data": data });
            cluster.create(&pair.all(), &object).await.map_err(refused)?
        }
        Some(there) => {
            check_owner(args, &there, pair)?;
            let patch = patch(&there, &annotations, data);
            cluster.patch(&pair.path(), Patch::Json, &patch).await.map_err(refused)?
        }
    };
    *before = written(&object);
    Ok(true)
}

/// Whether an object is ours and as it should be.
fn is_so(object: &Value, annotations: &Value, data: &Map<String, Value>) -> bool {
    let has = |name: &str| object.pointer("/metadata/annotations").and_then(|all| all.get(name));
    let is_ours = [OF, VERSION].iter().all(|name| has(name) == annotations.get(name));
    is_ours && object.get("data").and_then(Value::as_object) == Some(data)
}

/// A change that the API server makes only of the object that was looked at.
fn patch(there: &Value, annotations: &Value, data: Map<String, Value>) -> Value {
    let mut all = there.pointer("/metadata/annotations").cloned().unwrap_or_else(|| json!({}));
    if let (Some(all), Some(ours)) = (all.as_object_mut(), annotations.as_object()) {
        all.extend(ours.clone());
    }
    let revision = text(there, "/metadata/resourceVersion");
    json!([
        { "op": "test", "path": "/metadata/resourceVersion", "value": revision },
        { "op": "add", "path": "/metadata/annotations", "value": all },
        { "op": "add", "path": "/data", "value": data },
    ])
}

/// Refuses an object that is not ours.
fn check_owner(args: &SyncArgs, object: &Value, pair: &Pair) -> Result<(), Failure> {
    let of = object.pointer("/metadata/annotations").and_then(|all| all.get(OF)?.as_str());
    let place = format!("{}/{}", pair.namespace, pair.object);
    match of {
        Some(of) if of == pair.name => Ok(()),
        Some(of) => {
            let problem = printable(&format!("the Secret {place} follows {of}; delete it first"));
            Err(Failure::Usage(problem))
        }
        None if args.adopt => Ok(()),
        None => Err(Failure::Usage(format!(
            "the Secret {place} was made by somebody else; --adopt takes it over"
        ))),
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The value as a Secret has it: names, and values in base64.
fn data(read: &SecretValueReply, key: &str) -> Result<Map<String, Value>, Failure> {
    let mut data = Map::new();
    let mut put = |name: &str, value: &SecretBase64| {
        let is_good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if !(1..=253).contains(&name.len()) || !name.bytes().all(is_good) {
            let problem = "cannot be a name in a Kubernetes Secret (A-Z a-z 0-9 - . _)";
            return Err(Failure::Usage(printable(&format!("the field {name} {problem}"))));
        }
        let encoded = value.0.expose(|bytes| output::encode(bytes, Encoding::Base64));
        let encoded = String::from_utf8_lossy(encoded.trim_ascii_end()).into_owned();
        data.insert(name.to_owned(), Value::String(encoded));
        Ok(())
    };
    if let Some(value) = &read.value {
        put(key, value)?;
    }
    for (name, value) in read.fields.iter().flatten() {
        put(name, value)?;
    }
    Ok(data)
}

/// Says what the copies cost.
fn tell_cost(written: &[Written]) {
    let (count, len) = (written.iter().filter(|one| one.len > 0).count(), lens(written));
    output::note(&format!(
        "{count} Secrets with {len} bytes are in etcd now, once more with each change until it is \
         compacted, and in its backups. Whoever may read Secrets of those namespaces reads them; \
         `lastkey etcd verify` says whether they lie encrypted. Volumes need none of that"
    ));
}

fn lens(written: &[Written]) -> usize {
    written.iter().map(|one| one.len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::RemoteEnd;

    #[test]
    fn pair_is_a_secret_and_an_object() {
        let pair: Pair = "prod/a=b=shop/db".parse().unwrap();
        assert_eq!(
            (&*pair.name, &*pair.path()),
            ("prod/a=b", "/api/v1/namespaces/shop/secrets/db")
        );
        for bad in ["", "a", "a=b", "=n/s", "a=/s", "a=n/", "a=n/S", "a=n/../s", "a=n/s?x=1"] {
            assert!(bad.parse::<Pair>().is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_count_while_nothing_is_allowed() {
        let denied = || Failure::Remote { said: String::new(), end: RemoteEnd::Denied };
        let away = || Failure::unreachable(String::new());
        let turn = |failed, done| Turn { failed, done, written: 0 };
        assert_eq!(turn(Some(denied()), 0).refusals_after(2), 3);
        assert_eq!(turn(Some(away()), 0).refusals_after(2), 2);
        // One that is refused among others that are not.
        assert_eq!(turn(Some(denied()), 1).refusals_after(2), 0);
        assert_eq!(turn(None, 0).refusals_after(2), 0);
    }

    #[test]
    fn turn_that_found_nothing_to_do_is_not_followed_by_another_at_once() {
        for (failed, written, expected) in [(false, 0, true), (false, 1, false), (true, 0, false)] {
            let failed = failed.then(|| Failure::unreachable(String::new()));
            assert_eq!(Turn { failed, done: 1, written }.was_for_nothing(), expected);
        }
    }

    #[test]
    fn change_is_made_of_what_was_looked_at_and_keeps_what_others_wrote() {
        let there = json!({ "metadata": { "resourceVersion": "7", "annotations": { "x": "y" } } });
        let change = patch(&there, &json!({ OF: "a" }), Map::new());
        assert_eq!(change[0]["value"], "7");
        assert_eq!(change[1]["value"], json!({ "x": "y", OF: "a" }));
    }
}
