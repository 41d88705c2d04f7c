//! Where objects are read from: a running etcd, or a file of it.
//!
//! Room      `lastkey`.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use clap::Args;
use lastkey_checks::{
    coverage::{Coverage, REGISTRY, ScanError, scan},
    snapshot::etcd::{EtcdError, Revisions},
};
use zeroize::Zeroizing;

use super::{
    connect,
    live::{Live, Page, download},
};
use crate::cli::failure::Failure;

/// Which etcd.
#[derive(Args, Debug)]
pub(super) struct SourceArgs {
    /// Addresses of etcd; the first that answers is read
    #[arg(
        long,
        value_name = "URL[,URL]",
        value_delimiter = ',',
        required_unless_present = "snapshot",
        conflicts_with = "snapshot"
    )]
    endpoints: Vec<String>,
    /// A snapshot of etcd, or its database file while etcd is stopped
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// PEM file with the authority of etcd's certificate, as for etcdctl
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// PEM file with a certificate that etcd lets in
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The API server's --etcd-prefix
    #[arg(long, value_name = "PREFIX", default_value = REGISTRY)]
    pub(super) registry: String,
}

/// How often reading begins anew because etcd compacted the revision away.
pub(super) const MAX_ATTEMPTS: usize = 5;

/// What is said then.
pub(super) fn too_slow() -> Failure {
    Failure::Input("etcd compacts faster than it can be read; verify a snapshot".to_owned())
}

/// One stored object. Its value may be a Secret in the clear: it is wiped.
pub(super) struct Stored {
    pub(super) path: Vec<u8>,
    pub(super) value: Zeroizing<Vec<u8>>,
    pub(super) revision: u64,
    /// Whether it was replaced or deleted since; such are read with `--residue` alone.
    pub(super) is_old: bool,
}

/// An open source.
pub(super) enum Source {
    Live(Box<Live>),
    File(Box<Database>),
}

/// A database file of etcd.
pub(super) struct Database {
    revisions: Revisions<BufReader<File>>,
    name: String,
    with_old: bool,
}

/// What a source gives next.
pub(super) enum Next {
    Objects(Vec<Stored>),
    /// What was given so far does not count.
    Anew,
    End,
}

impl SourceArgs {
    /// Refuses a file where only a running etcd will do.
    pub(super) fn only_live(&self) -> Result<(), Failure> {
        if self.snapshot.is_none() {
            return Ok(());
        }
        Err(Failure::Usage("a file cannot be rewritten: give --endpoints".to_owned()))
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        match &self.snapshot {
            Some(path) => path.display().to_string(),
            None => "etcd".to_owned(),
        }
    }

    /// Opens it; with `with_old` a running etcd's whole database is taken, old values included.
    pub(super) async fn open(&self, with_old: bool) -> Result<Source, Failure> {
        if let Some(path) = &self.snapshot {
            let file = File::open(path)
                .map_err(|cause| Failure::io(format!("open {}", path.display()), cause))?;
            return database(file, path.display().to_string(), with_old);
        }
        let tls = match &self.cacert {
            None => None,
            Some(authority) => {
                let identity = self.cert.as_deref().zip(self.key.as_deref());
                Some(connect::tls(authority, identity)?)
            }
        };
        let mut last = None;
        for endpoint in &self.endpoints {
            match connect::tcp(endpoint, tls.as_ref()).await {
                Ok(client) if with_old => {
                    let file = download(client, endpoint).await?;
                    return database(file, endpoint.clone(), with_old);
                }
                Ok(client) => {
                    let registry = self.registry.trim_end_matches('/');
                    return Ok(Source::Live(Box::new(Live::new(client, endpoint, registry))));
                }
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.unwrap_or_else(|| Failure::Usage("--endpoints names none".to_owned())))
    }
}

fn database(file: File, name: String, with_old: bool) -> Result<Source, Failure> {
    let revisions = Revisions::open(BufReader::new(file))
        .map_err(|error| Failure::Input(format!("{name}: {error}")))?;
    Ok(Source::File(Box::new(Database { revisions, name, with_old })))
}

impl Source {
    /// Newest values of keys that are there.
    pub(super) async fn next(&mut self) -> Result<Next, Failure> {
        match self {
            Self::File(database) => database.next(),
            Self::Live(live) => Ok(match live.next_page().await? {
                Page::End => Next::End,
                Page::Compacted => Next::Anew,
                Page::Of(pairs) => Next::Objects(
                    pairs
                        .into_iter()
                        .map(|mut pair| Stored {
                            path: std::mem::take(&mut pair.key),
                            value: Zeroizing::new(std::mem::take(&mut pair.value)),
                            revision: pair.mod_revision.unsigned_abs(),
                            is_old: false,
                        })
                        .collect(),
                ),
            }),
        }
    }

    /// The revision that is read; none for a file, which holds its last one.
    pub(super) fn revision(&self) -> Option<i64> {
        match self {
            Self::Live(live) => Some(live.revision()),
            Self::File(_) => None,
        }
    }
}

impl Database {
    fn next(&mut self) -> Result<Next, Failure> {
        let (mut objects, with_old) = (Vec::new(), self.with_old);
        let is_there = self
            .revisions
            .next_page(&mut |revision| {
                if !revision.is_deletion && (revision.is_newest || with_old) {
                    objects.push(Stored {
                        path: revision.record.key.to_vec(),
                        value: Zeroizing::new(revision.record.value.to_vec()),
                        revision: revision.record.revision,
                        is_old: !revision.is_newest,
                    });
                }
            })
            .map_err(|error| Failure::Input(format!("{}: {error}", self.name)))?;
        Ok(if is_there { Next::Objects(objects) } else { Next::End })
    }

    /// Counts what lies in pages to which nothing leads; only after all was read.
    pub(super) fn scan_free_pages(
        self,
        registry: &str,
        found: &mut Coverage,
    ) -> Result<(), Failure> {
        self.revisions
            .free_pages(&mut |pages| Ok(scan(pages, registry, found)?))
            .map_err(|error: Unsearched| Failure::Input(format!("{}: {error}", self.name)))
    }
}

/// Why free pages could not be searched.
#[derive(Debug, thiserror::Error)]
enum Unsearched {
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// Counts what lies in the files of a write-ahead log.
pub(super) fn scan_log(folder: &Path, registry: &str, found: &mut Coverage) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let doing = format!("read {}", path.display());
        move |cause| Failure::io(doing, cause)
    };
    let mut is_empty = true;
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            is_empty = false;
            let mut file = File::open(&path).map_err(failed(&path))?;
            scan(&mut file, registry, found)
                .map_err(|error| Failure::Input(format!("{}: {error}", path.display())))?;
        }
    }
    if is_empty {
        let advice = format!("{} holds no .wal files: name member/wal", folder.display());
        return Err(Failure::Input(advice));
    }
    Ok(())
}
