//! A new version on its way into a mounted volume, among a thousand nodes that watch it.
//!
//! The journey is the one of the tests, over TLS, with a release of the binary: the command
//! `secret put` is started, and the clock stops when the file in the volume has the new bytes.

use super::programs;
use super::report::{Report, Row};

const JOURNEY: &str = "csi::push::new_version_is_in_the_volume_among_a_thousand_nodes";

pub(super) fn rows(report: &mut Report) -> anyhow::Result<()> {
    let figures = programs::journey(JOURNEY)?;
    let what = "from `secret put` to the new bytes in a mounted volume, 1,000 nodes";
    report.add(Row::at_most(what, figures.get("push.in_volume_ms")?, "ms", 1_000.0));
    Ok(())
}
