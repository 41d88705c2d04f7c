//! A call in Cedar's form: the few entities that its policies may look at, and its context.
//!
//! Room      `policy`.
//! Source    `schema.cedarschema`: what is built here is what the schema says.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use cedar_policy_core::ast::{
    Context, Entity, EntityUID, EntityUIDEntry, Name, PartialValue, Request, Value,
};
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;
use lastkey_core::permit::{Facts, KeyFacts, Resource};
use lastkey_core::principal::{Bound, Identity, Kind, Principal, SPIFFE, Workload};
use lastkey_core::secret_item::paths_above;
use lastkey_core::time::Timestamp;

use crate::actions::Known;
use crate::names::{Thing, Type};
use crate::needs::Needs;
use crate::scope::{Place, Register};

/// A caller or a thing, with what is above it.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// It.
    pub(crate) thing: Thing,
    /// What it is in, directly or not.
    pub(crate) above: Vec<Thing>,
    uid: Arc<EntityUID>,
    // `None` when no condition looks at it.
    entity: Option<Arc<Entity>>,
}

impl Standing {
    /// The caller: his namespace and cluster or provider, his groups, his role.
    pub(crate) fn of_caller(who: &Principal) -> Option<Self> {
        let identity = who.identity();
        let (thing, mut above, attributes) = kind_of(identity);
        above.extend(identity.groups.iter().map(|group| Thing::new(Type::Group, group.as_str())));
        above.extend(who.role().map(|role| Thing::new(Type::Role, role)));
        Self::build(thing, above, attributes, BTreeMap::new())
    }

    /// What an action is done to. Nothing is known to be above anything but keys and secrets.
    pub(crate) fn of_resource(resource: &Resource, key: Option<KeyFacts<'_>>) -> Option<Self> {
        let thing = Thing::of_resource(resource);
        let above = above(&thing, key);
        let tags = match (thing.kind, key) {
            (Type::Key | Type::Secret, Some(key)) => key.tags.iter().collect(),
            _untagged => BTreeMap::new(),
        };
        Self::build(thing, above, Vec::new(), tags)
    }

    /// The same, for conditions that look at neither its tags nor what is above it.
    pub(crate) fn in_name(resource: &Resource, key: Option<KeyFacts<'_>>) -> Option<Self> {
        let thing = Thing::of_resource(resource);
        let above = above(&thing, key);
        let uid = Arc::new(thing.uid()?);
        Some(Self { thing, above, uid, entity: None })
    }

    /// Where it stands.
    pub(crate) fn place(&self, register: &Register) -> Place {
        Place::of(&self.thing, &self.above, register)
    }

