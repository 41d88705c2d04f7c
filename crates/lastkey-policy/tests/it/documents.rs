//! What a policy document may say, and how it is refused.

use lastkey_core::permit::Resource;
use lastkey_policy::{Bootstrap, Document, DocumentKind, PolicySet};

use crate::support::{Ask, compile, document, key_id, pod, set};

fn refused(text: &str) -> (usize, usize, String) {
    let fault = compile(text).map(drop).expect_err(text);
    assert_eq!(fault.document, "app");
    (fault.line, fault.column, fault.message)
}

#[test]
fn a_misspelt_word_is_refused_with_line_and_column() {
    let cases = [
        ("permit(principal, action, resource)\nwhen { contxt.via == \"node\" };", (2, 8), "contxt"),
        (
            "permit(principal, action == Action::\"kms:Decript\",\n  resource);",
            (1, 29),
            "kms:Decript",
        ),
        ("permit(principal is Usr, action, resource);", (1, 21), "Usr"),
        (
            "permit(principal, action in Action::\"kms:Use\", resource)\nwhen {\n  context.sourceIP == ip(\"10.0.0.1\")\n};",
            (3, 3),
            "sourceIP",
        ),
        ("permit(principal, action, resource)\nwhen { context.now == \"noon\" };", (2, 8), "types"),
        ("permit(principal, action, resource", (1, 35), "unexpected"),
        ("allow(principal, action, resource);", (1, 1), "allow"),
    ];
    for (text, place, word) in cases {
        let (line, column, message) = refused(text);
        assert_eq!((line, column), place, "{text}: {message}");
        assert!(message.contains(word), "{text}: {message}");
    }
}

#[test]
fn an_optional_fact_is_read_only_after_asking_whether_it_is_there() {
    let unguarded = "permit(principal, action in Action::\"kms:Use\", resource is Key) when { context.mfaAge < 300 };";
    assert!(refused(unguarded).2.contains("mfaAge"));
    let tag = "permit(principal, action in Action::\"kms:Use\", resource is Key)\nwhen { context.ec.getTag(\"t\") == \"a\" };";
    assert_eq!(refused(tag).0, 2);
    set(&unguarded.replace("context.mfaAge < 300", "context has mfaAge && context.mfaAge < 300"));
}

#[test]
fn a_policy_that_can_never_apply_is_refused() {
    let (line, _, message) =
        refused("// on what?\npermit(principal, action == Action::\"sys:Seal\", resource is Key);");
    assert!(message.contains("impossible") || message.contains("unable to find"), "{message}");
    assert_eq!(line, 2);
    assert!(!refused("permit(principal, action == Action::\"kms:Use\", resource);").2.is_empty());
}

#[test]
fn a_text_that_looks_like_another_is_refused() {
    let cyrillic =
        "permit(principal == User::\"\u{430}lice\", action in Action::\"kms:Use\", resource);";
    assert!(!refused(cyrillic).2.is_empty());
}

#[test]
fn slots_twins_and_reserved_names_are_refused() {
    let slot = "permit(principal == ?principal, action in Action::\"kms:Use\", resource);";
    assert!(refused(slot).2.contains("slots"));
    let twins = "@id(\"a\") permit(principal, action in Action::\"kms:Use\", resource);\n@id(\"a\") forbid(principal, action, resource);";
    assert_eq!(refused(twins).0, 2);
    for label in ["1", "", "a b", "a#b"] {
        assert!(
            refused(&format!("@id(\"{label}\") forbid(principal, action, resource);"))
                .2
                .contains("@id")
        );
    }
    let text = "permit(principal, action in Action::\"kms:Use\", resource);";
    for names in [["a", "a"], ["a", "built-in"]] {
        let documents = names.map(|name| document(name, text));
        assert!(PolicySet::compile(&documents, Bootstrap::Closed).is_err(), "{names:?}");
    }
}

#[test]
fn a_document_over_the_limit_is_refused() {
    assert!(refused(&" ".repeat(Document::MAX_LEN + 1)).2.contains("65536"));
    set(&" ".repeat(Document::MAX_LEN));
}

