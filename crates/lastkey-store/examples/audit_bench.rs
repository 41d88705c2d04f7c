//! Measures the audit log on the disk of a directory: `audit_bench DIR [RECORDS]`, a million by
//! default.
//!
//! Room      `store`. `make bench` runs it. Building is the whole way of a record: encoded, salted,
//!           written, synced with others, put into the tree, its tiles and a signed checkpoint.
//!           Checking is what `lastkey audit verify --offline` does.
//! Holds     processor time is that of all threads, and of the kernel for them.

use std::path::Path;
use std::time::{Duration, Instant};

use lastkey_core::audit::archive::LogSigners;
use lastkey_core::audit::note::{KeyKind, NoteSigner};
use lastkey_core::audit::{Event, Phase};
use lastkey_core::ids::{KeyId, RequestId, VersionNo};
use lastkey_core::ports::{Audit as _, AuditArchive as _, Cause};
use lastkey_core::principal::{Principal, Source};
use lastkey_core::time::Timestamp;
use lastkey_secret::SecretArray;
use lastkey_store::audit_log::verify::{LogDir, verify};
use lastkey_store::audit_log::{AuditError, AuditLog, AuditOptions, Durability};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: audit_bench DIR [RECORDS]")?;
    let records = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let dir = std::path::absolute(Path::new(&dir))?.join("audit-bench");
    let measured = measure(&dir, records).await;
    std::fs::remove_dir_all(&dir)?;
    measured
}

async fn measure(dir: &Path, records: u64) -> Outcome<()> {
    let options = AuditOptions {
        durability: Durability::Batched,
        retention: Duration::MAX,
        ..AuditOptions::default()
    };
    let signers = signers()?;
    let key = signers.log.key().clone();
    let before = cpu_time();
    let log = AuditLog::open(dir, options)?;
    log.unsealed(signers).await?;
    build(&log, records)?;
    log.checkpoint().await?;
    drop(log);
    let each = (cpu_time() - before) * 1e9 / records as f64;
    println!("audit.cpu_ns_a_record {each:.0}");

    let begun = Instant::now();
    let found = verify(&LogDir(dir.to_owned()), &[key], |_| ())?;
    if found.checkpoint.size < records {
        return Err("records are missing".into());
    }
    let rate = found.checkpoint.size as f64 / begun.elapsed().as_secs_f64();
    println!("audit.verified_per_second {rate:.0}");
    Ok(())
}

/// Hands the log as many records as it takes at a time.
fn build(log: &AuditLog, records: u64) -> Outcome<()> {
    let who = Principal::named("k8s:prod/payments/api");
    let mut taken = 0;
    while taken < records {
        let event = Event {
            at: Timestamp(1_795_000_000),
            request: RequestId(u128::from(taken).to_be_bytes()),
            who: &who,
            action: "kms:Decrypt",
            phase: Phase::Whole,
            key: Some(KeyId::from_random([1; 16])),
            version: VersionNo::new(3),
            context_hash: Some([2; 32]),
            result: "ok",
            reason: "allowed by role.payments#1",
            source: Source { address: Some([10, 1, 2, 3].into()), by_node_agent: false },
            target: None,
        };
        match log.append(&event) {
            Ok(()) => taken += 1,
            // It takes no more until it has written what it has.
            Err(cause) if is_behind(&cause) => std::thread::sleep(Duration::from_millis(1)),
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

fn is_behind(cause: &Cause) -> bool {
    matches!(cause.downcast_ref(), Some(AuditError::Behind))
}

fn signers() -> Outcome<LogSigners> {
    let by =
        |name, kind, seed| NoteSigner::from_seed(name, kind, &SecretArray::copy_of(&[seed; 32]));
    Ok(LogSigners {
        log: by("lastkey/bench", KeyKind::Ed25519, 1)?,
        witness: by("lastkey/bench/witness", KeyKind::Cosignature, 2)?,
    })
}

/// Processor time of this process, in seconds.
fn cpu_time() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
