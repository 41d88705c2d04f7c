//! Decisions, and what is told about them.

use lastkey_core::key::Tags;
use lastkey_core::permit::{ALL_ACTIONS, DecisionPoint, KeyFacts, Resource, ResourceKind};
use lastkey_core::principal::Principal;
use lastkey_core::secret_item::{SecretName, SecretPath};
use lastkey_crypto::context::EncryptionContext;
use lastkey_policy::{
    AUDIT_ADMINISTRATOR, Bootstrap, PastCall, PolicySet, SECURITY_ADMINISTRATOR,
    SYSTEM_ADMINISTRATOR,
};

use crate::support::{Ask, NOON, key_id, narrowed, person, pod, session, set};

const APP_MAY_DECRYPT: &str = "permit(principal in Role::\"app\", action == Action::\"kms:Decrypt\", resource in Alias::\"alias/app\");";

#[test]
fn nothing_is_allowed_without_a_policy() {
    let set = set("");
    for (action, _) in ALL_ACTIONS {
        for resource in [Resource::Key(key_id()), Resource::Instance] {
            let ask = Ask::new(pod("app"), action).of(resource);
            assert!(!ask.allowed(&set), "{action}");
        }
    }
    assert_eq!(Ask::new(pod("app"), "kms:Decrypt").why(&set), "no policy allows it");
}

#[test]
fn a_decision_names_the_policies_that_decided() {
    let text = format!(
        "@id(\"use\") {APP_MAY_DECRYPT}\n@id(\"night\") forbid(principal, action, resource) when {{ context.now.toTime() < duration(\"6h\") }};"
    );
    let set = set(&text);
    let mut ask = Ask::new(pod("app"), "kms:Decrypt");
    assert_eq!(ask.why(&set), "allowed by app#use");
    ask.now = NOON.offset(-9 * 3600);
    assert_eq!(ask.why(&set), "forbidden by app#night");
}

#[test]
fn a_key_is_found_by_alias_group_and_tag_as_they_are_now() {
    let by_tag = "resource is Key) when { resource.hasTag(\"env\") && resource.getTag(\"env\") == \"test\" };";
    for (scope, changed) in [
        ("resource in Alias::\"alias/app\");", 0),
        ("resource in KeyGroup::\"shop\");", 1),
        (by_tag, 2),
    ] {
        let set = set(&format!("permit(principal, action == Action::\"kms:Decrypt\", {scope}"));
        let mut ask = Ask::new(pod("app"), "kms:Decrypt");
        ask.tags = ask.tags.with([("env".to_owned(), "test".to_owned())]).unwrap();
        assert!(ask.allowed(&set) && ask.allowed(&set), "{scope}");
        match changed {
            0 => ask.aliases.clear(),
            1 => ask.tags = ask.tags.without(["group"]),
            _ => ask.tags = Tags::default(),
        }
        assert!(!ask.allowed(&set), "{scope}");
    }
}

#[test]
fn conditions_read_the_call() {
    type Spoil = fn(&mut Ask);
    let cases: [(&str, Spoil); 6] = [
        ("context has sourceIp && context.sourceIp.isInRange(ip(\"10.0.0.0/8\"))", |ask| {
            ask.source.address = Some("192.0.2.1".parse().unwrap())
        }),
        ("context has sourceIp && context.sourceIp.isIpv4()", |ask| ask.source.address = None),
        ("context.now < datetime(\"2026-11-24\")", |ask| ask.now = NOON.offset(86_400)),
        ("context.via == \"direct\"", |ask| ask.source.by_node_agent = true),
        ("context.ec.hasTag(\"tenant\") && context.ec.getTag(\"tenant\") == \"a\"", |ask| {
            ask.context = EncryptionContext::from_pairs([("tenant", "b")]).unwrap()
        }),
        ("context has pod && context.pod.uid == \"p-1\"", |ask| {
            ask.who = person("x", &[], session(None))
        }),
    ];
    for (condition, spoil) in cases {
        let set = set(&format!(
            "permit(principal, action == Action::\"kms:Decrypt\", resource) when {{ {condition} }};"
        ));
        let mut ask = Ask::new(pod("app"), "kms:Decrypt");
        ask.context = EncryptionContext::from_pairs([("tenant", "a")]).unwrap();
        assert!(ask.allowed(&set), "{condition}: {}", ask.why(&set));
        spoil(&mut ask);
        assert!(!ask.allowed(&set), "{condition}");
    }
}

