//! Properties of whole sets, on random policies and calls.
//!
//! Room      `policy`, its tests.

use cedar_policy_core::ast::PolicySet as Policies;
use cedar_policy_core::authorizer::{Authorizer, Decision as Verdict};
use lastkey_core::ids::{AliasName, KeyId, SessionId};
use lastkey_core::key::Tags;
use lastkey_core::permit::{DecisionPoint, Facts, KeyFacts, Question, Resource, ResourceKind};
use lastkey_core::principal::{Bound, Identity, Kind, Principal, Session, Source, Workload};
use lastkey_core::secret_item::SecretName;
use lastkey_core::time::Timestamp;
use lastkey_crypto::context::EncryptionContext;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::actions::Action;
use crate::document::{Check, Document, DocumentKind};
use crate::entities::Standing;
use crate::needs::Needs;
use crate::set::{PolicySet, call};

const KEYS: [u8; 3] = [1, 2, 3];

fn key(number: u8) -> KeyId {
    KeyId::from_random([number; 16])
}

fn who_scope() -> impl Strategy<Value = String> {
    let kinds = ["ServiceAccount", "User", "Subject", "Node", "Service"];
    let things = [
        "ServiceAccount::\"c/n/a\"",
        "User::\"u\"",
        "Service::\"admin\"",
        "Group::\"g\"",
        "Group::\"h\"",
        "Role::\"r\"",
        "Role::\"s\"",
        "Namespace::\"c/n\"",
        "Cluster::\"c\"",
        "Provider::\"p\"",
        "Subject::\"p/x\"",
    ];
    scope("principal", kinds.to_vec(), things.iter().map(|t| (*t).to_owned()).collect())
}

fn what_scope() -> impl Strategy<Value = String> {
    let mut things: Vec<String> =
        KEYS.iter().map(|number| format!("Key::\"{}\"", key(*number))).collect();
    for thing in [
        "Alias::\"alias/a\"",
        "Alias::\"alias/b\"",
        "KeyGroup::\"k\"",
        "KeyGroup::\"l\"",
        "User::\"u\"",
        "Group::\"g\"",
        "Instance::\"this\"",
        "SecretPath::\"a\"",
        "Secret::\"a/b/c\"",
    ] {
        things.push(thing.to_owned());
    }
    scope("resource", vec!["Key", "User", "Instance", "Secret"], things)
}

fn scope(
    side: &'static str,
    kinds: Vec<&'static str>,
    things: Vec<String>,
) -> impl Strategy<Value = String> {
    (0_u8..6, select(kinds), select(things)).prop_map(move |(form, kind, thing)| match form {
        0 => side.to_owned(),
        1 => format!("{side} is {kind}"),
        2 => format!("{side} == {thing}"),
        3 => format!("{side} is {kind} in {thing}"),
        _ => format!("{side} in {thing}"),
    })
}

const ACTIONS: [&str; 6] = [
    "kms:Decrypt",
    "kms:Encrypt",
    "kms:UpdateKey",
    "iam:UpdateUser",
    "sys:Seal",
    "secrets:GetSecret",
];

fn action_scope() -> impl Strategy<Value = String> {
    let names = [
        "kms:Decrypt",
        "kms:Encrypt",
        "kms:UpdateKey",
        "iam:UpdateUser",
        "sys:Seal",
        "secrets:GetSecret",
        "kms:Use",
        "kms:Manage",
        "admin:Security",
    ];
    let list = subsequence(names.to_vec(), 1..4).prop_map(|names| {
        let list: Vec<_> = names.iter().map(|name| format!("Action::\"{name}\"")).collect();
        format!("action in [{}]", list.join(", "))
    });
    prop_oneof![
        Just("action".to_owned()),
        select(names.to_vec()).prop_map(|name| format!("action == Action::\"{name}\"")),
        select(names.to_vec()).prop_map(|name| format!("action in Action::\"{name}\"")),
        list,
    ]
}

