//! Judgements over files and snapshots: what is found, what it means, and how to mend it.
//!
//! Room      `checks`. Pure: bytes and snapshots come in as arguments, findings go out. Whoever
//!           calls it walks the disk, asks the cluster and knows the day.
//! Holds     No finding carries a secret: evidence is masked where the finding is made. What
//!           could not be judged is said ([`report::NotChecked`]), never counted as fine.

pub mod acceptance;
pub mod boot;
pub mod coverage;
pub mod enable;
pub mod finding;
pub mod posture;
pub mod report;
pub mod scan;
pub mod snapshot;