#[test]
fn an_ipv4_address_inside_an_ipv6_one_is_that_address() {
    let set = set(
        "permit(principal, action == Action::\"kms:Decrypt\", resource) when { context has sourceIp && context.sourceIp.isInRange(ip(\"10.0.0.0/8\")) };",
    );
    let mut ask = Ask::new(pod("app"), "kms:Decrypt");
    ask.source.address = Some("::ffff:10.1.2.3".parse().unwrap());
    assert!(ask.allowed(&set));
}

#[test]
fn strength_and_age_of_the_login_count() {
    let set = set(
        "permit(principal, action == Action::\"kms:ScheduleKeyDeletion\", resource) when { context.authStrength >= 2 && context has mfaAge && context.mfaAge < 300 };",
    );
    let mut fresh = session(None);
    fresh.methods = vec!["pwd".to_owned(), "otp".to_owned()];
    let mut stale = fresh.clone();
    fresh.second_factor_at = Some(NOON.offset(-60));
    stale.second_factor_at = Some(NOON.offset(-600));
    let ask = |session| Ask::new(person("alice", &[], session), "kms:ScheduleKeyDeletion");
    assert!(ask(fresh).allowed(&set));
    assert!(!ask(stale).allowed(&set));
    assert!(!ask(session(None)).allowed(&set));
}

#[test]
fn a_session_policy_takes_away_and_never_gives() {
    let base = set(APP_MAY_DECRYPT);
    let decrypt = "permit(principal, action == Action::\"kms:Decrypt\", resource);";
    let everything = "permit(principal, action, resource);";
    assert!(Ask::new(narrowed("app", decrypt), "kms:Decrypt").allowed(&base));
    assert!(Ask::new(narrowed("app", everything), "kms:Decrypt").allowed(&base));
    assert!(!Ask::new(narrowed("app", everything), "kms:Encrypt").allowed(&base));
    assert!(!Ask::new(narrowed("other", everything), "kms:Decrypt").allowed(&base));
    for narrow in [
        "",
        "permit(principal, action == Action::\"kms:Encrypt\", resource);",
        "forbid(principal, action, resource);",
        "not cedar",
    ] {
        let ask = Ask::new(narrowed("app", narrow), "kms:Decrypt");
        assert!(!ask.allowed(&base), "{narrow}");
        assert!(ask.why(&base).contains("session's own policy"), "{narrow}");
    }
    // One session id, two policies: the answer to one is not kept for the other.
    assert!(Ask::new(pod("app"), "kms:Decrypt").allowed(&base));
}

#[test]
fn each_administrator_does_his_part_and_no_other() {
    let greedy =
        set("permit(principal, action, resource) unless { action in Action::\"kms:Due\" };");
    let roles = [SYSTEM_ADMINISTRATOR, SECURITY_ADMINISTRATOR, AUDIT_ADMINISTRATOR];
    let cluster = Resource::Named(ResourceKind::Cluster, "prod".to_owned());
    let policy = Resource::Named(ResourceKind::Policy, "app".to_owned());
    let parts = [
        ("sys:Seal", Resource::Instance, SYSTEM_ADMINISTRATOR),
        ("sys:UpdateCluster", cluster, SYSTEM_ADMINISTRATOR),
        ("iam:UpdatePolicy", policy, SECURITY_ADMINISTRATOR),
        ("iam:RevokeSessions", Resource::Instance, SECURITY_ADMINISTRATOR),
        ("kms:CreateKey", Resource::Instance, SECURITY_ADMINISTRATOR),
        ("audit:Read", Resource::Instance, AUDIT_ADMINISTRATOR),
        ("kms:Decrypt", Resource::Key(key_id()), ""),
        ("kms:DestroyKey", Resource::Key(key_id()), ""),
    ];
    for base in [&set(""), &greedy] {
        for (action, resource, allowed) in &parts {
            for role in roles {
                let who = person("alice", &[], session(Some(role)));
                let ask = Ask::new(who, action).of(resource.clone());
                assert_eq!(ask.allowed(base), role == *allowed, "{action} {role}");
            }
        }
    }
}

