//! `etcd rewrite`: every object that is not sealed as a new write would be is written once more.
//!
//! Room      `lastkey`. etcd says which objects; the cluster migrates them where it can, else the
//!           API server is asked to write each.
//! Holds     Nothing is written before every API server has told that it knows the current key:
//!           one that does not would seal under the old one. A patch changes nothing, and only
//!           metadata is asked for: no value comes here. What is done stays done, so a second run
//!           goes on where the first one ended. etcd has the last word on what is left.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use lastkey_checks::coverage::{is_current, key_id_hash};
use lastkey_kube::{Cluster, Form, KubeError};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    migration::{Ended, Migrations},
    plugin::Plugin,
    resource::{Resource, Served},
    source::{MAX_ATTEMPTS, Next, SourceArgs, too_slow},
};
use crate::cli::{
    args::{OutputForm, Span},
    failure::{Failure, RemoteEnd, printable},
    kubernetes::{self, refused},
    output,
    progress::CountProgress,
    signals::Interrupts,
};

/// Arguments of `etcd rewrite`.
#[derive(Args, Debug)]
pub(crate) struct RewriteArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Socket of the KMS plugin: its key id is the current one
    #[arg(long, value_name = "PATH", required_unless_present = "key_id")]
    socket: Option<PathBuf>,
    /// Key id that is current (repeatable)
    #[arg(long, value_name = "ID")]
    key_id: Vec<String>,
    /// Resource to rewrite: secrets, widgets.example.com (repeatable)
    /// [default: secrets and configmaps]
    #[arg(long, value_name = "RESOURCE")]
    resource: Vec<Resource>,
    /// How the API server is reached
    #[arg(long, value_name = "FILE", env = "KUBECONFIG", hide_env_values = true)]
    kubeconfig: PathBuf,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Every API server by its own address, such as https://10.0.0.1:6443
    /// [default: those that the cluster names for the service kubernetes]
    #[arg(long, value_name = "URL[,URL]", value_delimiter = ',')]
    api_server: Vec<String>,
    /// How long to wait until every API server knows the current key
    #[arg(long, value_name = "TIME", default_value = "5m")]
    wait: Span,
    /// What writes the objects [default: a migration where the cluster has it, then patches of
    /// what is left]
    #[arg(long, value_enum, value_name = "WAY")]
    by: Option<By>,
    /// How long the cluster may take to begin with a migration
    #[arg(long, value_name = "TIME", default_value = "30s")]
    migration_wait: Span,
    /// Most patches in a second
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Only count what would be rewritten
    #[arg(long)]
    dry_run: bool,
}

/// What writes stale objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// A StorageVersionMigration for each resource, which the cluster carries out
    Migration,
    /// Patches that change nothing, of exactly the stale objects
    Patches,
}

/// An object that is not sealed as a new write would be.
struct Stale {
    /// Its resource, as a place in the list of those that are rewritten.
    served: usize,
    /// Its path in the API.
    path: String,
}

/// Between two counts of what a migration has left: a count reads all of etcd.
const COUNT_PERIOD: Duration = Duration::from_secs(10);
/// Most of the time nothing is counted.
const COUNT_SHARE: u32 = 10;
/// A migration that leaves as many objects for so long is not waited for. One of a quiet cluster
/// begins only after the next bookmark of a watch.
const STALLED: Duration = Duration::from_secs(300);

/// How often API servers are asked for the key that they know.
const ASK_PERIOD: Duration = Duration::from_secs(2);

/// Rewrites what is stale, and ends with exit code 1 when something is left.
pub(crate) async fn rewrite(args: &RewriteArgs, form: OutputForm) -> Result<(), Failure> {
    if form != OutputForm::Table {
        return Err(Failure::Usage(
            "`lastkey etcd verify` prints what is left in other forms".to_owned(),
        ));
    }
    args.source.only_live()?;
    let current = current(args).await?;
    let resources =
        if args.resource.is_empty() { Resource::secrets_like() } else { args.resource.clone() };
    let mut served = Vec::new();
    let cluster = connect(args, None)?;
    for resource in resources {
        served.push(Served::find(&cluster, resource).await.map_err(|error| refused(&error))?);
    }
    let stale = stale(args, &served, &current).await?;
    output::print(&format!("{} objects are not sealed under the current key\n", stale.len()))?;
    if stale.is_empty() || args.dry_run {
        return Ok(());
    }
    wait_until_known(args, &cluster, &current).await?;
    let mut interrupts = Interrupts::listen()?;
    let count = stale.len();
    let all = write_once_more(args, &cluster, (&served, &current), stale);
    let left = interrupts.or_outcome(all).await?;
    let done = count.saturating_sub(left.len());
    output::print(&format!("{done} rewritten, {} left\n", left.len()))?;
    if left.is_empty() {
        return Ok(());
    }
    for object in left.iter().take(5) {
        output::note(&format!("left: {}", printable(&object.path)));
    }
    Err(Failure::Found)
}