    fn build(
        thing: Thing,
        above: Vec<Thing>,
        attributes: Vec<(&'static str, &str)>,
        tags: BTreeMap<&str, &str>,
    ) -> Option<Self> {
        let uid = thing.uid()?;
        let above_uids = above.iter().map(Thing::uid).collect::<Option<HashSet<_>>>()?;
        let text =
            |(name, value): (&str, &str)| (name.into(), PartialValue::from(Value::from(value)));
        let attributes = attributes.into_iter().map(text);
        let tags = tags.into_iter().map(text);
        let entity = Entity::new_with_attr_partial_value(
            uid.clone(),
            attributes,
            HashSet::new(),
            above_uids,
            tags,
        );
        Some(Self { thing, above, uid: Arc::new(uid), entity: Some(Arc::new(entity)) })
    }
}

type Attributes<'a> = Vec<(&'static str, &'a str)>;

fn kind_of(identity: &Identity) -> (Thing, Vec<Thing>, Attributes<'_>) {
    let name = identity.name.as_str();
    let short = |prefix: &str| name.strip_prefix(prefix).unwrap_or(name);
    match &identity.kind {
        Kind::System => (Thing::new(Type::Service, name), Vec::new(), Vec::new()),
        Kind::User => (Thing::new(Type::User, short("user:")), Vec::new(), Vec::new()),
        Kind::Node => (Thing::new(Type::Node, short("node:")), Vec::new(), Vec::new()),
        Kind::Federated { provider, subject } => {
            let above = vec![Thing::new(Type::Provider, provider.as_str())];
            let attributes = vec![("provider", provider.as_str()), ("subject", subject.as_str())];
            (Thing::new(Type::Subject, format!("{provider}/{subject}")), above, attributes)
        }
        Kind::Workload(workload) => of_workload(workload),
    }
}

fn of_workload(workload: &Workload) -> (Thing, Vec<Thing>, Attributes<'_>) {
    let Workload { cluster, namespace, service_account, service_account_uid, pod: _, node: _ } =
        workload;
    let thing =
        Thing::new(Type::ServiceAccount, format!("{cluster}/{namespace}/{service_account}"));
    let above = vec![
        Thing::new(Type::Namespace, format!("{cluster}/{namespace}")),
        Thing::new(Type::Cluster, cluster.as_str()),
    ];
    let attributes = vec![
        ("cluster", cluster.as_str()),
        ("namespace", namespace.as_str()),
        ("name", service_account.as_str()),
        ("uid", service_account_uid.as_str()),
    ];
    (thing, above, attributes)
}

fn above(thing: &Thing, key: Option<KeyFacts<'_>>) -> Vec<Thing> {
    match (thing.kind, key) {
        (Type::Key, Some(key)) => {
            let aliases = key.aliases.iter().map(|alias| Thing::new(Type::Alias, alias.as_str()));
            let group = key.tags.iter().find(|(name, _)| *name == GROUP_TAG);
            aliases.chain(group.map(|(_, group)| Thing::new(Type::KeyGroup, group))).collect()
        }
        (Type::Secret | Type::SecretPath, _) => {
            let around = paths_above(&thing.name);
            around.map(|path| Thing::new(Type::SecretPath, path)).collect()
        }
        _alone => Vec::new(),
    }
}

/// The tag that names a key's group.
const GROUP_TAG: &str = "group";

/// One call, ready to be evaluated.
pub(crate) struct Call {
    request: Request,
    entities: Entities,
}

impl Call {
    /// Puts a call together with as much of the context as its policies need.
    pub(crate) fn new(
        (who, what): (&Standing, &Standing),
        action: &Known,
        identity: &Identity,
        facts: &Facts<'_>,
        needs: Needs,
    ) -> Option<Self> {
        let context =
            if needs.context { context(identity, facts, needs)? } else { Context::empty() };
        let ec = if needs.encryption_context { Some(encryption_context(facts)?) } else { None };
        Self::assemble(Some(who), what, (action, needs.entities), Some(context), ec)
    }

    /// A call by one caller, or by anybody, in any circumstances.
    pub(crate) fn whenever(
        who: Option<&Standing>,
        action: &Known,
        what: &Standing,
    ) -> Option<Self> {
        Self::assemble(who, what, (action, true), None, None)
    }

    fn assemble(
        who: Option<&Standing>,
        what: &Standing,
        (action, looked_at): (&Known, bool),
        context: Option<Context>,
        ec: Option<Arc<Entity>>,
    ) -> Option<Self> {
        // Who acts upon himself is one entity, and is where the caller is.
        let twin = who.is_some_and(|who| who.thing == what.thing);
        let entities = [
            who.and_then(|who| who.entity.as_ref()).filter(|_| looked_at),
            what.entity.as_ref().filter(|_| looked_at && !twin),
            Some(&action.entity).filter(|_| looked_at),
            ec.as_ref(),
        ];
        let closed = TCComputation::AssumeAlreadyComputed;
        let entities = entities.into_iter().flatten().map(Arc::clone);
        let entities = Entities::new().add_entities(
            entities,
            None::<&NoEntitiesSchema>,
            closed,
            Extensions::none(),
        );
        let caller = who.map_or_else(EntityUIDEntry::unknown, |who| entry(&who.uid));
        let request = Request::new_unchecked(caller, entry(&action.uid), entry(&what.uid), context);
        Some(Self { request, entities: entities.ok()? })
    }

    /// The request, for Cedar's own authorizer.
    #[cfg(test)]
    pub(crate) fn request(&self) -> Request {
        self.request.clone()
    }

    /// The entities, for Cedar's own authorizer.
    #[cfg(test)]
    pub(crate) const fn entities(&self) -> &Entities {
        &self.entities
    }

    /// An evaluator for this call.
    pub(crate) fn evaluator(&self) -> Evaluator<'_> {
        Evaluator::new(self.request.clone(), &self.entities, Extensions::all_available())
    }
}

fn entry(uid: &Arc<EntityUID>) -> EntityUIDEntry {
    EntityUIDEntry::Known { euid: Arc::clone(uid), loc: None }
}

