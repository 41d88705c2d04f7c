//! Speed of the library in memory, against the bare primitive at the same segment size.
//!
//! Room      `client`. `make bench` runs it: `library_bench [MIB]`, one line for each figure.
//! Holds     Ratios of neighbouring runs, by the wall and by processor time; above 1 is faster than
//!           the primitive. No server: the data key is for a key of age and comes from a cache.

#![expect(clippy::indexing_slicing, reason = "a bench that goes wrong stops; nobody depends on it")]

use std::{
    env,
    hint::black_box,
    io::{self, Read, Write},
    time::Instant,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lastkey_client::{
    AgeIdentity, CacheLimits, DataKeyCache, SecretVec,
    blocking::{Decryptor, Encryptor},
};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 15;
const SEGMENT_LEN: usize = 262_144;
const TAG_LEN: usize = 16;
/// Of a key that protects nothing.
const IDENTITY: &str = "AGE-SECRET-KEY-1NHJKXCKV03SNME4X46R7D70GLMSGKHCM4HLF5J72LNGXW8CULP7SW5LYY3";

fn main() -> Outcome<()> {
    let mib = env::args().nth(1).map_or(Ok(32), |mib| mib.parse::<usize>())?;
    // secrets: allow, numbers that everybody can count
    let plaintext: Vec<u8> = (0..mib << 20).map(|at| (at * 31 % 251) as u8).collect();
    let identities = AgeIdentity::parse_file(&SecretVec::copy_of(IDENTITY.as_bytes()))?;
    let recipient = identities.first().ok_or("no identity")?.recipient().clone();
    let cache = DataKeyCache::new(CacheLimits::default());
    let encryptor = Encryptor::for_age(recipient).cache(&cache);
    let decryptor = Decryptor::offline(identities);
    let raw = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[5; 32]).map_err(|_| "no key")?);

    let (mut envelope, mut opened) = (Vec::new(), Vec::new());
    let mut sealed = vec![0; plaintext.len().div_ceil(SEGMENT_LEN) * (SEGMENT_LEN + TAG_LEN)];
    let mut costs: [Vec<Cost>; 6] = Default::default();
    for _ in 0..ROUNDS {
        costs[0].push(measure(|| seal_raw(&raw, &plaintext, &mut sealed))?);
        costs[1].push(measure(|| Ok(encryptor.encrypt_into(&plaintext, &mut envelope)?))?);
        costs[2].push(measure(|| {
            let mut writer = encryptor.writer(io::sink())?;
            writer.write_all(&plaintext)?;
            writer.try_finish()?;
            Ok(())
        })?);
        costs[3].push(measure(|| open_raw(&raw, &sealed, &mut opened))?);
        costs[4].push(measure(|| Ok(decryptor.decrypt_into(&envelope, &mut opened)?))?);
        costs[5].push(measure(|| {
            let mut reader = decryptor.reader(envelope.as_slice())?;
            let mut piece = vec![0; SEGMENT_LEN];
            while reader.read(&mut piece)? > 0 {}
            Ok(())
        })?);
        if black_box(&opened) != &plaintext {
            return Err("decrypted bytes differ".into());
        }
    }
    let rate = mib as f64 / 1_024.0 / median(costs[0].iter().map(|cost| cost.wall));
    println!("library.raw_gib_per_second {rate:.2}");
    for (name, base, index) in
        [("encrypt", 0, 1), ("writer", 0, 2), ("decrypt", 3, 4), ("reader", 3, 5)]
    {
        let (base, costs) = (&costs[base], &costs[index]);
        println!("library.{name}_over_raw {}", ratios(base, costs, |cost| cost.wall));
        println!("library.{name}_over_raw_cpu {}", ratios(base, costs, |cost| cost.cpu));
    }
    Ok(())
}

/// Every segment out of place, as the library does it.
fn seal_raw(key: &LessSafeKey, plaintext: &[u8], sealed: &mut [u8]) -> Outcome<()> {
    let pieces = plaintext.chunks(SEGMENT_LEN).zip(sealed.chunks_mut(SEGMENT_LEN + TAG_LEN));
    for (index, (text, sealed)) in pieces.enumerate() {
        let (body, tag) = sealed.split_at_mut(text.len());
        key.seal_out_of_place_scatter(nonce(index), Aad::empty(), text, body, &[], tag)
            .map_err(|_| "not sealed")?;
    }
    Ok(())
}

fn open_raw(key: &LessSafeKey, sealed: &[u8], opened: &mut Vec<u8>) -> Outcome<()> {
    opened.resize(sealed.len() - sealed.len().div_ceil(SEGMENT_LEN + TAG_LEN) * TAG_LEN, 0);
    let pieces = sealed.chunks(SEGMENT_LEN + TAG_LEN).zip(opened.chunks_mut(SEGMENT_LEN));
    for (index, (sealed, text)) in pieces.enumerate() {
        let (body, tag) = sealed.split_at(sealed.len() - TAG_LEN);
        key.open_separate_gather(nonce(index), Aad::empty(), body, tag, text)
            .map_err(|_| "not opened")?;
    }
    Ok(())
}

fn nonce(index: usize) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&(index as u64).to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Seconds by the clock on the wall and of this processor.
struct Cost {
    wall: f64,
    cpu: f64,
}

fn measure(operation: impl FnOnce() -> Outcome<()>) -> Outcome<Cost> {
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    operation()?;
    Ok(Cost { wall: wall.elapsed().as_secs_f64(), cpu: cpu_seconds() - cpu })
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Median and range of the speed against that of the base.
fn ratios(base: &[Cost], costs: &[Cost], part: fn(&Cost) -> f64) -> String {
    let ratios: Vec<f64> =
        base.iter().zip(costs).map(|(base, cost)| part(base) / part(cost)).collect();
    let least = ratios.iter().copied().fold(f64::MAX, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2} to {most:.2})", median(ratios.iter().copied()))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
