//! What somebody might try against the policies.

use lastkey_core::permit::Resource;
use lastkey_core::principal::{Identity, Kind, Principal};
use lastkey_crypto::context::EncryptionContext;

use crate::support::{Ask, person, pod, session, set};

#[test]
fn a_person_called_like_the_first_administrator_is_not_him() {
    let open = lastkey_policy::PolicySet::compile(&[], lastkey_policy::Bootstrap::Open).unwrap();
    for kind in [Kind::User, Kind::Node] {
        let identity = Identity {
            name: Principal::ADMIN.to_owned(),
            kind,
            groups: Vec::new(),
            session: Some(session(None)),
        };
        assert!(!Ask::new(Principal::verified(identity), "kms:Decrypt").allowed(&open));
    }
}

#[test]
fn an_answer_kept_for_one_is_not_given_to_another_of_his_name() {
    let set =
        set("permit(principal in Group::\"ops\", action == Action::\"kms:Decrypt\", resource);");
    let with = |groups: &[&str]| Ask::new(person("alice", groups, session(None)), "kms:Decrypt");
    assert!(with(&["ops"]).allowed(&set));
    assert!(!with(&[]).allowed(&set));
    assert!(with(&["ops"]).allowed(&set));
}

#[test]
fn a_group_is_not_a_role_and_names_cannot_be_forged_with_quotes() {
    let set =
        set("permit(principal in Role::\"app\", action == Action::\"kms:Decrypt\", resource);");
    for group in ["app", "Role::\"app\"", "x\", Role::\"app"] {
        let who = person("mallory", &[group], session(Some("x\" || principal in Role::\"app")));
        assert!(!Ask::new(who, "kms:Decrypt").allowed(&set), "{group}");
    }
}

#[test]
fn a_policy_that_cannot_be_evaluated_denies() {
    let overflow = "forbid(principal, action, resource) when { context has sessionAge && context.sessionAge * 9223372036854775807 > 3 };";
    let set = set(&format!("permit(principal, action, resource);\n{overflow}"));
    let ask = Ask::new(pod("app"), "sys:ConfirmClock").of(Resource::Instance);
    assert!(!ask.allowed(&set));
    assert_eq!(ask.why(&set), "app#2 cannot be evaluated");
    let told = ask.with(|question| set.explain(question));
    assert!(told.faults.first().unwrap().contains("overflow"), "{:?}", told.faults);
}

#[test]
fn an_account_made_anew_under_an_old_name_is_told_apart() {
    let set = set(
        "permit(principal == ServiceAccount::\"prod/shop/api\", action == Action::\"kms:Decrypt\", resource) when { principal.uid == \"u-1\" };",
    );
    assert!(Ask::new(pod("app"), "kms:Decrypt").allowed(&set));
    let mut identity = pod("app").identity().clone();
    if let Kind::Workload(workload) = &mut identity.kind {
        workload.service_account_uid = "u-2".to_owned();
    }
    assert!(!Ask::new(Principal::verified(identity), "kms:Decrypt").allowed(&set));
}

#[test]
fn an_empty_encryption_context_does_not_pass_for_a_named_one() {
    let set = set(
        "permit(principal, action == Action::\"kms:Decrypt\", resource);
forbid(principal, action == Action::\"kms:Decrypt\", resource) unless { context.ec.hasTag(\"tenant\") };",
    );
    let mut ask = Ask::new(pod("app"), "kms:Decrypt");
    assert!(!ask.allowed(&set));
    ask.context = EncryptionContext::from_raw(b"tenant").unwrap();
    assert!(!ask.allowed(&set));
    ask.context = EncryptionContext::from_pairs([("tenant", "")]).unwrap();
    assert!(ask.allowed(&set));
}
