//! Policy documents: any text is compiled or refused with a place in it, and ends nothing.
#![no_main]

use lastkey_policy::{Bootstrap, Document, DocumentKind, PolicySet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let document = Document {
        name: "fuzz".to_owned(),
        kind: DocumentKind::Role("fuzz".to_owned()),
        text: text.to_owned(),
    };
    let lines = text.matches('\n').count() + 1;
    match PolicySet::compile(&[document], Bootstrap::Closed) {
        Ok(set) => assert!(set.policies().all(|policy| !policy.id.is_empty())),
        Err(fault) => assert!((1..=lines).contains(&fault.line) && fault.column >= 1, "{fault}"),
    }
});