/// Conditions, some of which cannot be evaluated in some calls.
fn condition() -> impl Strategy<Value = String> {
    let atoms = [
        "true",
        "false",
        "principal in Group::\"g\"",
        "principal is User",
        "principal == User::\"u\"",
        "resource in KeyGroup::\"k\"",
        "resource is Key",
        "action == Action::\"kms:Decrypt\"",
        "action in Action::\"kms:Use\"",
        "context.via == \"node\"",
        "context has sourceIp",
        "context.sourceIp.isInRange(ip(\"10.0.0.0/8\"))",
        "context.now < datetime(\"2026-06-01\")",
        "context.ec.hasTag(\"t\")",
        "context.ec.getTag(\"t\") == \"a\"",
        "context.mfaAge < 300",
        "context has mfaAge",
        "context.authStrength >= 1",
        "resource.getTag(\"e\") == \"1\"",
        "principal.namespace == \"n\"",
        "context has pod.uid",
        "principal == resource",
        "resource.hasTag(\"e\")",
        "context.methods.contains(\"otp\")",
        "context == {}",
    ];
    let atom = select(atoms.to_vec()).prop_map(str::to_owned);
    atom.prop_recursive(2, 6, 2, |inner| {
        (inner.clone(), inner, 0_u8..3).prop_map(|(left, right, form)| match form {
            0 => format!("({left}) && ({right})"),
            1 => format!("({left}) || ({right})"),
            _ => format!("!({left})"),
        })
    })
}

fn policy() -> impl Strategy<Value = String> {
    let conditions = prop::collection::vec((any::<bool>(), condition()), 0..2);
    (prop::bool::weighted(0.25), who_scope(), action_scope(), what_scope(), conditions).prop_map(
        |(forbids, who, action, what, conditions)| {
            let effect = if forbids { "forbid" } else { "permit" };
            let mut text = format!("{effect}({who}, {action}, {what})");
            for (when, condition) in conditions {
                text += &format!(" {} {{ {condition} }}", if when { "when" } else { "unless" });
            }
            text + ";"
        },
    )
}

fn set() -> impl Strategy<Value = PolicySet> {
    prop::collection::vec(policy(), 1..30).prop_map(|policies| {
        let text = policies.join("\n");
        let document = Document { name: "d".to_owned(), kind: DocumentKind::Installation, text };
        PolicySet::bare(&document, Check::Syntax).unwrap_or_else(|fault| panic!("{fault}"))
    })
}

fn kind() -> impl Strategy<Value = (&'static str, Kind)> {
    let bound = |uid: &str| Some(Bound { name: "x".to_owned(), uid: uid.to_owned() });
    let workload = Workload {
        cluster: "c".to_owned(),
        namespace: "n".to_owned(),
        service_account: "a".to_owned(),
        service_account_uid: "1".to_owned(),
        pod: bound("pod"),
        node: bound("node"),
    };
    let unbound =
        Workload { service_account: "b".to_owned(), pod: None, node: None, ..workload.clone() };
    let federated = Kind::Federated { provider: "p".to_owned(), subject: "x".to_owned() };
    select(vec![
        ("k8s:c/n/a", Kind::Workload(workload)),
        ("k8s:c/n/b", Kind::Workload(unbound)),
        ("user:u", Kind::User),
        ("user:v", Kind::User),
        ("node:m", Kind::Node),
        ("admin", Kind::System),
        ("oidc:p/x", federated),
    ])
}

fn caller() -> impl Strategy<Value = Principal> {
    let groups = subsequence(vec!["g".to_owned(), "h".to_owned()], 0..=2);
    let role = prop::option::of(select(vec!["r".to_owned(), "s".to_owned()]));
    let session =
        prop::option::of((role, any::<u8>(), prop::option::of(0_u64..1_000), any::<bool>()));
    (kind(), groups, session).prop_map(|((name, kind), groups, session)| {
        let session = session.map(|(role, id, factor, otp)| Session {
            id: SessionId([id; 16]),
            role,
            issued_at: Timestamp(1_780_000_000),
            expires_at: Timestamp(1_790_000_000),
            token_id: None,
            methods: if otp { vec!["otp".to_owned()] } else { Vec::new() },
            second_factor_at: factor.map(|ago| Timestamp(1_780_000_000 - ago)),
            policy: None,
            limits: Vec::new(),
        });
        Principal::verified(Identity { name: name.to_owned(), kind, groups, session })
    })
}