#[test]
fn the_first_administrator_counts_until_somebody_is_enrolled() {
    let admin = || Principal::named(Principal::ADMIN);
    let open = PolicySet::compile(&[], Bootstrap::Open).unwrap();
    let closed = PolicySet::compile(&[], Bootstrap::Closed).unwrap();
    assert!(Ask::new(admin(), "kms:Decrypt").allowed(&open));
    assert!(!Ask::new(admin(), "kms:DestroyKey").allowed(&open));
    assert!(!Ask::new(admin(), "kms:Decrypt").allowed(&closed));
}

#[test]
fn the_scheduler_may_do_what_is_due_and_cannot_read() {
    let set = set("permit(principal, action, resource);");
    let scheduler = || Principal::named(Principal::SCHEDULER);
    let own = PolicySet::compile(&[], Bootstrap::Closed).unwrap();
    for due in ["kms:DestroyKey", "kms:ExpireImport", "kms:RecordErasure", "kms:RotateKey"] {
        assert!(Ask::new(scheduler(), due).allowed(&own), "{due}");
    }
    assert!(!Ask::new(scheduler(), "kms:Decrypt").allowed(&own));
    assert!(!Ask::new(pod("app"), "kms:DestroyKey").allowed(&set));
}

#[test]
fn an_action_on_the_wrong_kind_of_thing_is_refused() {
    let set = set("permit(principal, action, resource);");
    assert!(!Ask::new(pod("app"), "sys:Seal").allowed(&set));
    assert!(Ask::new(pod("app"), "sys:Seal").of(Resource::Instance).allowed(&set));
    assert!(!Ask::new(pod("app"), "kms:NoSuchThing").allowed(&set));
}

#[test]
fn an_explanation_names_what_nearly_held() {
    let text = format!(
        "@id(\"app\") {APP_MAY_DECRYPT}\n@id(\"office\") permit(principal in Role::\"app\", action == Action::\"kms:Encrypt\", resource) when {{ context.via == \"direct\" && context has sourceIp && context.sourceIp.isInRange(ip(\"192.0.2.0/24\")) }};"
    );
    let set = set(&text);
    let told = Ask::new(pod("app"), "kms:Encrypt").with(|question| set.explain(question));
    assert!(!told.allowed);
    assert_eq!(told.misses.first().unwrap().policy, "app#office");
    assert_eq!(
        told.to_string(),
        "refused: no policy allows it\n  app#office would allow it, but this does not hold: the source address is in 192.0.2.0/24\n  app#app would allow it, but it is about kms:Decrypt"
    );
    let told = Ask::new(pod("other"), "kms:Decrypt").with(|question| set.explain(question));
    assert_eq!(told.misses.first().unwrap().failed, "it is about anybody in role app");
    let told = Ask::new(pod("app"), "kms:Decrypt").with(|question| set.explain(question));
    assert_eq!((told.allowed, told.by, told.misses.len()), (true, vec!["app#app".to_owned()], 0));
    let narrow = narrowed("app", "permit(principal, action == Action::\"kms:Sign\", resource);");
    let told = Ask::new(narrow, "kms:Decrypt").with(|question| set.explain(question));
    assert_eq!(told.misses.first().unwrap().policy, "session#1");
}

#[test]
fn who_can_names_callers_and_conditions_in_words() {
    let text = format!(
        "{APP_MAY_DECRYPT}\npermit(principal is User in Group::\"ops\", action in Action::\"kms:Use\", resource is Key) when {{ resource.hasTag(\"env\") && resource.getTag(\"env\") == \"prod\" && context has mfaAge && context.mfaAge < 300 }};\npermit(principal, action, resource in KeyGroup::\"else\");\nforbid(principal in Cluster::\"old\", action, resource);"
    );
    let set = set(&text);
    let tags = Tags::default().with([("env".to_owned(), "prod".to_owned())]).unwrap();
    let aliases = [lastkey_core::ids::AliasName::parse("alias/app").unwrap()];
    let found = set.who_can(
        "kms:Decrypt",
        &Resource::Key(key_id()),
        Some(KeyFacts { aliases: &aliases, tags: &tags }),
    );
    let told: Vec<_> = found
        .may
        .iter()
        .map(|a| (a.policy.as_str(), a.who.as_str(), a.conditions.join("; ")))
        .collect();
    assert_eq!(told, [
        ("built-in#secrets", "service system:secrets", String::new()),
        ("app#1", "anybody in role app", String::new()),
        ("app#2", "any user in group ops", "the age of the second factor in seconds is known; the age of the second factor in seconds is less than 300".to_owned()),
    ]);
    assert!(
        found.may_not.iter().any(|a| a.who == "anybody in cluster old" && a.conditions.is_empty())
    );
    let found = set.who_can(
        "kms:Decrypt",
        &Resource::Key(key_id()),
        Some(KeyFacts { aliases: &[], tags: &Tags::default() }),
    );
    let told: Vec<_> = found.may.iter().map(|answer| answer.policy.as_str()).collect();
    assert_eq!(told, ["built-in#secrets"]);
}

