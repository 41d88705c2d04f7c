//! Speed of blobs and of the file envelope, one line for each figure.
//!
//! Room      `crypto`. `make bench` runs it: `crypto_bench blob`, `crypto_bench memory`, or
//!           `crypto_bench file DIR [MIB]`, which needs three times the size free in DIR.
//! Holds     Medians of nine rounds. Rates are by the wall and by processor time, which a busy
//!           machine disturbs less; file figures are ratios to a plain copy with buffers of the
//!           same size, taken in turn in the same process.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::indexing_slicing,
    reason = "a bench has a clock, a disk and a terminal; the room it measures has none"
)]

use std::{
    env,
    fs::{self, File},
    hint::black_box,
    io::{self, Read, Write},
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    path::Path,
    time::Instant,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lastkey_crypto::{
    blob::{BlobKey, open, seal, seal_into},
    entropy::SystemEntropy,
    envelope::{EnvelopeOptions, Recipient},
    material::MaterialSpec,
    stream::{
        ReadAt, WriteAt, decrypt_at, decrypt_slice_into, encrypt_at, encrypt_slice, read_header,
    },
};
use lastkey_secret::{SecretArray, SecretVec};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 9;
const BLOBS: u32 = 100_000;
const SEGMENT_LEN: usize = 262_144;
/// Of one MiB each.
const MEMORY_ROUNDS: usize = 500;

fn main() -> Outcome<()> {
    let mut args = env::args().skip(1);
    match (args.next().as_deref(), args.next(), args.next()) {
        (Some("blob"), None, None) => measure_blob(),
        (Some("memory"), None, None) => measure_memory(),
        (Some("file"), Some(dir), mib) => {
            measure_file(Path::new(&dir), mib.map_or(Ok(1_024), |mib| mib.parse())?)
        }
        _ => {
            Err("usage: crypto_bench blob | crypto_bench memory | crypto_bench file DIR [MIB]"
                .into())
        }
    }
}

fn measure_blob() -> Outcome<()> {
    let key = BlobKey::new(MaterialSpec::Aes256, &SecretVec::copy_of(&[7; 32]))?;
    let (id, context, plaintext) = ([1; 16], [2; 32], [3; 32]);
    let mut entropy = SystemEntropy;
    let blob = seal(&key, &id, 1, &context, &plaintext, &mut entropy)?;
    let mut out = Vec::new();
    let (mut sealing, mut opening) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        sealing.push(measure(|| {
            for _ in 0..BLOBS {
                out.clear();
                seal_into(&key, &id, 1, &context, black_box(&plaintext), &mut entropy, &mut out)?;
            }
            Ok(())
        })?);
        opening.push(measure(|| {
            for _ in 0..BLOBS {
                black_box(open(&key, black_box(&blob), &context)?);
            }
            Ok(())
        })?);
    }
    for (name, costs) in [("seal", &sealing), ("open", &opening)] {
        let rate = |part: fn(&Cost) -> f64| f64::from(BLOBS) / median(costs.iter().map(part));
        println!("blob.{name}_32_bytes_per_second {:.0}", rate(|cost| cost.wall));
        println!("blob.{name}_32_bytes_per_cpu_second {:.0}", rate(|cost| cost.cpu));
    }
    Ok(())
}

/// Against the bare primitive, from one buffer into another, in segments of the same size.
fn measure_memory() -> Outcome<()> {
    let plaintext = sample();
    let (data_key, options) = (SecretArray::copy_of(&[5; 32]), EnvelopeOptions::default());
    let recipients = [Recipient::lastkey(vec![0; 136])];
    let raw = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[5; 32]).map_err(|_| "no key")?);
    let (mut envelope, mut sealed) = (Vec::new(), vec![0; plaintext.len()]);
    let mut opened = vec![0; plaintext.len()];
    let mut costs: [Vec<Cost>; 4] = Default::default();
    for _ in 0..ROUNDS {
        for (index, costs) in costs.iter_mut().enumerate() {
            costs.push(measure(|| {
                for _ in 0..MEMORY_ROUNDS {
                    match index {
                        0 => seal_raw(&raw, &plaintext, &mut sealed)?,
                        1 => encrypt_slice(
                            &plaintext,
                            &options,
                            &data_key,
                            &recipients,
                            &mut SystemEntropy,
                            &mut envelope,
                        )?,
                        2 => open_raw(&raw, &sealed, &mut opened)?,
                        _ => {
                            let header = read_header(&mut envelope.as_slice())?;
                            decrypt_slice_into(&header, &data_key, &envelope, &mut opened)?;
                        }
                    }
                }
                Ok(())
            })?);
        }
    }
    let bytes = (plaintext.len() * MEMORY_ROUNDS) as f64;
    for (name, raw, ours) in [("encrypt", 0, 1), ("decrypt", 2, 3)] {
        let rate = bytes / median(costs[ours].iter().map(|cost| cost.cpu)) / 1e9;
        println!("memory.{name}_gigabytes_per_second {rate:.1}");
        println!("memory.{name}_over_raw {}", ratios(&costs[raw], &costs[ours], |cost| cost.cpu));
    }
    Ok(())
}

