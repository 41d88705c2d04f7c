//! Measures a backup of a store and its trial restore: `backup_bench DIR [RECORDS]`.
//!
//! Room      `store`. Prints a figure on each line: seconds, and how much memory grew.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lastkey_core::audit::archive::LogSigners;
use lastkey_core::audit::note::{KeyKind, NoteSigner};
use lastkey_core::audit::{Event, Phase};
use lastkey_core::backup::{BackupHead, BackupOrder, BackupPlace, Backups as _, Stop, Trial};
use lastkey_core::ids::RequestId;
use lastkey_core::ports::{
    Audit as _, AuditArchive as _, EntropySource, Expected, SealedStore as _, Store, Write,
};
use lastkey_core::principal::{Principal, Source};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::time::{Elapsed, Timestamp};
use lastkey_crypto::entropy::{Entropy, SystemEntropy};
use lastkey_secret::SecretArray;
use lastkey_store::SqliteSealedStore;
use lastkey_store::audit_log::{AuditLog, AuditOptions};
use lastkey_store::backup::DataBackups;
use lastkey_testkit::fixtures;

type Anyhow<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct SystemSource;

impl EntropySource for SystemSource {
    fn open(&self) -> Box<dyn Entropy + Send> {
        Box::new(SystemEntropy)
    }
}

fn signers() -> Anyhow<LogSigners> {
    let name = format!("lastkey/{}", fixtures::bootstrap().instance.id);
    let seed = SecretArray::copy_of(&[1; 32]);
    let witness = format!("{name}/witness");
    Ok(LogSigners {
        log: NoteSigner::from_seed(&name, KeyKind::Ed25519, &seed)?,
        witness: NoteSigner::from_seed(&witness, KeyKind::Cosignature, &seed)?,
    })
}

/// 400 bytes or so, as a version of a key with its wrapped material and public half has.
fn put(number: u64) -> Write {
    let mut version = fixtures::key_version(number, 1);
    version.public_key = Some(vec![0x30; 200]);
    let path = RecordPath::version(version.key, version.number);
    Write { path, expected: Expected::Absent, record: Some(Record::Version(version)) }
}

async fn fill(store: &Arc<dyn Store>, count: u64) -> Anyhow<()> {
    for start in (0..count).step_by(10_000) {
        store.commit((start..(start + 10_000).min(count)).map(put).collect()).await?;
    }
    Ok(())
}

async fn record_one(log: &AuditLog) -> Anyhow<()> {
    let event = Event {
        at: Timestamp(1),
        request: RequestId([7; 16]),
        who: &Principal::named("p"),
        action: "kms:Encrypt",
        phase: Phase::Whole,
        key: None,
        version: None,
        context_hash: None,
        result: "ok",
        reason: "",
        source: Source::default(),
        target: None,
    };
    log.append_durably(&event).await
}

/// The most memory that this process has had since the mark, in MiB.
fn peak_memory() -> Anyhow<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1_024.0)
}

#[tokio::main]
async fn main() -> Anyhow<()> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().ok_or("usage: backup_bench DIR [RECORDS]")?;
    let records: u64 = args.next().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(1_000_000);
    let dir = std::path::absolute(Path::new(&dir))?.join("backup-bench");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let data = dir.join("data");
    let sealed = Arc::new(SqliteSealedStore::open_dir(&data, Arc::new(SystemSource))?);
    sealed.initialise(&fixtures::bootstrap()).await?;
    fill(&sealed.open(fixtures::record_keys(&[1]))?, records).await?;
    let log = AuditLog::open(&data.join("audit"), AuditOptions::KEEP_ALL)?;
    log.unsealed(signers()?).await?;
    record_one(&log).await?;
    let backups = DataBackups::of(sealed, Arc::new(log), &data, Arc::new(SystemSource));

    // Resets the peak, see proc_pid_clear_refs(5).
    fs::write("/proc/self/clear_refs", "5")?;
    let before = peak_memory()?;
    let began = Instant::now();
    let directory = Some(dir.join("to").display().to_string());
    let frozen = backups.freeze(directory.as_deref()).await?;
    let head = BackupHead {
        id: RequestId([7; 16]),
        begun_at: Timestamp(1),
        begun: Elapsed(1),
        commit: frozen.commit(),
        bootstrap: frozen.bootstrap()?,
        wrapped: Vec::new(),
    };
    let (key, stop) = (SecretArray::copy_of(&[9; 32]), Stop::default());
    let place = BackupPlace { directory, name: "one.backup".to_owned() };
    let trial_key = SecretArray::copy_of(&[9; 32]);
    let signer = signers()?.log;
    let log_key = signer.key().clone();
    let order = BackupOrder { head, key, signer, place: place.clone(), stop: stop.clone() };
    let expected = frozen.write(order).await?;
    println!("backup.made_s {:.3}", began.elapsed().as_secs_f64());
    println!("backup.made_mib {:.1}", expected.len as f64 / 1_048_576.0);
    println!("backup.memory_mib {:.1}", peak_memory()? - before);
    let began = Instant::now();
    let records = fixtures::record_keys(&[1]);
    backups.prove(Trial { place, key: trial_key, records, log_key, expected, stop }).await?;
    println!("backup.proven_s {:.3}", began.elapsed().as_secs_f64());
    println!("backup.proven_memory_mib {:.1}", peak_memory()? - before);
    fs::remove_dir_all(&dir)?;
    Ok(())
}
