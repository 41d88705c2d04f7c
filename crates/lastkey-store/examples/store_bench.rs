//! Measures the SQLite store on the disk of a directory: `store_bench DIR [RECORDS]`.
//!
//! Room      `store`. Every figure is of the whole way: encode, seal, commit durably, and back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lastkey_core::ports::{EntropySource, Expected, SealedStore as _, Store, Write};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_crypto::entropy::{Entropy, SystemEntropy};
use lastkey_store::SqliteSealedStore;
use lastkey_testkit::fixtures;

type Anyhow<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct SystemSource;

impl EntropySource for SystemSource {
    fn open(&self) -> Box<dyn Entropy + Send> {
        Box::new(SystemEntropy)
    }
}

fn open(dir: &Path) -> Anyhow<(SqliteSealedStore, Arc<dyn Store>)> {
    let sealed = SqliteSealedStore::open_dir(dir, Arc::new(SystemSource))?;
    let store = sealed.open(fixtures::record_keys(&[1]))?;
    Ok((sealed, store))
}

fn put(number: u64) -> Write {
    // 400 bytes or so, as a version of a key with its wrapped material and public half has.
    let mut version = fixtures::key_version(number, 1);
    version.public_key = Some(vec![0x30; 200]);
    let path = RecordPath::version(version.key, version.number);
    Write { path, expected: Expected::Absent, record: Some(Record::Version(version)) }
}

/// Commits single records by so many writers; answers commits a second and the 99th percentile.
async fn puts(
    store: &Arc<dyn Store>,
    writers: u64,
    each: u64,
    first: u64,
) -> Anyhow<(f64, Duration)> {
    let start = Instant::now();
    let writer = |w: u64| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut times = Vec::new();
            for n in 0..each {
                let began = Instant::now();
                store.commit(vec![put(first + w * each + n)]).await?;
                times.push(began.elapsed());
            }
            Anyhow::Ok(times)
        })
    };
    let tasks: Vec<_> = (0..writers).map(writer).collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    Ok((rate, p99))
}

async fn fill(store: &Arc<dyn Store>, first: u64, count: u64) -> Anyhow<()> {
    for start in (first..first + count).step_by(1_000) {
        let batch = (start..(start + 1_000).min(first + count)).map(put).collect();
        store.commit(batch).await?;
    }
    Ok(())
}

async fn read_points(store: &Arc<dyn Store>, records: u64, reads: u64) -> Anyhow<f64> {
    let start = Instant::now();
    for n in 0..reads {
        let number = n.wrapping_mul(7_919) % records;
        store.get(&put(number).path).await?.ok_or("a record is missing")?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / reads as f64)
}

async fn read_all(store: &Arc<dyn Store>) -> Anyhow<(usize, f64)> {
    let (start, mut seen, mut after) = (Instant::now(), 0, None);
    loop {
        let prefix = "version/".to_owned();
        let page = store.scan(&PathRange { prefix, after, limit: 1_000 }).await?;
        seen += page.len();
        after = page.last().map(|stored| stored.path.clone());
        if after.is_none() {
            return Ok((seen, start.elapsed().as_secs_f64() * 1e3));
        }
    }
}

#[tokio::main]
async fn main() -> Anyhow<()> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().ok_or("usage: store_bench DIR [RECORDS]")?;
    let records: u64 = args.next().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(200_000);
    let dir = Path::new(&dir).join("store-bench");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let (sealed, store) = open(&dir)?;
    for (writers, each) in [(1, 10_000), (16, 5_000), (64, 1_250)] {
        let (rate, p99) = puts(&store, writers, each, writers << 40).await?;
        println!("commits/s, {writers:>2} writers        {rate:>10.0}   p99 {p99:?}");
    }
    fill(&store, 0, records).await?;
    drop((sealed, store));
    let began = Instant::now();
    let (_sealed, store) = open(&dir)?;
    println!("open, {records} records      {:>10.2} ms", began.elapsed().as_secs_f64() * 1e3);
    println!(
        "point read, random         {:>10.2} us",
        read_points(&store, records, 100_000).await?
    );
    let (seen, took) = read_all(&store).await?;
    println!("scan of {seen} records     {took:>10.1} ms");
    let (rate, p99) = puts(&store, 16, 5_000, 1 << 50).await?;
    println!("commits/s, 16, filled      {rate:>10.0}   p99 {p99:?}");
    let began = Instant::now();
    store.erase_residue().await?;
    println!("erase residue              {:>10.1} ms", began.elapsed().as_secs_f64() * 1e3);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
