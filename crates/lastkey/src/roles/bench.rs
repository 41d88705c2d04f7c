//! `lastkey bench`: what this machine does, in this process, without a network.
//!
//! Room      the binary.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use lastkey_core::ids::{KeyRef, RequestId};
use lastkey_core::key::{Description, Tags};
use lastkey_core::outside::Nobody;
use lastkey_core::principal::{Caller, Principal, Source};
use lastkey_core::version::Origin;
use lastkey_crypto::blob::{self, BlobKey};
use lastkey_crypto::context::EncryptionContext;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::envelope::{EnvelopeOptions, Recipient};
use lastkey_crypto::material::{self, MaterialSpec};
use lastkey_crypto::sign::{Message, SignAlgorithm, SigningKey};
use lastkey_crypto::stream::encrypt_stream;
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_service::call::Call;
use lastkey_service::engine::{Engine, Ports};
use lastkey_service::ops;
use lastkey_service::sealing::{Gate, NewSeal, initialise};
use lastkey_store::MemorySealedStore;
use lastkey_store::audit_log::{AuditLog, AuditOptions, Durability};
use rustix::time::{ClockId, clock_gettime};

use crate::adapters::{MachineClock, SystemEntropySource};
use crate::say;

/// Measures what this machine does, by processor time: what one core does when it does nothing
/// else.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds for each row.
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    seconds: u64,
    /// Where the audit log of the measured service is written; a fresh directory by default.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// One row: what, how many in a second, and in which unit.
struct Row {
    what: &'static str,
    rate: f64,
    unit: &'static str,
}

/// Measures and prints.
///
/// # Errors
/// When the scratch directory cannot be written.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let time = Duration::from_secs(args.seconds.max(1));
    let mut rows = primitives(time)?;
    rows.extend(envelope(time)?);
    rows.extend(service(args, time)?);
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["operation", "rate", "unit"]);
    for row in rows {
        table.add_row([row.what.to_owned(), grouped(row.rate), row.unit.to_owned()]);
    }
    say::line(&table.to_string())
}

/// Processor time of this process, of all its threads: what a busy machine disturbs least.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Counts operations over processor time.
struct Meter {
    start: Duration,
    limit: Duration,
    count: u32,
}

impl Meter {
    fn start(limit: Duration) -> Self {
        Self { start: processor_time(), limit, count: 0 }
    }

    /// Counts `done` operations; false when the time is over.
    fn count(&mut self, done: u32) -> bool {
        self.count = self.count.saturating_add(done);
        self.elapsed() < self.limit
    }

    fn elapsed(&self) -> Duration {
        processor_time().saturating_sub(self.start)
    }

    fn rate(&self) -> f64 {
        f64::from(self.count) / self.elapsed().as_secs_f64()
    }
}

/// Operations that are done between two looks at the clock.
const ROUND: u32 = 16;

/// How often `act` succeeds in a second of processor time, after a warm-up.
fn rate<T>(time: Duration, mut act: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let mut run = |time| {
        let mut meter = Meter::start(time);
        loop {
            for _ in 0..ROUND {
                black_box(act()?);
            }
            if !meter.count(ROUND) {
                return anyhow::Ok(meter.rate());
            }
        }
    };
    run(time / 10)?;
    run(time)
}

fn primitives(time: Duration) -> anyhow::Result<Vec<Row>> {
    let bytes = [7_u8; 32];
    let key = material::generate(MaterialSpec::Aes256, &mut SystemEntropy)?;
    let key = BlobKey::new(MaterialSpec::Aes256, &key)?;
    let context = EncryptionContext::none().hash();
    let seal = || blob::seal(&key, &[1; 16], 1, &context, &bytes, &mut SystemEntropy);
    let sealed = seal()?;
    let mut rows = vec![
        row("blob seal, 32 bytes", rate(time, || Ok(seal()?))?),
        row("blob open, 32 bytes", rate(time, || Ok(blob::open(&key, &sealed, &context)?))?),
    ];
    for (what, spec, algorithm) in [
        ("sign, Ed25519", MaterialSpec::Ed25519, SignAlgorithm::Ed25519),
        ("sign, ECDSA P-256", MaterialSpec::P256, SignAlgorithm::EcdsaSha256),
        ("sign, RSA-2048 PSS", MaterialSpec::Rsa2048, SignAlgorithm::RsassaPssSha256),
    ] {
        let key = material::generate(spec, &mut SystemEntropy)?;
        let key = SigningKey::new(spec, &key)?;
        let sign = || Ok(key.sign(algorithm, Message::Raw(&bytes))?);
        rows.push(row(what, rate(time, sign)?));
    }
    Ok(rows)
}

const fn row(what: &'static str, rate: f64) -> Row {
    Row { what, rate, unit: "/s of processor time" }
}

