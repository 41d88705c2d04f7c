//! `etcd verify`: what is in the clear, under which key the rest is, and whether it opens.
//!
//! Room      `lastkey`.
//! Holds     One page of objects is in memory. An object that is opened is wiped at once; of it
//!           only that it opened is told.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lastkey_checks::{
    coverage::{Coverage, CoverageReport, Expected, Requirement, Residue, Sealed, SeedId},
    report::{html, junit, sarif},
    snapshot::stored::{SourceType, prefix},
};
use lastkey_crypto::kubernetes::{SourceKind, open_object};
use lastkey_secret::SecretArray;
use serde::Serialize;

use super::{
    by_server::ByServer,
    plugin::Plugin,
    report,
    source::{MAX_ATTEMPTS, Next, Source, SourceArgs, Stored, scan_log, too_slow},
};
use crate::cli::{
    args::{ConnectionArgs, Format, OutArgs, OutputForm},
    failure::{Failure, printable},
    output,
    session::Session,
    table::grid,
};

/// Arguments of `etcd verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// How far to go: count, unwrap each distinct seed, or decrypt every object in memory
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "count")]
    level: Level,
    /// Socket of the KMS plugin that unwraps seeds; its key id is then the current one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Have the server unwrap what a plugin would be asked for; the newest write tells the current
    /// key id then, or --key-id
    #[arg(long, conflicts_with = "socket")]
    by_server: bool,
    /// Name of the cluster, where the plugin was told one
    #[arg(long, value_name = "NAME", default_value = "", requires = "by_server")]
    cluster: String,
    /// Name of a provider whose objects are current (repeatable)
    #[arg(long, value_name = "NAME")]
    provider: Vec<String>,
    /// Key id that is current (repeatable)
    #[arg(long, value_name = "ID")]
    key_id: Vec<String>,
    /// Resource that has to be encrypted beside secrets: configmaps, deployments.apps; * for all
    /// (repeatable). One of which etcd has nothing proves nothing, and is exit code 1 where
    /// something is required
    #[arg(long, value_name = "RESOURCE")]
    resource: Vec<String>,
    /// Look for old values too: in history, in free pages of the database (over --endpoints that
    /// of the member that answers), and with --wal in the write-ahead log
    #[arg(long)]
    residue: bool,
    /// Folder of etcd's write-ahead log: member/wal in its data directory
    #[arg(long, value_name = "DIR", requires = "residue")]
    wal: Option<PathBuf>,
    /// What has to hold, such as clear=0,stale=0; else exit code 1
    #[arg(long, value_name = "NAME=MOST", value_delimiter = ',')]
    require: Vec<Requirement>,
    /// Tell the service that PLACE, such as a cluster, holds what was counted under versions of
    /// its keys: they are not destroyed then. Needs a server and a credential
    #[arg(long, value_name = "PLACE")]
    report: Option<String>,
    /// Key of which the report tells also when nothing is under it any more (repeatable)
    #[arg(long, value_name = "KEY", requires = "report")]
    report_key: Vec<String>,
    #[command(flatten)]
    out: OutArgs,
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    Count,
    Unwrap,
    Decrypt,
}

/// Reads all, prints the report, and ends by what was required.
pub(crate) async fn verify(
    args: &VerifyArgs,
    connection: &ConnectionArgs,
    form: OutputForm,
) -> Result<(), Failure> {
    check(args)?;
    let session = Session::new(connection.clone(), Format::default());
    let mut opener = Opener::of(args, &session).await?;
    let mut source = args.source.open(args.residue).await?;
    let counted = read(args, &mut source, &mut opener).await?;
    let mut expected = Expected {
        providers: args.provider.clone(),
        key_ids: args.key_id.clone(),
        resources: args.resource.clone(),
    };
    expected.key_ids.extend(opener.and_then(|opener| opener.current));
    let mut report = counted.now.report(&expected);
    if report.resources.is_empty() {
        let registry = &args.source.registry;
        let advice =
            format!("nothing is below {registry}: is this the API server's --etcd-prefix?");
        return Err(Failure::Input(advice));
    }
    let revision = source.revision();
    if let Source::File(database) = source
        && args.residue
    {
        let registry = &args.source.registry;
        let (mut pages, mut log) = (Coverage::new(registry), Coverage::new(registry));
        database.scan_free_pages(registry, &mut pages)?;
        if let Some(folder) = &args.wal {
            scan_log(folder, registry, &mut log)?;
        }
        let pinned = report.pinned();
        let totals = |coverage: Coverage| coverage.report(&pinned).totals;
        report.residue = Some(Residue {
            history: totals(counted.old),
            free_pages: totals(pages),
            wal: args.wal.as_ref().map(|_| totals(log)),
        });
    }
    let broken = args.require.iter().filter_map(|r| r.broken(&report)).collect();
    let told = Told { place: args.source.place(), revision, report, broken };
    output::write_by(&args.out, |out| told.write(form, out))?;
    if let Some(place) = &args.report {
        report::send(place, &args.report_key, &told.report, &session).await?;
    }
    told.end(!args.require.is_empty())
}

