//! Callers, keys and sets that the tests share.

use std::sync::Arc;

use lastkey_core::ids::{AliasName, KeyId, SessionId};
use lastkey_core::key::Tags;
use lastkey_core::permit::{Decision, DecisionPoint, Facts, KeyFacts, Question, Resource};
use lastkey_core::principal::{Bound, Identity, Kind, Principal, Session, Source, Workload};
use lastkey_core::time::Timestamp;
use lastkey_crypto::context::EncryptionContext;
use lastkey_policy::{Bootstrap, Document, DocumentKind, PolicyError, PolicySet};

/// 2026-11-23T12:00:00Z.
pub(crate) const NOON: Timestamp = Timestamp(1_795_435_200);

pub(crate) fn key_id() -> KeyId {
    KeyId::parse("3fa85f64-5717-4562-b3fc-2c963f66afa6").unwrap()
}

pub(crate) fn document(name: &str, text: &str) -> Document {
    Document { name: name.to_owned(), kind: DocumentKind::Installation, text: text.to_owned() }
}

pub(crate) fn compile(text: &str) -> Result<PolicySet, PolicyError> {
    PolicySet::compile(&[document("app", text)], Bootstrap::Closed)
}

pub(crate) fn set(text: &str) -> PolicySet {
    compile(text).unwrap_or_else(|fault| panic!("{fault}"))
}

pub(crate) fn session(role: Option<&str>) -> Session {
    Session {
        id: SessionId([7; 16]),
        role: role.map(str::to_owned),
        issued_at: NOON.offset(-60),
        expires_at: NOON.offset(840),
        token_id: Some("jti".to_owned()),
        methods: Vec::new(),
        second_factor_at: None,
        policy: None,
        limits: Vec::new(),
    }
}

pub(crate) fn pod(role: &str) -> Principal {
    let bound = |name: &str, uid: &str| Some(Bound { name: name.to_owned(), uid: uid.to_owned() });
    let workload = Workload {
        cluster: "prod".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "api".to_owned(),
        service_account_uid: "u-1".to_owned(),
        pod: bound("api-0", "p-1"),
        node: bound("n1", "n-1"),
    };
    Principal::verified(Identity {
        name: "k8s:prod/shop/api".to_owned(),
        kind: Kind::Workload(workload),
        groups: Vec::new(),
        session: Some(session(Some(role))),
    })
}

pub(crate) fn narrowed(role: &str, policy: &str) -> Principal {
    let mut identity = pod(role).identity().clone();
    identity.session.as_mut().unwrap().policy = Some(Arc::from(policy));
    Principal::verified(identity)
}

pub(crate) fn person(name: &str, groups: &[&str], session: Session) -> Principal {
    Principal::verified(Identity {
        name: format!("user:{name}"),
        kind: Kind::User,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        session: Some(session),
    })
}

/// What a test asks, with facts that it may change.
pub(crate) struct Ask {
    pub(crate) who: Principal,
    pub(crate) action: &'static str,
    pub(crate) resource: Resource,
    pub(crate) source: Source,
    pub(crate) now: Timestamp,
    pub(crate) context: EncryptionContext,
    pub(crate) aliases: Vec<AliasName>,
    pub(crate) tags: Tags,
}

impl Ask {
    pub(crate) fn new(who: Principal, action: &'static str) -> Self {
        let source = Source { address: Some("10.1.2.3".parse().unwrap()), by_node_agent: false };
        Self {
            who,
            action,
            resource: Resource::Key(key_id()),
            source,
            now: NOON,
            context: EncryptionContext::none(),
            aliases: vec![AliasName::parse("alias/app").unwrap()],
            tags: Tags::default().with([("group".to_owned(), "shop".to_owned())]).unwrap(),
        }
    }

    pub(crate) fn of(mut self, resource: Resource) -> Self {
        self.resource = resource;
        self
    }

    pub(crate) fn with<R>(&self, use_question: impl FnOnce(&Question<'_>) -> R) -> R {
        let key = matches!(self.resource, Resource::Key(_) | Resource::Secret(_));
        let key = key.then_some(KeyFacts { aliases: &self.aliases, tags: &self.tags });
        let facts = Facts { now: self.now, source: self.source, context: Some(&self.context), key };
        use_question(&Question {
            who: &self.who,
            action: self.action,
            resource: &self.resource,
            facts: &facts,
        })
    }

    pub(crate) fn decide(&self, set: &PolicySet) -> Decision {
        self.with(|question| set.decide(question))
    }

    pub(crate) fn allowed(&self, set: &PolicySet) -> bool {
        self.decide(set).allowed
    }

    pub(crate) fn why(&self, set: &PolicySet) -> String {
        self.decide(set).why.as_str().to_owned()
    }
}