/// Has stale objects written, by the cluster where it can; answers what is left.
async fn write_once_more(
    args: &RewriteArgs,
    cluster: &Cluster,
    (served, current): (&[Served], &[String]),
    stale: Vec<Stale>,
) -> Result<Vec<Stale>, Failure> {
    let mut left = stale;
    if args.by != Some(By::Patches) {
        match Migrations::find(cluster).await.map_err(|error| refused(&error))? {
            Some(migrations) => {
                migrate(args, &migrations, (served, current), &left).await?;
                left = self::stale(args, served, current).await?;
            }
            None if args.by == Some(By::Migration) => return Err(no_migrations()),
            None => {}
        }
    }
    if args.by != Some(By::Migration) && !left.is_empty() {
        write_all(args, cluster, &left).await?;
        left = self::stale(args, served, current).await?;
    }
    Ok(left)
}

/// Has the cluster migrate each resource of which something is stale. Where that fails a person is
/// told why: patches can do the rest.
async fn migrate(
    args: &RewriteArgs,
    migrations: &Migrations<'_>,
    (served, current): (&[Served], &[String]),
    stale: &[Stale],
) -> Result<(), Failure> {
    let key = current.iter().map(|id| key_id_hash(id)).collect::<Vec<_>>().join(",");
    let patience = Duration::from_secs(args.migration_wait.seconds);
    let progress = CountProgress::new("migrating", stale.len() as u64);
    for (index, one) in served.iter().enumerate() {
        if stale.iter().all(|object| object.served != index) {
            continue;
        }
        let ended = tokio::select! {
            ended = migrations.carry_out(&one.resource, &key, patience, |text| progress.say(text)) => ended,
            stalled = until_stalled(args, (served, current), stale.len(), &progress) => Ok(stalled?),
        };
        match ended {
            Ok(ended) => ended.remark().into_iter().for_each(|remark| progress.say(&remark)),
            Err(error @ KubeError::Refused { .. }) if args.by.is_none() => {
                progress.say(&printable(&format!("no migration of {}: {error}", one.resource)));
            }
            Err(error) => return Err(refused(&error)),
        }
    }
    Ok(())
}

/// Shows how many objects are left, until that has not become less for long.
async fn until_stalled(
    args: &RewriteArgs,
    (served, current): (&[Served], &[String]),
    all: usize,
    progress: &CountProgress,
) -> Result<Ended, Failure> {
    let (mut least, mut moved, mut pause) = (all, Instant::now(), COUNT_PERIOD);
    loop {
        sleep(pause).await;
        let begin = Instant::now();
        let left = stale(args, served, current).await?.len();
        pause = COUNT_PERIOD.max(begin.elapsed() * COUNT_SHARE);
        progress.reach(all.saturating_sub(left) as u64);
        if left < least {
            (least, moved) = (left, Instant::now());
        } else if moved.elapsed() >= STALLED {
            return Ok(Ended::Stalled);
        }
    }
}

fn no_migrations() -> Failure {
    let said =
        "the API server serves no StorageVersionMigration; leave --by out, or give --by patches";
    Failure::Remote { said: said.to_owned(), end: RemoteEnd::Refused }
}

/// Key ids that are current.
async fn current(args: &RewriteArgs) -> Result<Vec<String>, Failure> {
    let mut current = args.key_id.clone();
    if let Some(path) = &args.socket {
        current.push(Plugin::connect(path).await?.key_id().await?);
    }
    Ok(current)
}

fn connect(args: &RewriteArgs, server: Option<&str>) -> Result<Cluster, Failure> {
    kubernetes::connect(&args.kubeconfig, args.context.as_deref(), server)
}

/// An API server that cannot be asked what it knows.
fn unasked(error: &KubeError) -> Failure {
    let Failure::Remote { said, end } = refused(error) else { return refused(error) };
    let advice = "nothing was rewritten; name addresses that can be reached with --api-server";
    Failure::Remote { said: format!("{said}; {advice}"), end }
}

/// Objects that are not sealed under a current key.
async fn stale(
    args: &RewriteArgs,
    served: &[Served],
    current: &[String],
) -> Result<Vec<Stale>, Failure> {
    let mut source = args.source.open(false).await?;
    let registry = args.source.registry.trim_end_matches('/');
    let (mut stale, mut attempts) = (Vec::new(), 1);
    loop {
        match source.next().await? {
            Next::End => return Ok(stale),
            Next::Anew if attempts == MAX_ATTEMPTS => return Err(too_slow()),
            Next::Anew => {
                attempts += 1;
                stale.clear();
            }
            Next::Objects(objects) => {
                for object in objects {
                    if is_current(&object.value, current) {
                        continue;
                    }
                    let mut each = served.iter().enumerate();
                    stale.extend(each.find_map(|(served, one)| {
                        let path = one.path(&object.path, registry)?;
                        Some(Stale { served, path })
                    }));
                }
            }
        }
    }
}