#[test]
fn a_policy_goes_only_so_deep_and_what_is_at_the_limit_is_read() {
    let row = |part: &str, times: usize, end: &str| vec![part; times].join("") + end;
    type Shape<'a> = (&'a str, &'a dyn Fn(usize) -> String, usize);
    let shapes: [Shape<'_>; 10] = [
        ("brackets", &|n| format!("{}true{}", "(".repeat(n), ")".repeat(n)), 31),
        ("nots", &|n| format!("{}true{}", "(!".repeat(n), ")".repeat(n)), 31),
        ("sets", &|n| format!("{}1{} == [1]", "[".repeat(n), "]".repeat(n)), 31),
        ("records", &|n| format!("{}1{} == {{}}", "{a:".repeat(n), "}".repeat(n)), 31),
        ("calls", &|n| format!("{}1{}", "[1].contains(".repeat(n), ")".repeat(n)), 31),
        ("ands", &|n| row("true && ", n, "true"), 128),
        ("ors", &|n| row("false || ", n, "true"), 128),
        ("sums", &|n| row("1 + ", n, "1 == 1"), 254),
        ("fields", &|n| format!("context{} == 1", row(".a", n, "")), 254),
        ("ifs", &|n| row("if true then true else ", n, "true"), 85),
    ];
    for (name, shape, limit) in shapes {
        let text =
            |times| format!("forbid(principal, action, resource) when {{ {} }};", shape(times));
        let over = compile(&text(limit + 1)).unwrap_err();
        assert!(
            over.message.contains("32 brackets") || over.message.contains("256 operators"),
            "{name}: {over}"
        );
        if let Err(fault) = compile(&text(limit)) {
            assert!(
                !fault.message.contains("at most") && !fault.message.contains("open"),
                "{name}: {fault}"
            );
        }
        assert!(compile(&text(20_000)).is_err(), "{name}");
    }
}

#[test]
fn brackets_and_operators_in_texts_and_comments_do_not_count() {
    let many = "((((((((((((((((((((((((((((((((((((((&&&&&&".repeat(50);
    set(&format!(
        "// {many}\nforbid(principal, action, resource) when {{ \"{many}\\\"((((\" == context.via }};"
    ));
}

#[test]
fn a_keys_policy_is_about_that_key_alone() {
    let own = |text: &str| Document {
        name: "key".to_owned(),
        kind: DocumentKind::Key(key_id()),
        text: text.to_owned(),
    };
    let compile = |text: &str| PolicySet::compile(&[own(text)], Bootstrap::Closed);
    let decrypt = || Ask::new(pod("app"), "kms:Decrypt");
    let other = Resource::Key(lastkey_core::ids::KeyId::from_random([9; 16]));
    for scope in ["resource", "resource is Key", &format!("resource == Key::\"{}\"", key_id())] {
        let set =
            compile(&format!("permit(principal, action == Action::\"kms:Decrypt\", {scope});"))
                .unwrap();
        assert!(decrypt().allowed(&set), "{scope}");
        assert!(!decrypt().of(other.clone()).allowed(&set), "{scope}");
    }
    for scope in
        ["resource == Key::\"other\"", "resource in Alias::\"alias/app\"", "resource is Instance"]
    {
        let text = format!("permit(principal,\n action == Action::\"kms:Decrypt\", {scope});");
        assert!(compile(&text).unwrap_err().message.contains("that key alone"), "{scope}");
    }
}

#[test]
fn a_roles_policy_is_about_that_role_alone() {
    let own = |text: &str| Document {
        name: "role".to_owned(),
        kind: DocumentKind::Role("app".to_owned()),
        text: text.to_owned(),
    };
    let compile = |text: &str| PolicySet::compile(&[own(text)], Bootstrap::Closed);
    for scope in ["principal", "principal is ServiceAccount", "principal in Role::\"app\""] {
        let set =
            compile(&format!("permit({scope}, action == Action::\"kms:Decrypt\", resource);"))
                .unwrap();
        assert!(Ask::new(pod("app"), "kms:Decrypt").allowed(&set), "{scope}");
        assert!(!Ask::new(pod("other"), "kms:Decrypt").allowed(&set), "{scope}");
    }
    for scope in
        ["principal == User::\"a\"", "principal in Role::\"admin\"", "principal == Role::\"app\""]
    {
        let text = format!("permit({scope}, action == Action::\"kms:Decrypt\", resource);");
        assert!(compile(&text).is_err(), "{scope}");
    }
}

