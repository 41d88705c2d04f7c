//! Names of assignments: which of them say that a secret follows.
//!
//! Room      `checks`, inside `scan`.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use crate::scan::rules::Assignment;

/// What the name of an assignment says of its value.
pub(super) struct Name {
    /// None: what is assigned is no secret.
    pub(super) kind: Option<Assignment>,
    /// Says secret by itself, and not only key or auth.
    pub(super) is_strong: bool,
    /// Says no more than `pass`, which is also what tests do and tell.
    pub(super) is_verb: bool,
}

/// Names that have a word of [`super::WORDS`] in them and hold no secret, in lower case.
const HARMLESS: &[&str] = &[
    "author",
    "keyboard",
    "keyword",
    "monkey",
    "keyframe",
    "publickey",
    "public_key",
    "public-key",
    "keyid",
    "key_id",
    "key-id",
    "credential_id",
    "credentialid",
    "credential-id",
    "websocket-key",
    "websocket_key",
    "websocketkey",
    "password_encryption",
    "keyname",
    "key_name",
    "key-name",
    "primary_key",
    "primarykey",
    "foreign_key",
    "foreignkey",
    "partition",
    "sort_key",
    "hash_key",
    "cache_key",
    "cachekey",
    "cache-key",
    "tokenize",
    "token_type",
    "tokentype",
    "token_url",
    "tokenurl",
    "token_uri",
    "token_endpoint",
    "authorization_endpoint",
    "auth_url",
    "auth_uri",
    "authenticat",
    "authority",
    "secret_name",
    "secretname",
    "secret-name",
    "secretref",
    "secret_ref",
    "secretkeyref",
    "secretarn",
    "secret_arn",
    "password_field",
    "passwordfield",
    "password_hash",
    "passwordhash",
    "hashed",
    "checksum",
    "fingerprint",
    "digest",
    "keycode",
    "key_code",
    "keypath",
    "key_path",
    "key_file",
    "keyfile",
    "key-file",
    "passwordfile",
    "password_file",
    "password-file",
    "secret_file",
    "secretfile",
    "token_file",
    "tokenfile",
    "csrf",
    "nonce",
    "keyspace",
    "hotkey",
    "turkey",
    "keysize",
    "key_size",
    "keylen",
    "key_len",
    "keytype",
    "key_type",
    "keyring",
    "idempotency",
    "integrity",
    "resolved",
    "commit",
    "sitekey",
    "site_key",
    "site-key",
    "publishable",
    "keyalgo",
    "secretid",
    "secret_id",
    "keyalias",
    "key_alias",
    "tokencount",
    "max_tokens",
    "maxtokens",
    "next_token",
    "nexttoken",
    "page_token",
    "pagetoken",
    "continuation",
    "deprecat",
    "keystone",
    "keystroke",
    "keymap",
    "keypress",
    "keydown",
    "keyup",
    "passwordless",
    "oauth_version",
    "author_id",
    "auth_type",
    "auth_method",
    "authmode",
    "host_key",
    "hostkey",
    "known_host",
    "encryptedkey",
    "encrypted_key",
    "wrapped",
    "license_key_url",
    "keyserver",
    "apt-key",
    "gpgkey",
    "gpg_key",
    "gpg-key",
    "key_usage",
    "keyusage",
    "key-usage",
    "go.sum",
    "translation",
    "pubkey",
];

/// Parts of names of passwords.
const PASSWORD_PARTS: &[&str] = &[
    "passw",
    "passphrase",
    "pwd",
    "dbpass",
    "sqlpass",
    "rootpass",
    "adminpass",
    "smtppass",
    "mailpass",
    "ftppass",
];

/// Parts of names that say secret by themselves.
const STRONG_PARTS: &[&str] = &[
    "secret",
    "token",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "accesskey",
    "access_key",
    "access-key",
    "private",
    "encryption",
    "signing",
    "master",
    "auth_key",
    "authkey",
    "auth-key",
    "app_key",
    "appkey",
    "client_key",
    "account_key",
    "accountkey",
    "shared_key",
    "sharedkey",
    "shared_access_key",
];

/// All three lists, to be looked for at once.
static PARTS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let parts = HARMLESS.iter().chain(PASSWORD_PARTS).chain(STRONG_PARTS);
    AhoCorasick::builder().ascii_case_insensitive(true).build(parts).ok()
});

impl Name {
    /// Judges a name by its parts.
    pub(super) fn of(name: &[u8]) -> Self {
        let (mut is_password, mut is_strong) = (false, false);
        // The member `auth` of a Docker configuration has a rule of its own, and so has the seed
        // of an NKey, of which `nkey` is the public part.
        let mut is_harmless =
            [&b"auth"[..], b"nkey"].iter().any(|of| name.eq_ignore_ascii_case(of));
        for found in PARTS.iter().flat_map(|parts| parts.find_overlapping_iter(name)) {
            let place = found.pattern().as_usize();
            is_harmless |= place < HARMLESS.len();
            is_strong |= place >= HARMLESS.len() + PASSWORD_PARTS.len();
            is_password |= (HARMLESS.len()..HARMLESS.len() + PASSWORD_PARTS.len()).contains(&place);
        }
        let is_verb = !is_password && ends_with_pass(name);
        let kind = if is_password || is_verb { Assignment::Password } else { Assignment::Secret };
        Self { kind: (!is_harmless).then_some(kind), is_strong, is_verb }
    }
}

/// `pass`, `DB_PASS`, `dbPass`; neither `bypass` nor `pass_through`.
fn ends_with_pass(name: &[u8]) -> bool {
    let Some((head, pass)) = name.split_last_chunk::<4>() else { return false };
    pass.eq_ignore_ascii_case(b"pass")
        && head.last().is_none_or(|before| {
            matches!(before, b'_' | b'-' | b'.') || before.is_ascii_lowercase() && pass[0] == b'P'
        })
}

#[cfg(test)]
mod tests {
    use super::{Name, PARTS};
    use crate::scan::rules::Assignment;

    #[test]
    fn parts_of_names_are_looked_for_at_once() {
        assert!(PARTS.is_some());
        for (name, kind, is_strong) in [
            ("DB_PASSWORD", Some(Assignment::Password), false),
            ("clientSecret", Some(Assignment::Secret), true),
            ("key", Some(Assignment::Secret), false),
            ("publicKey", None, false),
            ("AUTH", None, false),
            ("pass", Some(Assignment::Password), false),
            ("DB_PASS", Some(Assignment::Password), false),
            ("smtpPass", Some(Assignment::Password), false),
            ("bypass", Some(Assignment::Secret), false),
            ("pass_through", Some(Assignment::Secret), false),
        ] {
            let name = Name::of(name.as_bytes());
            assert_eq!((name.kind, name.is_strong), (kind, is_strong));
        }
    }
}