fn seal_raw(key: &LessSafeKey, plaintext: &[u8], sealed: &mut [u8]) -> Outcome<()> {
    let pieces = plaintext.chunks(SEGMENT_LEN).zip(sealed.chunks_mut(SEGMENT_LEN));
    for (index, (text, out)) in pieces.enumerate() {
        let mut tag = [0; 16];
        key.seal_out_of_place_scatter(nonce(index), Aad::empty(), text, out, &[], &mut tag)
            .map_err(|_| "the primitive refused")?;
        black_box(tag);
    }
    Ok(())
}

/// Without the tags, which would have to be kept aside: the work is the same.
fn open_raw(key: &LessSafeKey, sealed: &[u8], opened: &mut [u8]) -> Outcome<()> {
    let pieces = sealed.chunks(SEGMENT_LEN).zip(opened.chunks_mut(SEGMENT_LEN));
    for (index, (text, out)) in pieces.enumerate() {
        let refused = key.open_separate_gather(nonce(index), Aad::empty(), text, &[0; 16], out);
        if refused.is_ok() {
            return Err("a tag of zeros was right".into());
        }
    }
    Ok(())
}

fn nonce(index: usize) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&index.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn measure_file(dir: &Path, mib: usize) -> Outcome<()> {
    let (plain, copy, sealed) =
        (dir.join("plain.bin"), dir.join("copy.bin"), dir.join("sealed.lk"));
    write_sample(&plain, mib)?;
    let data_key = SecretArray::copy_of(&[5; 32]);
    let (mut copying, mut costs) = (Vec::new(), [const { Vec::new() }; 4]);
    for _ in 0..ROUNDS {
        copying.push(measure(|| copy_file(&plain, &copy))?);
        for (threads, [encrypting, decrypting]) in (1..).zip(costs.as_chunks_mut::<2>().0) {
            let threads = NonZeroUsize::new(threads).ok_or("no thread")?;
            encrypting.push(measure(|| encrypt_file(&plain, &sealed, &data_key, threads))?);
            decrypting.push(measure(|| decrypt_file(&sealed, &copy, &data_key, threads))?);
        }
    }
    if fs::read(&plain)? != fs::read(&copy)? {
        return Err("decrypted file differs".into());
    }
    for path in [plain, copy, sealed] {
        fs::remove_file(path)?;
    }
    println!("file.copy_seconds {:.3}", median(copying.iter().map(|cost| cost.wall)));
    let names = ["encrypt", "decrypt", "encrypt_on_two", "decrypt_on_two"];
    for (name, costs) in names.into_iter().zip(&costs) {
        println!("file.{name}_seconds {:.3}", median(costs.iter().map(|cost| cost.wall)));
        println!("file.{name}_over_copy {}", ratios(costs, &copying, |cost| cost.wall));
        println!("file.{name}_over_copy_cpu {}", ratios(costs, &copying, |cost| cost.cpu));
    }
    Ok(())
}

/// Median and range of the ratios of neighbouring runs.
fn ratios(costs: &[Cost], base: &[Cost], part: fn(&Cost) -> f64) -> String {
    let ratios: Vec<f64> =
        costs.iter().zip(base).map(|(cost, base)| part(cost) / part(base)).collect();
    let least = ratios.iter().copied().fold(f64::MAX, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2} to {most:.2})", median(ratios.iter().copied()))
}

/// One MiB that repeats in no segment.
fn sample() -> Vec<u8> {
    (0..1_048_576_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn write_sample(path: &Path, mib: usize) -> io::Result<()> {
    let (mut file, piece) = (File::create(path)?, sample());
    for _ in 0..mib {
        file.write_all(&piece)?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Outcome<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut buffer = vec![0; SEGMENT_LEN];
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..len])?;
    }
}

fn encrypt_file(
    from: &Path,
    to: &Path,
    data_key: &SecretArray<32>,
    threads: NonZeroUsize,
) -> Outcome<()> {
    let (from, to) = (File::open(from)?, File::create(to)?);
    let len = from.metadata()?.len();
    let recipients = [Recipient::lastkey(vec![0; 136])];
    let (options, entropy) = (EnvelopeOptions::default(), &mut SystemEntropy);
    let (from, to) = (Positioned(from), Positioned(to));
    encrypt_at(&from, len, &to, &options, data_key, &recipients, entropy, threads)?;
    Ok(())
}

fn decrypt_file(
    from: &Path,
    to: &Path,
    data_key: &SecretArray<32>,
    threads: NonZeroUsize,
) -> Outcome<()> {
    let (mut from, to) = (File::open(from)?, File::create(to)?);
    let len = from.metadata()?.len();
    let header = read_header(&mut from)?;
    decrypt_at(&header, data_key, &Positioned(from), len, &Positioned(to), threads)?;
    Ok(())
}

struct Positioned(File);

impl ReadAt for Positioned {
    fn read_at(&self, dest: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(dest, offset)
    }
}

impl WriteAt for Positioned {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
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

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
