//! Seals for people.
//!
//! Room      `lastkey`.

use lastkey_wire::native::seals::{SealReport, SealsReply};

use super::shamir::CheckedShare;
use crate::cli::table::{Fields, Show, grid};

impl Show for SealsReply {
    fn table(&self) -> String {
        let row = |seal: &SealReport| {
            let opened = seal.opened_at.clone().or_else(|| seal.problem.clone());
            vec![
                seal.id.clone(),
                kind(seal),
                seal.health.clone(),
                opened.unwrap_or_else(|| "-".to_owned()),
            ]
        };
        grid(&["SEAL", "KIND", "HEALTH", "LAST OPENED"], self.seals.iter().map(row))
    }
}

fn kind(seal: &SealReport) -> String {
    match seal.threshold {
        Some(threshold) => format!("{} ({threshold} of {})", seal.kind, seal.shares.len()),
        None => seal.kind.clone(),
    }
}

impl Show for CheckedShare {
    fn table(&self) -> String {
        Fields::new()
            .with("Share", format!("{} of {}, as it was handed out", self.share, self.shares))
            .with("Seal", &self.seal)
            .with("Opens with", format!("{} shares", self.threshold))
            .table()
    }
}