#[test]
fn a_set_that_locks_everybody_out_is_seen() {
    let security = || person("alice", &[], session(Some(SECURITY_ADMINISTRATOR)));
    let candidates = [pod("app"), security()];
    assert!(set("").leaves_an_administrator(&candidates));
    assert!(!set("").leaves_an_administrator(&candidates[..1]));
    assert!(!set("").leaves_an_administrator(&[]));
    for lock in [
        "forbid(principal, action, resource);",
        "forbid(principal, action in Action::\"admin:Security\", resource);",
        "forbid(principal == User::\"alice\", action == Action::\"iam:UpdatePolicy\", resource);",
        "forbid(principal, action, resource) unless { principal in Group::\"nobody\" };",
    ] {
        assert!(!set(lock).leaves_an_administrator(&candidates), "{lock}");
    }
    for fine in [
        "forbid(principal is ServiceAccount, action, resource);",
        "forbid(principal, action in Action::\"admin:Security\", resource) unless { context has mfaAge && context.mfaAge < 300 };",
    ] {
        assert!(set(fine).leaves_an_administrator(&candidates), "{fine}");
    }
}

#[test]
fn what_a_caller_may_do_nowhere_is_seen_without_a_thing() {
    let set = set(&format!("{APP_MAY_DECRYPT}\nforbid(principal, action, resource);"));
    assert!(set.permits_somewhere(&pod("app"), "kms:Decrypt"), "what forbids it may not be there");
    assert!(!set.permits_somewhere(&pod("app"), "kms:Encrypt"));
    assert!(!set.permits_somewhere(&pod("other"), "kms:Decrypt"));
    assert!(!set.permits_somewhere(&pod("app"), "kms:Nothing"));
}

#[test]
fn a_key_left_with_nobody_is_seen() {
    let key = Resource::Key(key_id());
    let aliases = [lastkey_core::ids::AliasName::parse("alias/app").unwrap()];
    let tags = Tags::default();
    let facts = || Some(KeyFacts { aliases: &aliases, tags: &tags });
    assert!(set(APP_MAY_DECRYPT).leaves_somebody("kms:Decrypt", &key, facts()));
    assert!(!set("").leaves_somebody("kms:Decrypt", &key, facts()));
    let barred =
        format!("{APP_MAY_DECRYPT}\nforbid(principal in Role::\"app\", action, resource);");
    assert!(!set(&barred).leaves_somebody("kms:Decrypt", &key, facts()));
}

#[test]
fn a_dry_run_tells_which_past_calls_change() {
    let past = |role: &str, action: &str, allowed| PastCall {
        who: pod(role),
        action: action.to_owned(),
        resource: Resource::Key(key_id()),
        now: NOON,
        source: lastkey_core::principal::Source::default(),
        context: None,
        key: Some((
            vec![lastkey_core::ids::AliasName::parse("alias/app").unwrap()],
            Tags::default(),
        )),
        allowed,
    };
    let calls = [
        past("app", "kms:Decrypt", true),
        past("app", "kms:Encrypt", true),
        past("app", "kms:Encrypt", false),
        past("gone", "kms:Decrypt", false),
        past("app", "kms:NoLonger", true),
    ];
    let changes = set(APP_MAY_DECRYPT).replay(&calls);
    assert_eq!(
        changes.iter().map(|change| (change.call, change.allowed)).collect::<Vec<_>>(),
        [(1, false), (4, false)]
    );
    let wider = set("permit(principal, action in Action::\"kms:Use\", resource);").replay(&calls);
    assert_eq!(
        wider.iter().map(|change| (change.call, change.allowed)).collect::<Vec<_>>(),
        [(2, true), (3, true), (4, false)]
    );
    assert_eq!(wider.first().unwrap().why, "allowed by app#1");
}

