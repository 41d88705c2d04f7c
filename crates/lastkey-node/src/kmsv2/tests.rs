//! The provider against a key service in memory, in a time of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::material::{MaterialSpec, generate, public_key_der};
use lastkey_crypto::oaep::{OaepKey, OaepPublicKey};
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::SecretVec;
use tokio::time::{advance, sleep};

use super::ciphertext::{Bound, Ciphertext};
use super::fake::{FakeKeys, Mood};
use super::provider::Sealed;
use super::*;
use crate::ports::{Happening, Herald, KeyOps};

const SEED: [u8; 32] = [7; 32];
const BOUND: Duration = Duration::from_secs(3_600);

fn config(cluster: &str) -> ProviderConfig {
    ProviderConfig {
        name: "etcd".to_owned(),
        key: "alias/etcd".to_owned(),
        cluster: cluster.to_owned(),
        when_away: WhenAway::Coast,
        bound: BOUND,
        recovery: None,
    }
}

fn provider_of(config: ProviderConfig, keys: &Arc<FakeKeys>) -> Arc<Provider> {
    let keys: Arc<dyn KeyOps> = keys.clone();
    Arc::new(Provider::new(config, keys, &Metrics::new("test", false)))
}

/// A provider that looks at the service as in the product.
fn running(config: ProviderConfig, keys: &Arc<FakeKeys>) -> Arc<Provider> {
    let provider = provider_of(config, keys);
    tokio::spawn(refresh(Arc::clone(&provider)));
    provider
}

/// Lets the time pass in which everything is seen that must be seen within ten seconds.
async fn ten_seconds() {
    sleep(Duration::from_secs(10)).await;
}

async fn seconds(count: u64) {
    sleep(Duration::from_secs(count)).await;
}

fn seal(provider: &Provider) -> Result<Sealed, Denial> {
    provider.encrypt(&SecretVec::copy_of(&SEED), None)
}

async fn open(provider: &Provider, sealed: &Sealed) -> Result<(), Denial> {
    let (key_id, annotations) = (&*sealed.under.key_id, &sealed.under.annotations);
    let bound = Bound { key_id, annotations };
    let seed = provider.decrypt(&sealed.ciphertext, bound).await?;
    assert!(seed.expose(|seed| seed == SEED));
    Ok(())
}