#[test]
fn policies_are_listed_with_their_labels_built_in_ones_first() {
    let set = set(
        "@id(\"first\") forbid(principal, action, resource) when { context.via == \"node\" };\nforbid(principal is User, action, resource);",
    );
    let ids: Vec<_> = set.policies().map(|policy| policy.id).collect();
    assert!(ids.first().unwrap().starts_with("built-in#"));
    assert_eq!(ids.get(ids.len() - 2..).unwrap(), ["app#first", "app#2"]);
    let last = set.policies().last().unwrap();
    assert_eq!((last.forbids, last.text), (true, "forbid(principal is User, action, resource);"));
}

#[test]
fn every_example_of_the_documentation_compiles() {
    let page = include_str!("../../../../docs/policies.md");
    let examples: Vec<_> =
        page.split("```cedar\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 8, "{}", examples.len());
    for text in examples {
        for set in
            [compile(text), PolicySet::compile_stored(&[document("app", text)], Bootstrap::Closed)]
        {
            if let Err(fault) = set {
                panic!("{fault}\n{text}");
            }
        }
    }
}

/// A stored policy of which a newer version of this program warns once kept it from starting.
#[test]
fn what_is_stored_is_taken_in_spite_of_warnings_and_not_of_errors() {
    let stored =
        |text: &str| PolicySet::compile_stored(&[document("app", text)], Bootstrap::Closed);
    let never = "forbid(principal, action, resource) when { false };";
    let cyrillic =
        "permit(principal == User::\"\u{430}lice\", action in Action::\"kms:Use\", resource);";
    for text in [never, cyrillic] {
        assert!(compile(text).is_err(), "{text}");
        let set = stored(text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        // It stays when something else is written, and is refused when it is written itself.
        let other =
            document("other", "permit(principal, action in Action::\"kms:Use\", resource);");
        let after = set.recompile(&[document("app", text), other], Bootstrap::Closed).unwrap();
        let again = [document("app", &format!("{text}\n"))];
        assert!(after.recompile(&again, Bootstrap::Closed).is_err());
    }
    // A forbid that spoke of what is not there any more would forbid nothing.
    for text in [
        "forbid(principal, action == Action::\"kms:Decript\", resource);",
        "forbid(principal, action, resource) when { contxt.via == \"node\" };",
    ] {
        assert_eq!(stored(text).map(drop), compile(text).map(drop));
        assert!(stored(text).is_err());
    }
}

#[test]
fn a_session_policy_is_checked_like_any_other() {
    assert!(
        PolicySet::check_session_policy(
            "permit(principal, action == Action::\"kms:Decrypt\", resource);"
        )
        .is_ok()
    );
    let fault = PolicySet::check_session_policy(
        "permit(principal, action == Action::\"kms:Decrypt\", resorce);",
    );
    assert_eq!(fault.unwrap_err().document, "session");
    assert!(PolicySet::check_session_policy(&" ".repeat(2_049)).is_err());
}

#[test]
fn a_set_compiled_after_another_is_the_set_compiled_anew() {
    let use_it = "permit(principal in Role::\"app\", action in Action::\"kms:Use\", resource);";
    let other = "permit(principal in Role::\"other\", action in Action::\"kms:Use\", resource);";
    let first = PolicySet::compile(&[document("a", use_it), document("b", other)], Bootstrap::Open)
        .unwrap();
    let second =
        first.recompile(&[document("b", use_it), document("c", "")], Bootstrap::Closed).unwrap();
    let ids = |set: &PolicySet| {
        set.policies()
            .map(|policy| (policy.id.to_owned(), policy.text.to_owned()))
            .collect::<Vec<_>>()
    };
    let anew =
        PolicySet::compile(&[document("b", use_it), document("c", "")], Bootstrap::Closed).unwrap();
    assert_eq!(ids(&second), ids(&anew));
    let ask = |role| Ask::new(pod(role), "kms:Decrypt");
    assert!(
        ask("other").allowed(&first)
            && !ask("other").allowed(&second)
            && ask("app").allowed(&second)
    );
    assert!(
        first.recompile(&[document("a", use_it), document("b", "oops")], Bootstrap::Open).is_err()
    );
    assert!(
        first.recompile(&[document("a", use_it), document("a", use_it)], Bootstrap::Open).is_err()
    );
    let mut key = document("a", use_it);
    key.kind = DocumentKind::Key(key_id());
    let forced = first.recompile(&[key], Bootstrap::Open).unwrap();
    let elsewhere = Resource::Key(lastkey_core::ids::KeyId::from_random([9; 16]));
    assert!(ask("app").allowed(&forced) && !ask("app").of(elsewhere).allowed(&forced));
}