#[test]
fn a_set_serves_as_the_decision_point_of_the_core() {
    let set: Box<dyn DecisionPoint> = Box::new(set(APP_MAY_DECRYPT));
    assert!(Ask::new(pod("app"), "kms:Decrypt").with(|question| set.decide(question)).allowed);
}

fn secret(name: &str) -> Resource {
    Resource::Secret(SecretName::parse(name).unwrap())
}

fn path(path: &str) -> Resource {
    Resource::SecretPath(SecretPath::parse(path).unwrap())
}

#[test]
fn a_secret_is_in_every_path_around_it_and_in_no_other() {
    let set = set(
        "permit(principal in Role::\"app\", action in [Action::\"secrets:GetSecret\", Action::\"secrets:ListSecrets\"], resource in SecretPath::\"prod/shop\");",
    );
    let may = |action, resource| Ask::new(pod("app"), action).of(resource).allowed(&set);
    for name in ["prod/shop/db", "prod/shop/a/b"] {
        assert!(may("secrets:GetSecret", secret(name)), "{name}");
        assert!(!may("secrets:PutSecret", secret(name)), "{name}");
    }
    for name in ["prod/shop", "prod/shop-2/db", "prod/db", "test/prod/shop/db"] {
        assert!(!may("secrets:GetSecret", secret(name)), "{name}");
    }
    for (around, expected) in [("prod/shop", true), ("prod/shop/a", true), ("prod", false)] {
        assert_eq!(may("secrets:ListSecrets", path(around)), expected, "{around}");
    }
    assert!(!may("secrets:ListSecrets", Resource::Instance));
    assert!(!may("secrets:GetSecret", path("prod/shop")));
}

#[test]
fn a_secret_has_the_tags_that_it_has_now() {
    let set = set(
        "permit(principal, action == Action::\"secrets:GetSecret\", resource) when { resource.hasTag(\"env\") && resource.getTag(\"env\") == \"test\" };",
    );
    let mut ask = Ask::new(pod("app"), "secrets:GetSecret").of(secret("a"));
    ask.tags = Tags::default().with([("env".to_owned(), "test".to_owned())]).unwrap();
    assert!(ask.allowed(&set));
    ask.tags = Tags::default();
    assert!(!ask.allowed(&set));
}

#[test]
fn the_server_may_use_keys_for_secrets_until_a_policy_closes_one() {
    let own = Principal::named(Principal::SECRETS);
    for (action, expected) in [("kms:Encrypt", true), ("kms:Decrypt", true), ("kms:Sign", false)] {
        assert_eq!(Ask::new(own.clone(), action).allowed(&set("")), expected, "{action}");
    }
    let closed = set(
        "forbid(principal == Service::\"system:secrets\", action, resource in Alias::\"alias/app\");",
    );
    assert!(!Ask::new(own, "kms:Decrypt").allowed(&closed));
    let secrets = set("permit(principal, action in Action::\"secrets:Due\", resource);");
    let ask = Ask::new(pod("app"), "secrets:ExpireSecret").of(secret("a"));
    assert!(!ask.allowed(&secrets), "nobody skips a deletion window");
    let scheduler = Principal::named(Principal::SCHEDULER);
    assert!(Ask::new(scheduler, "secrets:ExpireSecret").of(secret("a")).allowed(&set("")));
}

#[test]
fn who_can_speaks_of_secrets_and_paths() {
    let set = set(
        "permit(principal in Role::\"app\", action == Action::\"secrets:GetSecret\", resource in SecretPath::\"prod\");",
    );
    let answers = set.who_can("secrets:GetSecret", &secret("prod/db"), None);
    assert!(answers.may.iter().any(|answer| answer.who.contains("role app")), "{answers:?}");
    let answers = set.who_can("secrets:GetSecret", &secret("test/db"), None);
    assert!(!answers.may.iter().any(|answer| answer.who.contains("role app")), "{answers:?}");
}
