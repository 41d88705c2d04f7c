//! The heap of a process of its own: what else runs in it would be counted too.

use std::hint::black_box;

use lastkey_kernel::heap;

#[test]
fn what_long_buffers_took_goes_back() {
    // Resident memory that no file holds, in KiB.
    let own_memory = || -> i64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    heap::give_back_early();
    // Each freed one would raise the bound for the next, and the last would stay.
    for shift in 18..24 {
        drop(black_box(vec![1_u8; 1 << shift]));
    }
    let before = own_memory();
    let buffers: Vec<_> = (0..32).map(|_| black_box(vec![1_u8; 1 << 20])).collect();
    let pin = black_box(vec![1_u8; 1 << 10]);
    drop(buffers);
    let after = own_memory();
    assert!(after - before < 16 << 10, "{before} to {after} KiB");
    drop(pin);
}