/// Waits until every API server has had the current key from its plugin, and none newer.
async fn wait_until_known(
    args: &RewriteArgs,
    cluster: &Cluster,
    current: &[String],
) -> Result<(), Failure> {
    let addresses = if args.api_server.is_empty() {
        addresses(cluster).await?
    } else {
        args.api_server.clone()
    };
    let hashes: Vec<String> = current.iter().map(|id| key_id_hash(id)).collect();
    let deadline = Instant::now() + Duration::from_secs(args.wait.seconds);
    for address in addresses {
        let server = connect(args, Some(&address))?;
        loop {
            let metrics = server.document("/metrics").await.map_err(|error| unasked(&error))?;
            if knows(&String::from_utf8_lossy(&metrics), &hashes) {
                break;
            }
            if Instant::now() >= deadline {
                let said = format!(
                    "{address} does not know the current key yet: its plugin, or the configuration of its encryption, is not the one that was named; nothing was rewritten"
                );
                return Err(Failure::Remote { said, end: RemoteEnd::Refused });
            }
            sleep(ASK_PERIOD).await;
        }
    }
    Ok(())
}

/// The addresses of all API servers, as they announce themselves: in this one object, which they
/// write together. Any other with its label may be somebody else's.
async fn addresses(cluster: &Cluster) -> Result<Vec<String>, Failure> {
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = cluster.get(path, Form::Whole).await.map_err(|error| refused(&error))?;
    let port = slice.pointer("/ports/0/port").and_then(Value::as_u64).unwrap_or(6443);
    let endpoints = slice.get("endpoints").and_then(Value::as_array);
    let mut found = Vec::new();
    for endpoint in endpoints.into_iter().flatten() {
        let hosts = endpoint.get("addresses").and_then(Value::as_array);
        found.extend(hosts.into_iter().flatten().filter_map(Value::as_str).map(|host| {
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            format!("https://{host}:{port}")
        }));
    }
    if found.is_empty() {
        let advice = "the cluster names no API servers; name each: --api-server https://HOST:6443";
        return Err(Failure::Usage(advice.to_owned()));
    }
    Ok(found)
}

/// Whether the newest key id that an API server had from a plugin is one of these. Plugins that
/// never told one of them only read, and do not count.
///
/// # Source
/// k8s.io/apiserver: storage/value/encrypt/envelope/metrics.
fn knows(metrics: &str, hashes: &[String]) -> bool {
    const NAME: &str = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{";
    // When each provider told one of these, and when another.
    let mut told: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with(NAME)) {
        let at = line.rsplit(' ').next().and_then(|at| at.parse::<f64>().ok());
        let (Some(hash), Some(at)) = (label(line, "key_id_hash"), at) else { continue };
        let provider = label(line, "provider_name").unwrap_or_default();
        let (known, other) = told.entry(provider).or_insert((f64::MIN, f64::MIN));
        let newest = if hashes.iter().any(|known| known == hash) { known } else { other };
        *newest = newest.max(at);
    }
    let mut told = told.values().filter(|(known, _)| *known > f64::MIN).peekable();
    told.peek().is_some() && told.all(|(known, other)| known >= other)
}

/// A label of a line of metrics.
fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// Patches objects one after the other.
async fn write_all(args: &RewriteArgs, cluster: &Cluster, stale: &[Stale]) -> Result<(), Failure> {
    let progress = CountProgress::new("rewriting", stale.len() as u64);
    let mut ticks = interval(Duration::from_secs(1) / args.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for Stale { path, .. } in stale {
        ticks.tick().await;
        match cluster.touch(path).await {
            Ok(()) => {}
            // Gone, or written by somebody else meanwhile: both are as good.
            Err(KubeError::Refused { status: 404 | 409, .. }) => {}
            Err(error @ KubeError::Refused { status: 401 | 403, .. }) => {
                return Err(refused(&error));
            }
            Err(error @ KubeError::Outbound(_)) => return Err(refused(&error)),
            Err(error) => progress.say(&printable(&format!("{path}: {error}"))),
        }
        progress.advance();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::knows;

    fn line(hash: &str, at: &str) -> String {
        format!(
            "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{{apiserver_id_hash=\"x\",key_id_hash=\"{hash}\",provider_name=\"p\"}} {at}\n"
        )
    }

    #[test]
    fn api_server_knows_a_key_when_nothing_newer_was_told() {
        let hashes = ["sha256:new".to_owned()];
        for (metrics, is_known) in [
            (String::new(), false),
            (line("sha256:old", "1.7e+09"), false),
            (line("sha256:new", "1.7e+09"), true),
            (line("sha256:old", "1.700000001e+09") + &line("sha256:new", "1.7e+09"), false),
            (line("sha256:old", "1.7e+09") + &line("sha256:new", "1.700000001e+09"), true),
            ("# ".to_owned() + &line("sha256:new", "1.7e+09"), false),
            (line("sha256:new", "soon"), false),
            // The plugin that is on its way out is asked as well, and later.
            (
                line("sha256:new", "1.7e+09")
                    + &line("sha256:old", "1.700000001e+09").replace("\"p\"", "\"vault\""),
                true,
            ),
        ] {
            assert_eq!(knows(&metrics, &hashes), is_known, "{metrics}");
        }
    }
}
