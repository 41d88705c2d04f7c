//! What the plugin shows of itself.
//!
//! Room      `node`.
//! Holds     Shows states and hashes, no key id and nothing of a request.

use std::sync::Arc;

use super::metrics::Metrics;
use super::provider::{Denial, Health, Provider};
use crate::page::Shown;

/// What the page shows.
#[derive(Debug)]
pub struct Page {
    /// What is counted.
    pub metrics: Metrics,
    /// The providers of the process.
    pub providers: Vec<Arc<Provider>>,
}

impl Shown for Page {
    fn metrics(&self) -> String {
        self.providers.iter().for_each(|provider| provider.observe());
        self.metrics.scrape()
    }

    /// One line for each provider; ready when every one of them answers Encrypt.
    fn readiness(&self) -> (bool, String) {
        let mut ready = true;
        let mut lines = String::new();
        for provider in &self.providers {
            let state = match provider.health() {
                Ok((_, Health::Ok)) => "ok",
                Ok((_, Health::Coasting { .. })) => "coasting",
                Err(denial) => {
                    ready = false;
                    state_of(&denial)
                }
            };
            lines.push_str(&format!("{}: {state}\n", provider.name()));
        }
        (ready, lines)
    }
}

fn state_of(denial: &Denial) -> &'static str {
    match denial {
        Denial::Starting => "starting",
        Denial::Away { .. } => "away",
        Denial::Refused { .. } => "refused",
        Denial::RolledBack(_) => "rolled-back",
        Denial::Invalid(_) | Denial::Undecryptable | Denial::Internal => "failed",
    }
}
