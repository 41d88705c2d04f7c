//! gRPC: requests to one provider, answers and codes.
//!
//! Room      `node`. The three methods of `v2.KeyManagementService`, over connections that
//!           `grpc.rs` accepts.
//! Holds     No message of a refusal carries a secret. Within a connection, Encrypt answers under
//!           the key id that Status told just before, so a promotion between the two is no
//!           mismatch to the API server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use lastkey_secret::SecretVec;
use lastkey_wire::grpc::kmsv2::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, SERVICE, StatusRequest,
    StatusResponse,
};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use super::ciphertext::Bound;
use super::metrics::Asked;
use super::provider::{Active, Denial, Health, Provider};
use crate::grpc::{Line, method_of, unary};

const VERSION: &str = "v2";
/// Ciphertext, key id and annotations at their limits, and the framing of the message.
const MAX_MESSAGE_LEN: usize = 64 * 1_024;
/// An Encrypt later than this after Status is answered by what is current then. The API server
/// sends it within a millisecond.
const TOLD_FOR: Duration = Duration::from_secs(5);

/// One connection.
pub struct Connection {
    provider: Arc<Provider>,
    told: Mutex<Option<(Instant, Arc<Active>)>>,
}

impl Connection {
    pub(super) fn new(provider: Arc<Provider>) -> Self {
        Self { provider, told: Mutex::new(None) }
    }

    fn status(&self, _: &StatusRequest) -> Result<StatusResponse, Status> {
        let started = Instant::now();
        let current = self.provider.current();
        self.count(Asked::Status, started, current.as_ref().map(drop));
        // A refusal ends what was told before: no local key outlives it in a connection.
        let told = current.as_ref().ok().map(|(active, _)| (started, Arc::clone(active)));
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
        let (active, health) = current.map_err(refusal)?;
        let key_id = active.key_id.clone();
        Ok(StatusResponse { version: VERSION.to_owned(), healthz: sentence(health), key_id })
    }

    fn encrypt(&self, mut request: EncryptRequest) -> Result<EncryptResponse, Status> {
        let started = Instant::now();
        let seed = SecretVec::take(std::mem::take(&mut request.plaintext));
        let sealed = self.provider.encrypt(&seed, self.told());
        self.count(Asked::Encrypt, started, sealed.as_ref().map(drop));
        let sealed = sealed.map_err(refusal)?;
        let (key_id, annotations) = (sealed.under.key_id.clone(), sealed.under.annotations.clone());
        tracing::debug!(
            provider = self.provider.name(),
            uid = short(&request.uid),
            key_id,
            "Encrypt"
        );
        Ok(EncryptResponse { ciphertext: sealed.ciphertext, key_id, annotations })
    }

    async fn decrypt(&self, request: DecryptRequest) -> Result<DecryptResponse, Status> {
        let started = Instant::now();
        let bound = Bound { key_id: &request.key_id, annotations: &request.annotations };
        let seed = self.provider.decrypt(&request.ciphertext, bound).await;
        self.count(Asked::Decrypt, started, seed.as_ref().map(drop));
        let seed = seed.map_err(refusal)?;
        tracing::debug!(provider = self.provider.name(), uid = short(&request.uid), "Decrypt");
        Ok(DecryptResponse { plaintext: seed.expose(<[u8]>::to_vec) })
    }

    fn told(&self) -> Option<Arc<Active>> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.as_ref().filter(|(at, _)| at.elapsed() < TOLD_FOR);
        told.map(|(_, active)| Arc::clone(active))
    }

    fn count(&self, asked: Asked, started: Instant, outcome: Result<(), &Denial>) {
        let code = outcome.map_or_else(|denial| code_of(denial).1, |()| "OK");
        self.provider.metrics.answered(asked, code, started.elapsed());
    }
}

impl Line for Connection {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let limit = MAX_MESSAGE_LEN;
        match method_of(&request, SERVICE) {
            Some("Status") => {
                unary(request, limit, async move |asked: StatusRequest| self.status(&asked)).await
            }
            Some("Encrypt") => unary(request, limit, async move |asked| self.encrypt(asked)).await,
            Some("Decrypt") => {
                unary(request, limit, async move |asked| self.decrypt(asked).await).await
            }
            Some(_) | None => {
                Status::unimplemented("only v2.KeyManagementService is served here").into_http()
            }
        }
    }
}

fn sentence(health: Health) -> String {
    match health {
        Health::Ok => "ok".to_owned(),
        Health::Coasting { silent, left } => format!(
            "Lastkey has not answered for {} s; reads and writes go on with the local key for \
             another {} s",
            silent.as_secs(),
            left.as_secs()
        ),
    }
}

fn refusal(denial: Denial) -> Status {
    let (code, _) = code_of(&denial);
    let message = match denial {
        Denial::Invalid(problem) => problem,
        Denial::Undecryptable => "the ciphertext cannot be decrypted here: it was changed, its \
                                  key id or annotations are others, or it is of another cluster"
            .to_owned(),
        Denial::Starting => "Lastkey was not reached since the plugin started".to_owned(),
        Denial::Away { silent } => format!(
            "Lastkey has not answered for {} s, which is more than the operator allows",
            silent.as_secs()
        ),
        Denial::Refused { code, message } => format!("Lastkey refuses: {message} ({code})"),
        Denial::RolledBack(message) => {
            format!("Lastkey is in an older state than was known here: {message}")
        }
        Denial::Internal => "the plugin has failed".to_owned(),
    };
    Status::new(code, message)
}

/// The code, and its name as the API server's metrics write it.
fn code_of(denial: &Denial) -> (Code, &'static str) {
    match denial {
        Denial::Invalid(_) | Denial::Undecryptable => (Code::InvalidArgument, "InvalidArgument"),
        Denial::Starting | Denial::Away { .. } => (Code::Unavailable, "Unavailable"),
        Denial::Refused { code, .. } if code == "AccessDenied" || code == "Unauthenticated" => {
            (Code::PermissionDenied, "PermissionDenied")
        }
        Denial::Refused { .. } | Denial::RolledBack(_) => {
            (Code::FailedPrecondition, "FailedPrecondition")
        }
        Denial::Internal => (Code::Internal, "Internal"),
    }
}

/// As much of a call's id as a UUID has: it comes from the client.
fn short(uid: &str) -> &str {
    uid.get(..36).unwrap_or(uid.get(..uid.len().min(36)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeKeys, Mood};
    use super::super::{Metrics, ProviderConfig, WhenAway, refresh};
    use super::*;
    use crate::ports::KeyOps;

    #[tokio::test(start_paused = true)]
    async fn connection_keeps_no_local_key_after_a_refusal() {
        let config = ProviderConfig {
            name: "etcd".to_owned(),
            key: "alias/etcd".to_owned(),
            cluster: String::new(),
            when_away: WhenAway::Coast,
            bound: Duration::from_secs(3_600),
            recovery: None,
        };
        let keys = Arc::new(FakeKeys::new());
        let port: Arc<dyn KeyOps> = keys.clone();
        let provider = Arc::new(Provider::new(config, port, &Metrics::new("test", false)));
        tokio::spawn(refresh(Arc::clone(&provider)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let connection = Connection::new(provider);
        connection.status(&StatusRequest {}).unwrap();
        assert!(connection.told.lock().unwrap().is_some());
        keys.mood(Mood::Disabled);
        tokio::time::sleep(Duration::from_secs(30)).await;
        connection.status(&StatusRequest {}).unwrap_err();
        assert!(connection.told.lock().unwrap().is_none());
    }
}