/// Refuses what could only be answered by what was not asked for.
fn check(args: &VerifyArgs) -> Result<(), Failure> {
    let needs_plugin =
        args.level != Level::Count || args.require.iter().any(Requirement::needs_plugin);
    let has_one = args.socket.is_some() || args.by_server;
    if needs_plugin && (!has_one || args.level == Level::Count) {
        let advice = "seeds are unwrapped by a plugin or the server: give --socket PATH or --by-server, and --level unwrap";
        return Err(Failure::Usage(advice.to_owned()));
    }
    if args.require.iter().any(Requirement::needs_residue) && !args.residue {
        return Err(Failure::Usage("old values are looked for with --residue".to_owned()));
    }
    Ok(())
}

/// What was counted.
struct Counted {
    /// Objects that are there.
    now: Coverage,
    /// What was there before them.
    old: Coverage,
    /// Seeds that were asked for, and what the plugin gave. INVARIANT: each is counted in `now`,
    /// so both begin anew together.
    seeds: Seeds,
}

type Seeds = HashMap<SeedId, Option<SecretArray<32>>>;

impl Counted {
    fn new(registry: &str) -> Self {
        let (now, old) = (Coverage::new(registry), Coverage::new(registry));
        Self { now, old, seeds: Seeds::new() }
    }
}

async fn read(
    args: &VerifyArgs,
    source: &mut Source,
    opener: &mut Option<Opener>,
) -> Result<Counted, Failure> {
    let mut counted = Counted::new(&args.source.registry);
    let mut attempts = 1;
    loop {
        match source.next().await? {
            Next::End => return Ok(counted),
            Next::Anew if attempts == MAX_ATTEMPTS => return Err(too_slow()),
            Next::Anew => {
                attempts += 1;
                counted = Counted::new(&args.source.registry);
            }
            Next::Objects(objects) => {
                for object in &objects {
                    take(object, &mut counted, opener).await?;
                }
            }
        }
    }
}