/// A call, owned.
#[derive(Clone, Debug)]
struct Asked {
    who: Principal,
    action: &'static str,
    resource: Resource,
    now: Timestamp,
    source: Source,
    context: Option<EncryptionContext>,
    aliases: Vec<AliasName>,
    tags: Tags,
}

impl Asked {
    fn with<R>(&self, ask: impl FnOnce(&Question<'_>) -> R) -> R {
        let facts = Facts {
            now: self.now,
            source: self.source,
            context: self.context.as_ref(),
            key: self.names(),
        };
        ask(&Question {
            who: &self.who,
            action: self.action,
            resource: &self.resource,
            facts: &facts,
        })
    }

    fn names(&self) -> Option<KeyFacts<'_>> {
        let tagged = matches!(self.resource, Resource::Key(_) | Resource::Secret(_));
        tagged.then_some(KeyFacts { aliases: &self.aliases, tags: &self.tags })
    }
}

fn resource() -> impl Strategy<Value = Resource> {
    let user = |name: &str| Resource::Named(ResourceKind::User, name.to_owned());
    let secret = |name: &str| Resource::Secret(SecretName::parse(name).unwrap());
    let keys = KEYS.map(|number| Resource::Key(key(number)));
    let others = vec![user("u"), user("w"), Resource::Instance];
    prop_oneof![
        4 => select(keys.to_vec()),
        2 => select(vec![secret("a/b/c"), secret("a/d"), secret("b")]),
        1 => select(others),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let time = select(vec![Timestamp(1_780_000_000), Timestamp(1_785_000_000)]);
    let address = prop::option::of(select(vec!["10.0.0.1", "192.0.2.1", "::1"]));
    let tags = subsequence(vec![("group", "k"), ("group", "l"), ("e", "1"), ("e", "2")], 0..4);
    let context = prop::option::of(subsequence(vec![("t", "a"), ("s", "b")], 0..=2));
    let aliases = subsequence(vec!["alias/a", "alias/b"], 0..=2);
    (
        caller(),
        select(ACTIONS.to_vec()),
        resource(),
        time,
        address,
        any::<bool>(),
        tags,
        context,
        aliases,
    )
        .prop_map(
            |(who, action, resource, now, address, by_node_agent, tags, context, aliases)| {
                let tags =
                    tags.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
                Asked {
                    who,
                    action,
                    resource,
                    now,
                    source: Source {
                        address: address.map(|text| text.parse().unwrap()),
                        by_node_agent,
                    },
                    context: context.map(|pairs| EncryptionContext::from_pairs(pairs).unwrap()),
                    aliases: aliases
                        .into_iter()
                        .map(|name| AliasName::parse(name).unwrap())
                        .collect(),
                    tags: Tags::default().with(tags).unwrap(),
                }
            },
        )
}

/// Every policy of the set, put to Cedar's own authorizer; a fault denies.
fn whole_set(set: &PolicySet, question: &Question<'_>, action: Action) -> bool {
    let who = Standing::of_caller(question.who).unwrap();
    let what = Standing::of_resource(question.resource, question.facts.key).unwrap();
    let call = call(question, action, (&who, &what), Needs::ALL).unwrap();
    let policies =
        Policies::try_from_iter(set.rules.iter().map(|rule| rule.policy.clone())).unwrap();
    let answer = Authorizer::new().is_authorized(call.request(), &policies, call.entities());
    answer.decision == Verdict::Allow && answer.diagnostics.errors.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_slice_decides_as_the_whole_set(set in set(), calls in prop::collection::vec(asked(), 12)) {
        for asked in &calls {
            asked.with(|question| {
                let action = Action::parse(question.action).unwrap();
                let done_to = action.is_done_to(Standing::of_resource(question.resource, None).unwrap().thing.kind);
                let expected = done_to && whole_set(&set, question, action);
                let decision = set.decide(question);
                prop_assert_eq!(decision.allowed, expected, "{:?} {:?}", asked, decision.why);
                let told = set.explain(question);
                prop_assert_eq!(told.allowed, expected);
                prop_assert_eq!(told.why.as_str(), decision.why.as_str());
                prop_assert!(!expected || !told.by.is_empty());
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_kept_decision_is_the_decision(set in set(), calls in prop::collection::vec(asked(), 6), order in prop::collection::vec(0_usize..6, 24)) {
        for number in order {
            let asked = calls.get(number).unwrap();
            let action = Action::parse(asked.action).unwrap();
            let (kept, made) = asked.with(|question| (set.decide(question).allowed, set.judge(question, action).allowed));
            prop_assert_eq!(kept, made, "{:?}", asked);
        }
    }

    #[test]
    fn who_can_agrees_with_asking_everybody(set in set(), asked in asked(), everybody in prop::collection::vec((caller(), asked()), 16)) {
        let action = Action::parse(asked.action).unwrap();
        let found = set.who_can(asked.action, &asked.resource, asked.names());
        let what = Standing::of_resource(&asked.resource, asked.names()).unwrap();
        for (who, circumstances) in everybody {
            let asked = Asked { who, action: asked.action, resource: asked.resource.clone(), aliases: asked.aliases.clone(), tags: asked.tags.clone(), ..circumstances };
            asked.with(|question| {
                let caller = set.caller(question).unwrap();
                // What he may do to himself through his groups is not told.
                if caller.standing.thing == what.thing {
                    return Ok(());
                }
                let call = call(question, action, (&caller.standing, &what), Needs::ALL).unwrap();
                let holds = |answer: &crate::who_can::Answer| {
                    let rule = set.rules.iter().find(|rule| rule.id == answer.policy).unwrap();
                    let about = answer.side.matches(&caller.place);
                    let holds = about.then(|| rule.holds(Some(&call.evaluator())));
                    assert!(!(about && answer.conditions.is_empty()) || holds != Some(Ok(false)), "{answer:?}");
                    holds
                };
                let (may, may_not): (Vec<_>, Vec<_>) = (found.may.iter().filter_map(holds).collect(), found.may_not.iter().filter_map(holds).collect());
                let barred = may.iter().any(Result::is_err) || may_not.iter().any(|holds| *holds != Ok(false));
                let expected = !barred && may.contains(&Ok(true));
                prop_assert_eq!(set.decide(question).allowed, expected, "{:?} {:?}", asked, found);
                Ok(())
            })?;
        }
    }

    #[test]
    fn nobody_is_allowed_where_nobody_is_said_to_be_left(set in set(), asked in asked()) {
        let left = set.leaves_somebody(asked.action, &asked.resource, asked.names());
        let twin = asked.with(|question| set.caller(question).unwrap().standing.thing == crate::names::Thing::of_resource(question.resource));
        let allowed = asked.with(|question| set.decide(question).allowed);
        prop_assert!(left || twin || !allowed);
    }

    #[test]
    fn what_is_permitted_nowhere_is_allowed_nowhere(set in set(), asked in asked()) {
        let allowed = asked.with(|question| set.decide(question).allowed);
        prop_assert!(!allowed || set.permits_somewhere(&asked.who, asked.action));
    }

    #[test]
    fn who_can_change_policies_is_an_administrator_that_is_left(set in set(), mut asked in asked()) {
        asked.action = "iam:UpdatePolicy";
        asked.resource = Resource::Named(ResourceKind::Policy, String::new());
        let allowed = asked.with(|question| set.decide(question).allowed);
        prop_assert!(!allowed || set.leaves_an_administrator(&[asked.who]));
    }

    #[test]
    fn any_text_is_compiled_or_refused(text in "[a-z(){};:\"=&|! .,\\[\\]@/\n\\\\]{0,200}") {
        let document = Document { name: "d".to_owned(), kind: DocumentKind::Installation, text };
        if let Err(fault) = document.check() {
            prop_assert!(fault.line >= 1 && fault.column >= 1);
            prop_assert!(fault.line <= document.text.matches('\n').count() + 1);
        }
    }
}
