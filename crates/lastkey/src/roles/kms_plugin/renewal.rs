//! The plugin renews the node certificate that it calls with.
//!
//! Room      the binary.
//! Source    docs/identity.md, "Nodes".
//! Holds     Who else renews it is not disturbed: the file is read again before each look.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use lastkey_core::access::NODE_CERTIFICATE_SECS;
use lastkey_core::time::Timestamp;
use lastkey_node::kmsv2::Expiry;
use lastkey_trust::x509::read_peer;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::time::sleep;

use crate::adapters::RemoteKeys;

/// Between two looks at the certificate.
const LOOK_PERIOD: Duration = Duration::from_secs(60);
/// After a renewal that failed.
const PAUSE: Duration = Duration::from_secs(600);
/// What is left of a certificate when it is renewed, unless the operator says otherwise: two
/// thirds of its day.
pub(super) const RENEW_SECS: u64 = NODE_CERTIFICATE_SECS / 3 * 2;

/// Renews the certificate until the end of the process.
pub(super) async fn renew(keys: Arc<RemoteKeys>, expiry: Expiry) {
    let Some((identity, renew_secs)) = keys.renewal() else { return };
    loop {
        let pause = match look(&keys, &identity, renew_secs, &expiry).await {
            Ok(()) => LOOK_PERIOD,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the node certificate is not renewed");
                PAUSE
            }
        };
        sleep(pause).await;
    }
}

async fn look(
    keys: &RemoteKeys,
    identity: &Path,
    renew_secs: u64,
    expiry: &Expiry,
) -> anyhow::Result<()> {
    let end = expires_at(identity)?;
    expiry.set(end.0);
    if end.0.saturating_sub(now().0) > renew_secs {
        return Ok(());
    }
    keys.renew_identity(identity).await?;
    let end = expires_at(identity)?;
    expiry.set(end.0);
    tracing::info!(expires_at = end.0, "the node certificate is renewed");
    Ok(())
}

/// When the certificate of a node ends.
///
/// # Errors
/// When it cannot be read, or is none.
pub(super) fn expires_at(identity: &Path) -> anyhow::Result<Timestamp> {
    let name = identity.display();
    let pem = std::fs::read(identity).with_context(|| format!("cannot read {name}"))?;
    let leaf = CertificateDer::from_pem_slice(&pem)
        .map_err(|_| anyhow::anyhow!("{name} holds no certificate"))?;
    // Also of one that is over: that is what is asked here.
    let peer = read_peer(&leaf, Timestamp(0));
    Ok(peer.map_err(|_| anyhow::anyhow!("{name} is no certificate of a node"))?.expires_at)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_secs()))
}