/// File encryption out of memory and into nothing.
fn envelope(time: Duration) -> anyhow::Result<Vec<Row>> {
    const LEN: usize = 16 << 20;
    let plaintext = vec![7_u8; LEN];
    let data_key = SecretArray::copy_of(&[7; 32]);
    let recipients = [Recipient::lastkey(vec![0; 136])];
    let options = EnvelopeOptions::default();
    let encrypt = || {
        let mut reader = plaintext.as_slice();
        let mut nowhere = std::io::sink();
        let entropy = &mut SystemEntropy;
        encrypt_stream(&mut reader, &mut nowhere, &options, &data_key, &recipients, entropy)?;
        Ok(())
    };
    let gigabytes = rate(time, encrypt)? * LEN as f64 / 1e9;
    Ok(vec![Row {
        what: "file envelope, in memory",
        rate: gigabytes,
        unit: "GB/s of processor time",
    }])
}

/// The whole path of an operation but the network: policy, keyring, audit log.
fn service(args: &Args, time: Duration) -> anyhow::Result<Vec<Row>> {
    let scratch = args.scratch.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("lastkey-bench-{}", std::process::id()))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(measure_service(&scratch, time));
    // The jobs end with it, and with them the audit log that still writes there.
    drop(runtime);
    if args.scratch.is_none() {
        std::fs::remove_dir_all(&scratch)
            .with_context(|| format!("cannot remove {}", scratch.display()))?;
    }
    measured
}

async fn measure_service(scratch: &std::path::Path, time: Duration) -> anyhow::Result<Vec<Row>> {
    let (engine, call, key) = engine_with_key(scratch).await?;
    let context = EncryptionContext::none;
    let encrypt = || ops::encrypt::Request {
        key: key.clone(),
        plaintext: SecretVec::copy_of(&[7; 32]),
        context: context(),
    };
    let sealed = engine.encrypt(&call, encrypt()).await?.ciphertext;
    let decrypt = || ops::decrypt::Request {
        ciphertext: sealed.clone(),
        context: context(),
        key: None,
        version: None,
    };

    let mut encrypting = Meter::start(time);
    while encrypting.count(ROUND) {
        for _ in 0..ROUND {
            black_box(engine.encrypt(&call, encrypt()).await?);
        }
    }
    let mut decrypting = Meter::start(time);
    while decrypting.count(ROUND) {
        for _ in 0..ROUND {
            black_box(engine.decrypt(&call, decrypt()).await?);
        }
    }
    Ok(vec![
        row("Encrypt, 32 bytes, whole path", encrypting.rate()),
        row("Decrypt, 32 bytes, whole path", decrypting.rate()),
    ])
}

async fn engine_with_key(scratch: &std::path::Path) -> anyhow::Result<(Arc<Engine>, Call, KeyRef)> {
    let entropy = Arc::new(SystemEntropySource);
    let ports = Ports {
        audit: Arc::new(AuditLog::open(
            scratch,
            AuditOptions { durability: Durability::Batched, ..AuditOptions::default() },
        )?),
        clock: Arc::new(MachineClock::of_this_boot()),
        entropy: entropy.clone(),
        issuers: Arc::new(Nobody),
        clusters: Arc::new(Nobody),
        databases: Arc::new(Nobody),
        webhooks: Arc::new(Nobody),
        claims: Arc::new(Nobody),
    };
    let store = Arc::new(MemorySealedStore::in_memory(entropy));
    initialise(&*store, &ports, &NewSeal::Keyfile(SecretArray::copy_of(&[1; 32]))).await?;
    let gate = Arc::new(Gate::new(store, ports, 1_000));
    gate.unseal(RequestId([0; 16]), SecretVec::copy_of(&[1; 32])).await?;
    let engine = gate.engine()?;
    let principal = Principal::named(Principal::ADMIN);
    let caller = Caller { principal, source: Source::default(), request: RequestId([0; 16]) };
    let call = Call { caller, dry_run: false };
    let wanted = ops::create_key::Request {
        spec: MaterialSpec::Aes256,
        usage: None,
        origin: Origin::Generated,
        alias: None,
        description: Description::default(),
        tags: Tags::default(),
        deletion_protection: false,
        rotation: None,
    };
    let key = engine.create_key(&call, wanted).await?.key.id;
    Ok((engine, call, KeyRef::Id(key)))
}

/// A rate for people: three digits after the point below ten, groups of three above.
fn grouped(rate: f64) -> String {
    if rate < 10.0 {
        return format!("{rate:.2}");
    }
    let digits = format!("{rate:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_grouped_for_people() {
        assert_eq!(grouped(9.876), "9.88");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1_234_567.4), "1,234,567");
    }
}
