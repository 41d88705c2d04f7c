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
