//! Foreign bytes: nothing that a file holds makes the scanner fall.

use std::sync::LazyLock;

use lastkey_checks::scan::{Rules, Scanner};
use proptest::prelude::*;

use crate::made::{scan, scanner};

/// Compiles its rules once, not for each case.
static SCANNER: LazyLock<Scanner> = LazyLock::new(scanner);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_of_any_kind_are_scanned(head in 0..8_usize, tail in prop::collection::vec(any::<u8>(), 0..2_000)) {
        const HEADS: [&[u8]; 8] = [
            b"", b"\x1f\x8b\x08\0", b"PK\x03\x04\x14\0\0\0\x08\0", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"\xfe\xff",
            b"password=\"", b"-----BEGIN PRIVATE KEY-----",
        ];
        let content = [HEADS[head], &tail].concat();
        let outcome = scan(&SCANNER, "f", &content);
        prop_assert!(outcome.files <= 1_000);
    }

    #[test]
    fn text_near_secrets_is_scanned(text in "((secret|token|password|AKIA|LTAI|ghp_|eyJ|://)[ =:\"'(\\\\>a-zA-Z0-9+/._-]{0,30}\n?){0,20}") {
        let outcome = scan(&SCANNER, "f", text.as_bytes());
        for finding in outcome.findings {
            prop_assert!(finding.location.line >= 1);
        }
    }

    #[test]
    fn rules_of_any_kind_are_read_or_refused(text in "(\\[\\[rules\\]\\]\n|id = '[a-z]'\n|regex = '''[a-z()\\[*+?{}0-9|^$]{0,12}'''\n|keywords = \\['[a-z]'\\]\n|\\[extend\\]\n|useDefault = true\n|entropy = [0-9]\n){0,8}") {
        let _ = Rules::import(&text, &mut |_| Err(String::new()));
    }
}