async fn take(
    object: &Stored,
    counted: &mut Counted,
    opener: &mut Option<Opener>,
) -> Result<(), Failure> {
    let coverage = if object.is_old { &mut counted.old } else { &mut counted.now };
    let sealed = coverage
        .take(&object.path, &object.value, object.revision)
        .map_err(|error| Failure::Input(error.to_string()))?;
    match (sealed, opener) {
        (Some(sealed), Some(opener)) if opener.level != Level::Count && !object.is_old => {
            opener.open(object, &sealed, coverage, &mut counted.seeds).await
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// Opens objects by seeds that somebody unwraps, each seed once.
struct Opener {
    unwraps: Unwraps,
    level: Level,
    /// The plugin's key id.
    current: Option<String>,
}

/// Who unwraps seeds.
enum Unwraps {
    Plugin(Plugin),
    Server(ByServer),
}

impl Opener {
    async fn of(args: &VerifyArgs, session: &Session) -> Result<Option<Self>, Failure> {
        let level = args.level;
        if let Some(path) = &args.socket {
            let mut plugin = Plugin::connect(path).await?;
            let current = Some(plugin.key_id().await?);
            return Ok(Some(Self { unwraps: Unwraps::Plugin(plugin), level, current }));
        }
        if !args.by_server {
            return Ok(None);
        }
        let unwraps = Unwraps::Server(ByServer::new(session, &args.cluster)?);
        Ok(Some(Self { unwraps, level, current: None }))
    }

    async fn open(
        &mut self,
        object: &Stored,
        sealed: &Sealed<'_>,
        coverage: &mut Coverage,
        seeds: &mut Seeds,
    ) -> Result<(), Failure> {
        // INVARIANT: what `Coverage::take` answered as sealed has a prefix.
        let provider = prefix(&object.value).map(|prefix| prefix.name).unwrap_or_default();
        let key_id = sealed.object.key_id;
        if let Entry::Vacant(place) = seeds.entry(sealed.seed) {
            let seed = match &mut self.unwraps {
                Unwraps::Plugin(plugin) => plugin.unwrap_seed(&sealed.object).await?,
                Unwraps::Server(server) => server.unwrap_seed(&sealed.object).await?,
            };
            coverage.unwrapped(provider, key_id, seed.is_some());
            place.insert(seed);
        }
        if self.level == Level::Decrypt
            && let Some(Some(seed)) = seeds.get(&sealed.seed)
        {
            let kind = match sealed.object.source_type {
                SourceType::Key => SourceKind::Key,
                SourceType::Seed => SourceKind::Seed,
            };
            let opened = open_object(kind, seed, &object.path, sealed.object.data);
            coverage.opened(provider, key_id, opened.is_ok());
        }
        Ok(())
    }
}

/// What was found, and where.
#[derive(Serialize)]
struct Told {
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(flatten)]
    report: CoverageReport,
    /// Requirements that do not hold.
    broken: Vec<String>,
}

impl Told {
    /// Says what does not hold. Of a resource that is named wrong etcd has nothing, which proves
    /// nothing: where something is required, it does not hold.
    fn end(&self, is_required: bool) -> Result<(), Failure> {
        self.broken.iter().for_each(|words| output::note(words));
        let missing = &self.report.missing;
        for name in missing {
            let name = printable(name);
            output::note(&format!("nothing in etcd is of {name}: that proves nothing of it"));
        }
        let is_proven = self.broken.is_empty() && (missing.is_empty() || !is_required);
        if is_proven { Ok(()) } else { Err(Failure::Found) }
    }

    fn write(&self, form: OutputForm, out: &mut dyn io::Write) -> io::Result<()> {
        let findings = || self.report.findings(&self.place, "lastkey etcd verify", crate::VERSION);
        match form {
            OutputForm::Table => out.write_all(self.table().as_bytes()),
            OutputForm::Json => {
                serde_json::to_writer_pretty(&mut *out, self)?;
                writeln!(out)
            }
            OutputForm::Sarif => sarif(&findings(), out),
            OutputForm::Junit => junit(&findings(), out),
            OutputForm::Html => html(&findings(), out),
        }
    }

    fn table(&self) -> String {
        let report = &self.report;
        let required = report.resources.iter().filter(|row| row.required).map(|row| {
            let counts = &row.counts;
            let numbers = [
                counts.objects,
                counts.clear,
                counts.other,
                counts.old,
                counts.damaged,
                counts.current,
            ];
            let numbers = numbers.iter().map(u64::to_string);
            std::iter::once(row.resource.clone()).chain(numbers).collect()
        });
        let header = ["RESOURCE", "OBJECTS", "CLEAR", "OTHER", "OLD", "DAMAGED", "CURRENT"];
        let mut text = grid(&header, required);
        let keys = report.keys.iter().map(|key| {
            vec![
                key.provider.clone(),
                key.key_id.clone(),
                key.objects.to_string(),
                key.seeds.to_string(),
                self.opened(key.unwrapped, key.refused),
                self.opened(key.opened, key.not_opened),
                if key.current { "current".to_owned() } else { "old".to_owned() },
            ]
        });
        let header = ["PROVIDER", "KEY ID", "OBJECTS", "SEEDS", "UNWRAPPED", "DECRYPTED", "STATE"];
        text.push('\n');
        text.push_str(&grid(&header, keys));
        text.push_str(&self.remarks());
        text
    }

    /// `12 of 13`; a dash where nobody tried.
    fn opened(&self, good: u64, bad: u64) -> String {
        if good + bad == 0 { "-".to_owned() } else { format!("{good} of {}", good + bad) }
    }

    fn remarks(&self) -> String {
        let report = &self.report;
        let mut text = format!("\nRead from {}", self.place);
        if let Some(revision) = self.revision {
            text.push_str(&format!(" at revision {revision}"));
        }
        let by = match report.current_by {
            "named" => "the key ids that were named",
            _ => "the newest write under each provider",
        };
        text.push_str(&format!(". Current is told by {by}.\n"));
        if let Some(residue) = &report.residue {
            text.push_str(&residue_in_words(residue));
        }
        let rest: Vec<_> = report.resources.iter().filter(|row| !row.required).collect();
        if !rest.is_empty() {
            let objects: u64 = rest.iter().map(|row| row.counts.objects).sum();
            let names: Vec<&str> = rest.iter().take(6).map(|row| row.resource.as_str()).collect();
            let more = if rest.len() > names.len() { ", ..." } else { "" };
            text.push_str(&format!(
                "In the clear and not required: {objects} objects of {} resources ({}{more}).\n",
                rest.len(),
                names.join(", ")
            ));
        }
        text
    }
}

fn residue_in_words(residue: &Residue) -> String {
    let parts = [
        ("older revisions", Some(residue.history)),
        ("free pages", Some(residue.free_pages)),
        ("write-ahead log", residue.wal),
    ];
    let rows = parts.iter().map(|(name, totals)| match totals {
        None => [*name, "-", "-", "-", "-"].map(str::to_owned).to_vec(),
        Some(totals) => {
            let numbers = [totals.clear, totals.other, totals.old, totals.damaged];
            let numbers = numbers.map(|count| count.to_string());
            std::iter::once((*name).to_owned()).chain(numbers).collect()
        }
    });
    let mut text =
        "\n".to_owned() + &grid(&["OLD VALUES IN", "CLEAR", "OTHER", "OLD", "DAMAGED"], rows);
    if residue.count() > 0 {
        text.push_str(
            "They go in this order: etcdctl compact REVISION (the API server compacts every five\n\
             minutes); etcdctl defrag on each member; the write-ahead log rolls away by snapshots\n\
             of etcd; backups that hold them. Only then destroy the old key.\n",
        );
    }
    text
}
