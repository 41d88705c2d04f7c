//! What the driver costs, beside the same volume under cryptsetup. Printed, not judged: times inside the
//! guest are not those of a machine, ratios are.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::keys::{CLASS, data_key};
use super::life::{GIB, Site, dmsetup, output};
use crate::http::Http;
use crate::process::Running;

const SIZE: i64 = 96 << 20;
/// Sequential reads of this much are compared, in pairs, each half of which is first in turn.
const READ_MIB: u32 = 64;
const PAIRS: usize = 6;
const PROVISIONS: usize = 3;
const KEY: &str = "/mnt/data-key";
const STAGING: &str = "/mnt/staging";

pub(super) fn print(folder: &Path) {
    let site = Site::start(folder);
    site.server.create(r#"{"alias": "alias/class"}"#);
    reads(&site);
    provisions(&site);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ms(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

/// The same volume under the driver and under cryptsetup, in turn; and what an unlock takes.
fn reads(site: &Site) {
    let (id, staging) = (site.csi.create("read", SIZE, &CLASS).unwrap(), Path::new(STAGING));
    site.csi.stage(&id, staging, "ext4").unwrap();
    site.csi.unstage(&id, staging).unwrap();
    fs::write(KEY, data_key(site, &id)).unwrap();
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut stages, mut decrypts, before) = (Vec::new(), Vec::new(), Sums::of(site));
    for pair in 0..PAIRS {
        let mut own = || {
            let began = Instant::now();
            site.csi.stage(&id, staging, "ext4").unwrap();
            stages.push(ms(began.elapsed()));
            let number = dmsetup(&["info", "-c", "--noheadings", "-o", "minor", &id]);
            let rate = read(&format!("/dev/dm-{}", number.trim()));
            site.csi.unstage(&id, staging).unwrap();
            rate
        };
        let other = || {
            under_cryptsetup(site, &id, |device| {
                output(Command::new("mount").args([device, STAGING]));
                let rate = read(device);
                output(Command::new("umount").arg(STAGING));
                rate
            })
        };
        let (own, other) = if pair % 2 == 0 {
            let own = own();
            (own, other())
        } else {
            let other = other();
            (own(), other)
        };
        let began = Instant::now();
        data_key(site, &id);
        decrypts.push(ms(began.elapsed()));
        ratios.push(own / other);
        ours.push(own);
        theirs.push(other);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "reads, medians of {PAIRS}: {ours:.0} MiB/s, cryptsetup {theirs:.0} MiB/s, ratio {:.3} (goal 0.95)",
        median(ratios)
    );
    let after = Sums::of(site);
    assert!(sample(&metrics(&site.driver), "lastkey_volumes_volumes{state=\"closed\"}") >= 1.0);
    let unlock =
        1e3 * (after.unlocks - before.unlocks) / (after.unlock_count - before.unlock_count);
    let decrypts = median(decrypts);
    println!(
        "staged in {:.1} ms (median of {PAIRS}); unlocked in {unlock:.1} ms on average; its two calls of \
         the key service, from elsewhere, take {decrypts:.1} ms: {:.1} ms beside them (goal 60)",
        median(stages),
        unlock - decrypts
    );
}

/// Claims of 1 GiB from nothing to a file system that is mounted, and what of that the programs take
/// that anybody would run.
fn provisions(site: &Site) {
    let staging = Path::new(STAGING);
    let (mut totals, mut own) = (Vec::new(), Vec::new());
    for round in 0..PROVISIONS {
        let before = Sums::of(site);
        let began = Instant::now();
        let id = site.csi.create(&format!("provision-{round}"), GIB, &CLASS).unwrap();
        site.csi.stage(&id, staging, "ext4").unwrap();
        let total = ms(began.elapsed());
        let service = 1e3 * (Sums::of(site).calls - before.calls);
        site.csi.unstage(&id, staging).unwrap();
        let file = site.data(&id).with_file_name("by-hand");
        let allocate = "fallocate -l 1090519040 $0 2>/dev/null || truncate -s 1090519040 $0";
        let allocate = timed(Command::new("sh").args(["-c", allocate]).arg(&file));
        fs::remove_file(file).unwrap();
        fs::write(KEY, data_key(site, &id)).unwrap();
        let programs = under_cryptsetup(site, &id, |device| {
            let make =
                timed(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "nodiscard", device]));
            let mount = timed(Command::new("mount").args([device, STAGING]));
            let grow = timed(Command::new("resize2fs").arg(device));
            output(Command::new("umount").arg(STAGING));
            make + mount + grow
        });
        site.csi.delete(&id).unwrap();
        println!(
            "1 GiB: {total:.0} ms; by hand the file takes {allocate:.0} ms, its file system and mount \
             {programs:.0} ms; the key service {service:.0} ms"
        );
        totals.push(total);
        own.push(total - allocate - programs - service);
    }
    println!(
        "1 GiB, medians of {PROVISIONS}: {:.0} ms (goal 1000), {:.0} ms of it ours (goal 100)",
        median(totals),
        median(own)
    );
}

/// How long a program takes, in milliseconds.
fn timed(command: &mut Command) -> f64 {
    let began = Instant::now();
    output(command);
    ms(began.elapsed())
}

/// Has cryptsetup open a closed volume by the data key in [`KEY`].
fn under_cryptsetup<T>(site: &Site, id: &str, work: impl FnOnce(&str) -> T) -> T {
    let mut attach = Command::new("losetup");
    attach.args(["-f", "--show", "--sector-size", "4096"]);
    let device = output(attach.arg(site.data(id)));
    let device = device.trim();
    let mut open = Command::new("cryptsetup");
    open.args(["open", "--type", "luks2", "--disable-locks", "--key-file", KEY, device, "theirs"]);
    output(open.env("DM_DISABLE_UDEV", "1"));
    let done = work("/dev/mapper/theirs");
    dmsetup(&["remove", "theirs"]);
    // A round of the driver may have used the same device, and let it go.
    Command::new("losetup").args(["-d", device]).output().unwrap();
    done
}

/// MiB in a second, past the page cache.
fn read(device: &str) -> f64 {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let began = Instant::now();
    let (input, count) = (format!("if={device}"), format!("count={READ_MIB}"));
    output(Command::new("dd").args([&input, "of=/dev/null", "bs=1M", &count, "iflag=direct"]));
    f64::from(READ_MIB) / began.elapsed().as_secs_f64()
}

/// What the driver has measured since its start, in seconds, and how many times.
struct Sums {
    unlocks: f64,
    unlock_count: f64,
    calls: f64,
}

impl Sums {
    fn of(site: &Site) -> Self {
        let page = metrics(&site.driver);
        let of = |name: &str| sample(&page, &format!("lastkey_volumes_{name}"));
        Self {
            unlocks: of("unlock_seconds_sum"),
            unlock_count: of("unlock_seconds_count"),
            calls: of("key_service_seconds_sum"),
        }
    }
}

/// What the driver shows.
pub(super) fn metrics(driver: &Running) -> String {
    let said = driver.said();
    let addr = said.lines().find_map(|line| line.split_once("metrics on ")).unwrap().1;
    Http::tcp(addr.trim()).unwrap().answer("GET", "/metrics", "").text()
}

#[track_caller]
pub(super) fn sample(page: &str, name: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} is not in\n{page}")).parse().unwrap()
}
