//! The heap of this process: what was freed goes back to the kernel.
//!
//! Room      `kernel`.
//! Source    mallopt(3).

use crate::sys;

/// From this length on an allocation has pages of its own, which go back when it is freed; in
/// bytes. What the C library begins with; by itself it raises it to the longest that was freed,
/// up to 32 MiB, and keeps twice as much of the heap from then on.
const OWN_PAGES_LEN: i32 = 128 << 10;

/// So much at the end of the heap is kept for the next allocations, in bytes.
const KEPT_LEN: i32 = 1 << 20;

/// Has the C library give back what long buffers took, for as long as the process lives. To be
/// called before there are threads. Without an allocator that knows this nothing changes.
pub fn give_back_early() {
    sys::bound_heap(OWN_PAGES_LEN, KEPT_LEN);
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Resident memory that no file holds, in KiB.
    fn own_memory() -> i64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn what_long_buffers_took_goes_back() {
        give_back_early();
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
}
