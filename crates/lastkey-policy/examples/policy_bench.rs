//! What decisions cost: lines `policy.SIZE.NAME NANOSECONDS`.
//!
//! Room      `policy`. `make bench` runs it: `policy_bench [SIZE..]`, by default 10 and 10000
//!           policies. Of ten policies eight let one service account decrypt with one key under
//!           conditions on context, address and time, one does without conditions, and one
//!           forbids by address.
//! Holds     medians of nine rounds, processor time of this thread. `kept`: asked before; `made`:
//!           never kept, since conditions read the call; `first`: a session never seen before.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a bench has a clock, arguments and a terminal; the room it measures has none"
)]

use std::hint::black_box;

use lastkey_core::ids::{AliasName, KeyId, SessionId};
use lastkey_core::key::Tags;
use lastkey_core::permit::{DecisionPoint, Facts, KeyFacts, Question, Resource};
use lastkey_core::principal::{Identity, Kind, Principal, Session, Source, Workload};
use lastkey_core::time::Timestamp;
use lastkey_crypto::context::EncryptionContext;
use lastkey_policy::{Bootstrap, Document, DocumentKind, PolicySet};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 9;
const CALLS: u32 = 2_000;
const NOON: Timestamp = Timestamp(1_795_435_200);

fn main() -> Outcome<()> {
    let sizes =
        std::env::args().skip(1).map(|size| size.parse()).collect::<Result<Vec<u32>, _>>()?;
    for size in if sizes.is_empty() { vec![10, 10_000] } else { sizes } {
        measure(size)?;
    }
    Ok(())
}

fn measure(size: u32) -> Outcome<()> {
    let tell = |name: &str, nanoseconds: u128| println!("policy.{size}.{name} {nanoseconds}");
    let documents: Vec<_> = (0..size).map(document).collect();
    let start = cpu_time();
    let set = PolicySet::compile(&documents, Bootstrap::Closed)?;
    tell("compile", cpu_time() - start);
    let start = cpu_time();
    drop(set.recompile(&documents, Bootstrap::Closed)?);
    tell("recompile", cpu_time() - start);
    let world = World::new()?;
    world
        .ask(&set, &caller(PLAIN, 0), PLAIN, "kept", &mut |name, call| tell(name, median(call)))?;
    world.ask(&set, &caller(STRICT, 0), STRICT, "made", &mut |name, call| {
        tell(name, median(call))
    })?;
    let mut sessions = (1..).map(|session| caller(PLAIN, session));
    let first = median(&mut || sessions.next().is_some_and(|who| world.allowed(&set, &who, PLAIN)));
    let mut built = (1..).map(|session| caller(PLAIN, session));
    let building =
        median(&mut || built.next().is_some_and(|who| black_box(who).session().is_some()));
    tell("first", first.saturating_sub(building));
    let (key, start) = (Resource::Key(key(STRICT)), cpu_time());
    let found = set.who_can("kms:Decrypt", &key, None);
    tell("who_can", cpu_time() - start);
    if found.may.is_empty() { Err("nobody can".into()) } else { Ok(()) }
}

/// Places of a policy without conditions and of one with them.
const PLAIN: u32 = 4;
const STRICT: u32 = 5;

struct World {
    aliases: [AliasName; 1],
    tags: Tags,
    context: EncryptionContext,
    source: Source,
}

impl World {
    fn new() -> Outcome<Self> {
        Ok(Self {
            aliases: [AliasName::parse("alias/app")?],
            tags: Tags::default().with([("group".to_owned(), "shop".to_owned())])?,
            context: EncryptionContext::from_pairs([("tenant", "t5"), ("app", "shop")])?,
            source: Source { address: Some("10.1.2.3".parse()?), by_node_agent: false },
        })
    }

    fn allowed(&self, set: &PolicySet, who: &Principal, place: u32) -> bool {
        let key_facts = KeyFacts { aliases: &self.aliases, tags: &self.tags };
        let context = Some(&self.context);
        let facts = Facts { now: NOON, source: self.source, context, key: Some(key_facts) };
        let resource = Resource::Key(key(place));
        let question = Question { who, action: "kms:Decrypt", resource: &resource, facts: &facts };
        set.decide(black_box(&question)).allowed
    }

    fn ask(
        &self,
        set: &PolicySet,
        who: &Principal,
        place: u32,
        name: &'static str,
        tell: &mut dyn FnMut(&str, &mut dyn FnMut() -> bool),
    ) -> Outcome<()> {
        if !self.allowed(set, who, place) {
            return Err(format!("{name}: refused").into());
        }
        tell(name, &mut || self.allowed(set, who, place));
        Ok(())
    }
}

fn median(call: &mut dyn FnMut() -> bool) -> u128 {
    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let start = cpu_time();
            let allowed = (0..CALLS).filter(|_| call()).count();
            assert_eq!(allowed, CALLS as usize, "a call was refused");
            (cpu_time() - start) / u128::from(CALLS)
        })
        .collect();
    rounds.sort_unstable();
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}

fn cpu_time() -> u128 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    u128::try_from(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec))
        .unwrap_or_default()
}

fn key(place: u32) -> KeyId {
    KeyId::from_random(u128::from(place).to_be_bytes())
}

fn document(place: u32) -> Document {
    let (key, account) = (key(place), format!("ServiceAccount::\"prod/shop/a{place}\""));
    let text = match place % 10 {
        4 => format!("permit(principal == {account}, action == Action::\"kms:Decrypt\", resource == Key::\"{key}\");"),
        9 => format!(
            "forbid(principal in Namespace::\"prod/n{place}\", action in Action::\"kms:Use\", resource == Key::\"{key}\")
             unless {{ context has sourceIp && context.sourceIp.isInRange(ip(\"10.0.0.0/8\")) }};"
        ),
        _ => format!(
            "permit(principal == {account}, action == Action::\"kms:Decrypt\", resource == Key::\"{key}\")
             when {{ context.ec.hasTag(\"tenant\") && context.ec.getTag(\"tenant\") == \"t{place}\" }}
             when {{ context has sourceIp && context.sourceIp.isInRange(ip(\"10.0.0.0/8\")) }}
             when {{ context.now < datetime(\"2030-01-01\") }};"
        ),
    };
    Document { name: format!("p{place}"), kind: DocumentKind::Installation, text }
}

fn caller(place: u32, session: u128) -> Principal {
    let workload = Workload {
        cluster: "prod".to_owned(),
        namespace: "shop".to_owned(),
        service_account: format!("a{place}"),
        service_account_uid: "5b1f8e0a-5ba6-4d36-9d1c-1c5a5c0a7c55".to_owned(),
        pod: None,
        node: None,
    };
    let session = Session {
        id: SessionId(session.to_be_bytes()),
        role: Some("shop".to_owned()),
        issued_at: NOON.offset(-60),
        expires_at: NOON.offset(840),
        token_id: None,
        methods: Vec::new(),
        second_factor_at: None,
        policy: None,
        limits: Vec::new(),
    };
    Principal::verified(Identity {
        name: format!("k8s:prod/shop/a{place}"),
        kind: Kind::Workload(workload),
        groups: Vec::new(),
        session: Some(session),
    })
}
