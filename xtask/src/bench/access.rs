//! Who may do what, and the proof of it: sessions, decisions, the audit log.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::report::{Report, Row};
use super::{PAIRS, http, programs, server};

/// Records of the log that is checked.
const RECORDS: &str = "10000000";

/// Sessions and decisions, each on one core.
pub(super) fn in_process(report: &mut Report) -> anyhow::Result<()> {
    let figures = programs::example("lastkey-trust", "trust_bench", &[], Some(1))?;
    let microseconds = |figure: f64| figure / 1e3;
    for (name, what) in [
        ("open_signed", "a session opened and its request's signature checked"),
        ("open_bearer", "a session opened by its bearer token"),
        ("open_kept", "the same once more"),
    ] {
        let figure = microseconds(figures.get(&format!("trust.{name}"))?);
        report.add(Row::at_most(what, figure, "µs", 5.0));
    }
    let figures = programs::example("lastkey-policy", "policy_bench", &[], Some(1))?;
    for policies in ["10", "10000"] {
        for (name, what, goal) in [("made", "uncached", 5.0), ("kept", "cached", 1.0)] {
            let figure = microseconds(figures.get(&format!("policy.{policies}.{name}"))?);
            let what = format!("a decision among {policies} policies, {what}");
            report.add(Row::at_most(what, figure, "µs", goal));
        }
    }
    Ok(())
}

/// A long audit log is built and checked.
pub(super) fn audit_log(report: &mut Report, scratch: &Path) -> anyhow::Result<()> {
    let folder = scratch.to_str().context("a path that is no text")?;
    let figures = programs::example("lastkey-store", "audit_bench", &[folder, RECORDS], None)?;
    let each = figures.get("audit.cpu_ns_a_record")? / 1e3;
    report.add(Row::at_most("audit, processor time of a record", each, "µs", 3.0));
    let rate = figures.get("audit.verified_per_second")?;
    report.add(Row::rate("audit verify, 10,000,000 records", rate, "/s", 1_000_000.0));
    Ok(())
}

/// Decrypt in a session of a role: the session is opened, policies are asked, a record is written.
pub(super) fn full_path(
    report: &mut Report,
    ours: &server::Running,
    bodies: &[String],
) -> anyhow::Result<()> {
    let token = open_session(ours)?;
    let axum = programs::bare_axum()?;
    let theirs = [axum.body("/v1/decrypt")?];
    let mut pairs = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        let ours = http::load(ours.target_by(&token), "/v1/decrypt", bodies, 64)?;
        pairs.push((ours.rate, http::load(axum.target(), "/v1/decrypt", &theirs, 64)?.rate));
    }
    let what = "HTTP decrypt in a session of a role, 64 connections, one core";
    report.add(Row::against(what, &pairs, "requests/s", "bare axum", 0.70));
    Ok(())
}

/// The bearer token of a session in a role that may decrypt.
fn open_session(ours: &server::Running) -> anyhow::Result<String> {
    let (issuer, audience) = ("https://bench.example", "lastkey-bench");
    let args = ["token", issuer, audience];
    let figures = programs::example("lastkey-trust", "trust_bench", &args, None)?;
    let mut admin = ours.connect()?;
    let provider = json!({ "issuer": issuer, "audiences": [audience], "jwks": figures.text("trust.key_set")? });
    admin.send("PUT", "/v1/iam/providers/bench", &provider.to_string())?;
    let policy =
        "permit(principal in Role::\"bench\", action == Action::\"kms:Decrypt\", resource);";
    let role = json!({ "provider": "bench", "claims": { "sub": "bench" }, "policy": policy });
    admin.send("PUT", "/v1/iam/roles/bench", &role.to_string())?;
    let exchange = json!({ "subject_token": figures.text("trust.token")?, "role": "bench" });
    let session = admin.post("/v1/sts/token", &exchange.to_string())?;
    let token = session.get("access_token").and_then(|token| token.as_str());
    Ok(token.context("no session")?.to_owned())
}