fn encryption_context(facts: &Facts<'_>) -> Option<Arc<Entity>> {
    let pairs = facts.context.map(|context| context.pairs());
    let tags = pairs
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.into(), PartialValue::from(Value::from(value))));
    let uid = Arc::unwrap_or_clone(ec_uid()?);
    let no_attributes = core::iter::empty();
    Some(Arc::new(Entity::new_with_attr_partial_value(
        uid,
        no_attributes,
        HashSet::new(),
        HashSet::new(),
        tags,
    )))
}

fn ec_uid() -> Option<Arc<EntityUID>> {
    static UID: LazyLock<Option<Arc<EntityUID>>> =
        LazyLock::new(|| Thing::new(Type::EncryptionContext, "call").uid().map(Arc::new));
    UID.clone()
}

/// The context of a call. What is absent in the schema's sense is left out; what no policy of the
/// slice reads is left out too.
fn context(identity: &Identity, facts: &Facts<'_>, needs: Needs) -> Option<Context> {
    let mut all: BTreeMap<_, Value> = BTreeMap::new();
    if needs.now {
        all.insert("now".into(), time_value(facts.now)?);
    }
    let via = if facts.source.by_node_agent { "node" } else { "direct" };
    all.insert("via".into(), via.into());
    if let Some(address) = facts.source.address.filter(|_| needs.source) {
        all.insert("sourceIp".into(), address_value(address)?);
    }
    if needs.encryption_context {
        all.insert("ec".into(), Value::new(ec_uid()?, None));
    }
    if needs.session {
        add_session(&mut |name, value| drop(all.insert(name.into(), value)), identity, facts);
    }
    Some(Context::Value(Arc::new(all)))
}

fn add_session(add: &mut dyn FnMut(&'static str, Value), identity: &Identity, facts: &Facts<'_>) {
    let (session, workload) = (identity.session.as_ref(), workload_of(identity));
    let methods = session.map_or(&[][..], |session| &session.methods);
    add("methods", Value::set(methods.iter().map(|method| Value::from(method.as_str())), None));
    add("authStrength", Value::from(strength(identity)));
    if let Some(session) = session {
        add("sessionAge", Value::from(facts.now.seconds_since(session.issued_at)));
        if let Some(at) = session.second_factor_at {
            add("mfaAge", Value::from(facts.now.seconds_since(at)));
        }
    }
    if let Some(pod) = workload.and_then(|workload| workload.pod.as_ref()) {
        add("pod", object(pod));
    }
    if let Some(node) = workload.and_then(|workload| workload.node.as_ref()) {
        add("node", object(node));
    }
}

/// 0: nothing but possession of a token; 1: one factor, or a workload's own token; 2: two factors.
fn strength(identity: &Identity) -> i64 {
    let is_workload = match &identity.kind {
        Kind::Workload(_) => true,
        Kind::Federated { provider, .. } => provider == SPIFFE,
        Kind::System | Kind::User | Kind::Node => false,
    };
    match &identity.session {
        Some(session) if session.second_factor_at.is_some() => 2,
        Some(session) if is_workload || !session.methods.is_empty() => 1,
        Some(_) | None => 0,
    }
}

fn workload_of(identity: &Identity) -> Option<&Workload> {
    match &identity.kind {
        Kind::Workload(workload) => Some(workload),
        Kind::System | Kind::User | Kind::Node | Kind::Federated { .. } => None,
    }
}

fn object(bound: &Bound) -> Value {
    Value::record([("name", bound.name.as_str()), ("uid", bound.uid.as_str())], None)
}

/// Cedar makes addresses out of text alone, and knows no IPv4 address inside an IPv6 one.
fn address_value(address: IpAddr) -> Option<Value> {
    static IP: LazyLock<Option<Name>> = LazyLock::new(|| "ip".parse().ok());
    extension(IP.as_ref()?, &[Value::from(address.to_canonical().to_string())])
}

fn time_value(now: Timestamp) -> Option<Value> {
    static OFFSET: LazyLock<Option<(Name, Name, Value)>> = LazyLock::new(|| {
        let start = extension(&"datetime".parse().ok()?, &[Value::from("1970-01-01")])?;
        Some(("offset".parse().ok()?, "duration".parse().ok()?, start))
    });
    let (offset, duration, start) = OFFSET.as_ref()?;
    let since = extension(duration, &[Value::from(format!("{}s", now.0))])?;
    extension(offset, &[start.clone(), since])
}

fn extension(function: &Name, arguments: &[Value]) -> Option<Value> {
    match Extensions::all_available().func(function).ok()?.call(arguments).ok()? {
        PartialValue::Value(value) => Some(value),
        PartialValue::Residual(_) => None,
    }
}