fn key_id(provider: &Provider) -> String {
    provider.health().unwrap().0
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_before_the_service_was_reached() {
    let keys = Arc::new(FakeKeys::new());
    keys.mood(Mood::Away);
    let provider = running(config(""), &keys);
    seconds(100).await;
    assert_eq!(provider.health(), Err(Denial::Starting));
    assert_eq!(seal(&provider).err(), Some(Denial::Starting));
    keys.mood(Mood::Serves);
    seconds(1).await;
    assert_eq!(provider.health().unwrap().1, Health::Ok);
    open(&provider, &seal(&provider).unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn status_and_encrypt_ask_nobody() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let before = keys.calls();
    for _ in 0..100 {
        provider.health().unwrap();
        let sealed = seal(&provider).unwrap();
        open(&provider, &sealed).await.unwrap();
    }
    assert_eq!(keys.calls(), before);
}

#[tokio::test(start_paused = true)]
async fn outage_is_told_and_ends_at_the_bound() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let sealed = seal(&provider).unwrap();
    let id = key_id(&provider);
    keys.mood(Mood::Away);
    ten_seconds().await;
    assert_eq!(provider.health(), Ok((id.clone(), Health::Ok)));
    seconds(20).await;
    let (told, health) = provider.health().unwrap();
    assert_eq!(told, id);
    let Health::Coasting { silent, left } = health else { panic!("{health:?}") };
    assert!(silent > Duration::from_secs(15) && silent + left == BOUND, "{silent:?} {left:?}");
    open(&provider, &seal(&provider).unwrap()).await.unwrap();
    open(&provider, &sealed).await.unwrap();

    sleep(BOUND).await;
    assert!(matches!(provider.health(), Err(Denial::Away { .. })));
    assert!(matches!(seal(&provider).err(), Some(Denial::Away { .. })));
    assert!(matches!(open(&provider, &sealed).await, Err(Denial::Away { .. })));
    keys.mood(Mood::Serves);
    ten_seconds().await;
    assert_eq!(key_id(&provider), id, "the key is the same");
    open(&provider, &sealed).await.unwrap();
}

/// Keeps the reasons of what it is told.
#[derive(Default)]
struct Heard(std::sync::Mutex<Vec<&'static str>>);

impl Herald for Heard {
    fn tell(&self, provider: &str, happening: Happening) {
        assert_eq!(provider, "etcd");
        self.0.lock().unwrap().push(happening.reason());
    }
}

#[tokio::test(start_paused = true)]
async fn operators_are_told_once_of_what_changes_and_of_no_short_silence() {
    let keys = Arc::new(FakeKeys::new());
    let heard = Arc::new(Heard::default());
    let told = || std::mem::take(&mut *heard.0.lock().unwrap());
    let ops: Arc<dyn KeyOps> = keys.clone();
    let provider = Provider::new(config(""), ops, &Metrics::new("test", false));
    let provider = Arc::new(provider.announced_by(heard.clone()));
    tokio::spawn(refresh(Arc::clone(&provider)));
    seconds(1).await;
    assert_eq!(told(), ["KeyVersionPromoted"]);
    keys.mood(Mood::Away);
    ten_seconds().await;
    keys.mood(Mood::Serves);
    ten_seconds().await;
    assert_eq!(told(), [""; 0], "a restart of the service");
    keys.mood(Mood::Away);
    seconds(60).await;
    assert_eq!(told(), ["KeyServiceSilent"]);
    sleep(BOUND).await;
    assert_eq!(told(), ["KeyServiceSilentTooLong"]);
    keys.mood(Mood::Serves);
    ten_seconds().await;
    assert_eq!(told(), ["KeyVersionPromoted", "KeyServiceAnswers"]);
    keys.mood(Mood::Disabled);
    seconds(60).await;
    assert_eq!(told(), ["KeyRefused"]);
    keys.mood(Mood::Serves);
    keys.rotate();
    ten_seconds().await;
    assert_eq!(told(), ["KeyVersionPromoted", "KeyServiceAnswers"]);
}

#[tokio::test(start_paused = true)]
async fn operator_may_say_that_writes_stop_in_an_outage() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(ProviderConfig { when_away: WhenAway::Stop, ..config("") }, &keys);
    seconds(1).await;
    let sealed = seal(&provider).unwrap();
    keys.mood(Mood::Away);
    seconds(30).await;
    assert!(matches!(provider.health(), Err(Denial::Away { .. })));
    assert!(matches!(seal(&provider).err(), Some(Denial::Away { .. })));
    open(&provider, &sealed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn disabled_key_is_refused_within_ten_seconds_and_its_local_keys_are_gone() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let (id, sealed) = (key_id(&provider), seal(&provider).unwrap());
    keys.mood(Mood::Disabled);
    ten_seconds().await;
    let refused = |error: Option<Denial>| matches!(error, Some(Denial::Refused { .. }));
    assert!(refused(provider.health().err()));
    assert!(refused(seal(&provider).err()));
    assert!(refused(open(&provider, &sealed).await.err()));
    assert_eq!(provider.ring.len(), 0);
    // What an outage may do without, a refusal must not.
    keys.mood(Mood::Away);
    ten_seconds().await;
    assert!(refused(seal(&provider).err()));
    assert!(open(&provider, &sealed).await.is_err());
    keys.mood(Mood::Serves);
    ten_seconds().await;
    assert_eq!(key_id(&provider), id);
    open(&provider, &sealed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn local_key_that_comes_in_after_a_refusal_is_not_used() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let sealed = seal(&provider).unwrap();
    let by_service = Ciphertext::parse(&sealed.ciphertext).unwrap().by_service.to_vec();
    let late = provider.ring.find(&by_service).unwrap();
    keys.mood(Mood::Disabled);
    ten_seconds().await;
    provider.ring.insert(&by_service, late);
    assert!(matches!(open(&provider, &sealed).await, Err(Denial::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn rotation_changes_the_key_id_and_older_ciphertexts_open() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let mut seen = vec![(key_id(&provider), seal(&provider).unwrap())];
    for step in 0..3 {
        // The last step makes the first version primary again.
        if step < 2 {
            keys.rotate()
        } else {
            keys.make_primary(1)
        }
        ten_seconds().await;
        let id = key_id(&provider);
        assert!(seen.iter().all(|(before, _)| *before != id), "{id} came back");
        seen.push((id, seal(&provider).unwrap()));
    }
    for (id, sealed) in &seen {
        assert_eq!(*id, sealed.under.key_id);
        open(&provider, sealed).await.unwrap();
    }
    assert_eq!(seen[1].1.under.annotations["key-version.lastkey.dev"][36..], *b"/2");
}

#[tokio::test(start_paused = true)]
async fn key_that_went_back_is_not_used_until_it_is_rotated() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let first = key_id(&provider);
    keys.rotate();
    ten_seconds().await;
    assert_ne!(key_id(&provider), first);
    keys.roll_back();
    ten_seconds().await;
    let Err(Denial::Refused { code, .. }) = provider.health() else { panic!("it went back") };
    assert_eq!(code, "KeyWentBack");
}

#[tokio::test(start_paused = true)]
async fn older_state_of_the_service_stops_writes_and_everything_stays_readable() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let first = seal(&provider).unwrap();
    keys.rotate();
    ten_seconds().await;
    let second = seal(&provider).unwrap();
    // What the older state has not is in the memory of the plugin.
    keys.lose_newest();
    keys.mood(Mood::RolledBack);
    let stopped = async || {
        ten_seconds().await;
        assert_eq!(provider.health(), Err(Denial::RolledBack("it is older".to_owned())));
        assert!(matches!(seal(&provider).err(), Some(Denial::RolledBack(_))));
        for sealed in [&first, &second] {
            open(&provider, sealed).await.unwrap();
        }
    };
    stopped().await;
    // The silence of its restart is no word.
    keys.mood(Mood::Away);
    ten_seconds().await;
    assert!(matches!(seal(&provider).err(), Some(Denial::RolledBack(_))));
    keys.mood(Mood::RolledBack);
    stopped().await;
    // What it has is readable for whoever starts meanwhile.
    let later = running(config(""), &keys);
    seconds(1).await;
    assert!(matches!(later.health(), Err(Denial::RolledBack(_))));
    open(&later, &first).await.unwrap();
    assert!(open(&later, &second).await.is_err());
    keys.mood(Mood::Serves);
    ten_seconds().await;
    open(&later, &seal(&later).unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn local_key_that_an_older_state_refuses_between_two_looks_stays() {
    let keys = Arc::new(FakeKeys::new());
    keys.rotate();
    let sealed = {
        let before = running(config(""), &keys);
        seconds(1).await;
        seal(&before).unwrap()
    };
    let provider = running(config(""), &keys);
    seconds(1).await;
    open(&provider, &sealed).await.unwrap();
    // Longer ago than a local key is used without a question.
    seconds(601).await;
    keys.lose_newest();
    keys.mood(Mood::RolledBack);
    provider.health().unwrap();
    open(&provider, &sealed).await.unwrap();
    ten_seconds().await;
    open(&provider, &sealed).await.unwrap();
    // Lost without an older state, it is gone.
    keys.mood(Mood::Serves);
    ten_seconds().await;
    assert_eq!(open(&provider, &sealed).await, Err(Denial::Undecryptable));
    keys.mood(Mood::RolledBack);
    ten_seconds().await;
    assert_eq!(open(&provider, &sealed).await, Err(Denial::Undecryptable));
}

#[tokio::test(start_paused = true)]
async fn local_key_that_an_older_state_lost_protects_nothing_after_the_word() {
    let keys = Arc::new(FakeKeys::new());
    keys.rotate();
    let provider = running(config(""), &keys);
    seconds(1).await;
    let before = key_id(&provider);
    keys.mood(Mood::RolledBack);
    ten_seconds().await;
    // Rotated again after the restore: the number is the same, the version is not.
    keys.restore_and_rotate();
    keys.mood(Mood::Serves);
    let mut health = provider.health();
    while health.is_err() {
        seconds(1).await;
        health = provider.health();
    }
    assert_ne!(health.unwrap().0, before);
    let sealed = seal(&provider).unwrap();
    let later = running(config(""), &keys);
    seconds(1).await;
    open(&later, &sealed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn key_that_was_disabled_before_the_older_state_came_stays_refused() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let sealed = seal(&provider).unwrap();
    keys.mood(Mood::Disabled);
    ten_seconds().await;
    keys.mood(Mood::RolledBack);
    ten_seconds().await;
    assert!(matches!(open(&provider, &sealed).await, Err(Denial::RolledBack(_))));
    keys.mood(Mood::Serves);
    ten_seconds().await;
    open(&provider, &sealed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_version_of_the_same_number_has_another_key_id() {
    let keys = Arc::new(FakeKeys::new());
    keys.rotate();
    let provider = running(config(""), &keys);
    seconds(1).await;
    let before = key_id(&provider);
    keys.restore_and_rotate();
    seconds(70).await;
    assert_ne!(key_id(&provider), before);
    open(&provider, &seal(&provider).unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn version_that_a_rotation_overtakes_is_not_promoted() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    keys.rotate();
    keys.overtake(2);
    ten_seconds().await;
    let sealed = seal(&provider).unwrap();
    assert_eq!(sealed.under.key.version, 4);
    let by = Ciphertext::parse(&sealed.ciphertext).unwrap().protected_by().unwrap();
    assert_eq!(by.version, 4);
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_has_promoted_first_opens_at_once() {
    let keys = Arc::new(FakeKeys::new());
    let (ours, peers) = (running(config(""), &keys), provider_of(config(""), &keys));
    seconds(1).await;
    keys.rotate();
    let looking = tokio::spawn(refresh(Arc::clone(&peers)));
    while peers.health().is_err() {
        tokio::task::yield_now().await;
    }
    looking.abort();
    assert_ne!(key_id(&ours), key_id(&peers), "the peer is ahead");
    let asked = keys.unwraps();
    for _ in 0..10 {
        open(&ours, &seal(&peers).unwrap()).await.unwrap();
    }
    assert_eq!(keys.unwraps(), asked + 1, "one call for one local key");
    ten_seconds().await;
    assert_eq!(key_id(&ours), key_id(&peers), "both know the version by one name");
}

#[tokio::test(start_paused = true)]
async fn ciphertext_of_another_cluster_does_not_open() {
    let keys = Arc::new(FakeKeys::new());
    let clusters = ["prod", "stage", ""].map(|cluster| running(config(cluster), &keys));
    seconds(1).await;
    for (ours, provider) in clusters.iter().enumerate() {
        for (theirs, other) in clusters.iter().enumerate() {
            let opened = open(provider, &seal(other).unwrap()).await;
            let expected = if ours == theirs { Ok(()) } else { Err(Denial::Undecryptable) };
            assert_eq!(opened, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn old_local_key_is_asked_about_again_and_refused_when_it_was_withdrawn() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let sealed = seal(&provider).unwrap();
    keys.rotate();
    ten_seconds().await;
    open(&provider, &sealed).await.unwrap();
    advance(Duration::from_secs(601)).await;
    let asked = keys.unwraps();
    open(&provider, &sealed).await.unwrap();
    assert!(keys.unwraps() > asked);
}

#[tokio::test(start_paused = true)]
async fn lengths_over_the_limits_of_the_protocol_are_refused() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let none = BTreeMap::new();
    let long = "k".repeat(1_025);
    let big = [("a.b".to_owned(), vec![0; 32 * 1_024])].into();
    let ask = |ciphertext: Vec<u8>, key_id: &'static str, annotations| {
        let provider = &provider;
        async move { provider.decrypt(&ciphertext, Bound { key_id, annotations }).await.err() }
    };
    let invalid = |denial: Option<Denial>| matches!(denial, Some(Denial::Invalid(_)));
    assert!(invalid(ask(vec![0; 1_025], "", &none).await));
    assert!(invalid(ask(vec![0; 10], long.leak(), &none).await));
    assert!(invalid(ask(vec![0; 10], "", &big).await));
    let undecryptable = Some(Denial::Undecryptable);
    assert_eq!(ask(vec![0; 1_024], "", &none).await, undecryptable);
    assert_eq!(ask(vec![], "", &none).await, undecryptable);
    let seal = |len: usize| provider.encrypt(&SecretVec::copy_of(&vec![1; len]), None).err();
    assert!(invalid(seal(0)) && invalid(seal(1_025)) && seal(512).is_none());
}

#[tokio::test(start_paused = true)]
async fn recovery_key_opens_what_the_service_cannot_any_more() {
    let material = generate(MaterialSpec::Rsa3072, &mut SystemEntropy).unwrap();
    let public = public_key_der(MaterialSpec::Rsa3072, &material).unwrap();
    let recovery = OaepPublicKey::new(MaterialSpec::Rsa3072, &public).unwrap();
    let keys = Arc::new(FakeKeys::new());
    let provider = running(ProviderConfig { recovery: Some(recovery), ..config("") }, &keys);
    seconds(1).await;
    let sealed = seal(&provider).unwrap();
    assert!(sealed.ciphertext.len() <= 1_024);
    let parsed = Ciphertext::parse(&sealed.ciphertext).unwrap();
    let offline = OaepKey::new(MaterialSpec::Rsa3072, &material).unwrap();
    let local = offline.decrypt(parsed.for_recovery).unwrap().to_array().unwrap();
    let bound = Bound { key_id: &sealed.under.key_id, annotations: &sealed.under.annotations };
    let seed = parsed.open(&WrapKey::new(&local).unwrap(), bound).unwrap();
    assert!(seed.expose(|seed| seed == SEED));
}

#[tokio::test(start_paused = true)]
async fn metrics_show_the_hash_that_the_api_server_shows() {
    let keys = Arc::new(FakeKeys::new());
    let metrics = Metrics::new("1.2.3", true);
    let as_ops: Arc<dyn KeyOps> = keys.clone();
    let provider = Arc::new(Provider::new(config(""), as_ops, &metrics));
    tokio::spawn(refresh(Arc::clone(&provider)));
    seconds(1).await;
    let hash = || key_id_hash(&key_id(&provider));
    let first = hash();
    assert!(metrics.scrape().contains(&first));
    keys.rotate();
    ten_seconds().await;
    let text = metrics.scrape();
    assert!(text.contains(&hash()) && !text.contains(&first), "{text}");
    assert!(text.contains("lastkey_kms_plugin_memory_locked 1"), "{text}");
}

/// As an API server would see it: Status, then Encrypt, while the key is rotated.
#[tokio::test(start_paused = true)]
async fn status_and_encrypt_agree_through_a_thousand_rotations() {
    let keys = Arc::new(FakeKeys::new());
    let provider = running(config(""), &keys);
    seconds(1).await;
    let caller = {
        let provider = Arc::clone(&provider);
        tokio::spawn(async move {
            let mut seen = std::collections::BTreeSet::new();
            loop {
                let (told, _) = provider.current().unwrap();
                // Anything may happen between the two.
                sleep(Duration::from_millis(700)).await;
                let seed = SecretVec::copy_of(&SEED);
                let bound = provider.encrypt(&seed, Some(Arc::clone(&told))).unwrap();
                assert_eq!(bound.under.key_id, told.key_id);
                let (now, _) = provider.current().unwrap();
                let free = provider.encrypt(&seed, None).unwrap();
                assert_eq!(free.under.key_id, now.key_id, "one snapshot for both");
                open(&provider, &bound).await.unwrap();
                seen.insert(told.key_id.clone());
                if seen.len() > 1_000 {
                    return;
                }
            }
        })
    };
    while !caller.is_finished() {
        keys.rotate();
        seconds(5).await;
    }
    caller.await.unwrap();
}
