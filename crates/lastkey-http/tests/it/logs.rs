//! What the log may hold.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use crate::world::World;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A word that stands in every part of the requests below.
const SECRET: &str = "hunter2";

#[tokio::test]
async fn no_part_of_a_request_reaches_the_log_at_any_level() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(captured.clone())
        .finish();
    // With one dispatcher only, whichever thread comes first decides for all whether an event is
    // of interest, and the threads of other tests have none. A second one ends that.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    // The runtime of this test has one thread, so the server logs here as well.
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::start().await;
    let mut admin = world.admin().await;
    let mut answers = Vec::new();
    for (method, target, body) in [
        ("GET", "/hunter2?hunter2=hunter2", ""),
        ("GET", "/v1/keys/hunter2?hunter2=hunter2", ""),
        ("GET", "/v1/keys?marker=hunter2", ""),
        ("POST", "/v1/encrypt", r#"{"key":"hunter2","plaintext":"hunter2 "}"#),
        ("POST", "/v1/encrypt", r#"{"key":"alias/hunter2","plaintext":"aHVudGVyMg=="}"#),
        ("POST", "/v1/sys/unseal", r#"{"passphrase":"hunter2"}"#),
        ("POST", "/v1/keys", r#"{"description":"hunter2"}"#),
    ] {
        answers.push(admin.send(method, target, body).await);
    }
    let mut wrong = world.anybody().await.with_token("hunter2");
    answers.push(wrong.send("GET", "/v1/keys", "").await);
    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    for answer in &answers {
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert!(log.contains(id), "{id} in\n{log}");
        if answer.status != 200 {
            assert!(!String::from_utf8_lossy(&answer.body).contains(SECRET), "{:?}", answer.body);
        }
    }
    assert!(log.contains("/v1/keys/{key}") && log.contains("status=401"), "{log}");
    assert!(!log.contains(SECRET) && !log.contains(&world.admin), "{log}");
}
