//! Speed of blobs and of the file envelope, one line for each figure.
//!
//! Room      `crypto`. `make bench` runs it: `crypto_bench blob`, or
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
    path::Path,
    time::Instant,
};

use lastkey_crypto::{
    blob::{BlobKey, open, seal, seal_into},
    entropy::SystemEntropy,
    envelope::{EnvelopeOptions, Recipient},
    material::MaterialSpec,
    stream::{decrypt_stream, encrypt_stream, read_header},
};
use lastkey_secret::{SecretArray, SecretVec};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 9;
const BLOBS: u32 = 100_000;

fn main() -> Outcome<()> {
    let mut args = env::args().skip(1);
    match (args.next().as_deref(), args.next(), args.next()) {
        (Some("blob"), None, None) => measure_blob(),
        (Some("file"), Some(dir), mib) => {
            measure_file(Path::new(&dir), mib.map_or(Ok(1_024), |mib| mib.parse())?)
        }
        _ => Err("usage: crypto_bench blob | crypto_bench file DIR [MIB]".into()),
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

fn measure_file(dir: &Path, mib: usize) -> Outcome<()> {
    let (plain, copy, sealed) =
        (dir.join("plain.bin"), dir.join("copy.bin"), dir.join("sealed.lk"));
    write_sample(&plain, mib)?;
    let data_key = SecretArray::copy_of(&[5; 32]);
    let (mut copying, mut encrypting, mut decrypting) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        copying.push(measure(|| copy_file(&plain, &copy))?);
        encrypting.push(measure(|| encrypt_file(&plain, &sealed, &data_key))?);
        decrypting.push(measure(|| decrypt_file(&sealed, &copy, &data_key))?);
    }
    if fs::read(&plain)? != fs::read(&copy)? {
        return Err("decrypted file differs".into());
    }
    for path in [plain, copy, sealed] {
        fs::remove_file(path)?;
    }
    println!("file.copy_seconds {:.3}", median(copying.iter().map(|cost| cost.wall)));
    for (name, costs) in [("encrypt", &encrypting), ("decrypt", &decrypting)] {
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

fn write_sample(path: &Path, mib: usize) -> io::Result<()> {
    let mut file = File::create(path)?;
    let piece: Vec<u8> =
        (0..1_048_576_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..mib {
        file.write_all(&piece)?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Outcome<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut buffer = vec![0; 262_144];
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..len])?;
    }
}

fn encrypt_file(from: &Path, to: &Path, data_key: &SecretArray<32>) -> Outcome<()> {
    let recipients = [Recipient::lastkey(vec![0; 136])];
    encrypt_stream(
        &mut File::open(from)?,
        &mut File::create(to)?,
        &EnvelopeOptions::default(),
        data_key,
        &recipients,
        &mut SystemEntropy,
    )?;
    Ok(())
}

fn decrypt_file(from: &Path, to: &Path, data_key: &SecretArray<32>) -> Outcome<()> {
    let mut from = File::open(from)?;
    let header = read_header(&mut from)?;
    decrypt_stream(&header, data_key, &mut from, &mut File::create(to)?)?;
    Ok(())
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
