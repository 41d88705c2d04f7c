//! Structure of credentials: what a text must be to be one, beyond its letters.
//!
//! Room      `checks`, inside `scan`.
//! Source    RFC 7468 (PEM), RFC 7519 (JWT), BIP 173 (Bech32, by age); github.blog 2021-04-05
//!           and Grafana's `satokengen` for their checksums; docs/formats/session.md for ours.
//! Holds     A check refuses what cannot be a credential; it never asks anybody.

use base64::{
    Engine,
    engine::{
        DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig,
        general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    },
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    assignment::is_password,
    checksum::{base62, crc32, is_bech32, sha256_head},
};

/// A check by name, as rules say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Check {
    /// `PREFIX_`, characters, and six digits of base 62 of their CRC-32: GitHub and npm.
    GithubCrc32,
    /// `glsa_`, secret, and eight hex digits of the CRC-32: Grafana.
    GrafanaCrc32,
    /// Two JSON objects and a signature.
    Jwt,
    /// A private key in PEM that is not encrypted, line ends as they are or written `\n`.
    Pem,
    /// A secret key of age.
    Bech32,
    /// An access key id of AWS: base 32 with an account number in it.
    AwsKeyId,
    /// `NAME:PASSWORD` in base64.
    BasicAuth,
    /// Base64 behind a prefix that ends with `-`: PyPI.
    Macaroon,
    /// First part base64 of digits: Discord.
    NumberedToken,
    /// An access key id of Lastkey.
    LastkeyAccessKey,
    /// A session token or bearer of Lastkey.
    LastkeyToken,
    /// A password inside a URL or connection string that no example has.
    UrlPassword,
    /// Upper and lower case letters and digits, as generators give them.
    Mixed,
    /// What the name of a password would be believed with.
    Password,
}

impl Check {
    /// Whether the text may be such a credential.
    pub(super) fn holds(self, secret: &[u8]) -> bool {
        match self {
            Self::GithubCrc32 => has_github_checksum(secret).unwrap_or(false),
            Self::GrafanaCrc32 => has_grafana_checksum(secret).unwrap_or(false),
            Self::Jwt => is_jwt(secret).unwrap_or(false),
            Self::Pem => is_plain_private_key(secret).unwrap_or(false),
            Self::Bech32 => is_bech32(secret),
            Self::AwsKeyId => has_aws_account(secret).unwrap_or(false),
            Self::BasicAuth => is_basic_auth(secret).unwrap_or(false),
            Self::Macaroon => after(secret, b'-').is_some_and(|body| lenient_url(body).is_some()),
            Self::NumberedToken => is_numbered(secret).unwrap_or(false),
            Self::LastkeyAccessKey => is_lastkey_access_key(secret).unwrap_or(false),
            Self::LastkeyToken => is_lastkey_token(secret).unwrap_or(false),
            Self::UrlPassword => is_url_password(secret),
            Self::Mixed => is_mixed(secret),
            Self::Password => is_password(secret),
        }
    }
}

fn after(text: &[u8], mark: u8) -> Option<&[u8]> {
    let at = text.iter().position(|byte| *byte == mark)?;
    text.get(at + 1..)
}

fn has_github_checksum(token: &[u8]) -> Option<bool> {
    const CHECKSUM_LEN: usize = 6;
    let body = after(token, b'_')?;
    let (random, checksum) = body.split_at_checked(body.len().checked_sub(CHECKSUM_LEN)?)?;
    Some(base62(crc32(random), CHECKSUM_LEN) == checksum)
}

fn has_grafana_checksum(token: &[u8]) -> Option<bool> {
    let split = token.iter().rposition(|byte| *byte == b'_')?;
    let (body, checksum) = token.split_at_checked(split)?;
    let right: String =
        crc32(body).to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(checksum.strip_prefix(b"_")? == right.as_bytes())
}

fn is_jwt(token: &[u8]) -> Option<bool> {
    let mut parts = token.split(|byte| *byte == b'.');
    let header: Value = serde_json::from_slice(&lenient_url(parts.next()?)?).ok()?;
    let claims: Value = serde_json::from_slice(&lenient_url(parts.next()?)?).ok()?;
    let signature = parts.next()?;
    let algorithm = header.get("alg")?.as_str()?;
    Some(claims.is_object() && !algorithm.eq_ignore_ascii_case("none") && !signature.is_empty())
}

/// Base64url, padded or not, whatever its last bits are.
fn lenient_url(text: &[u8]) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(&base64::alphabet::URL_SAFE, config).decode(text).ok()
}

fn is_plain_private_key(pem: &[u8]) -> Option<bool> {
    let text = String::from_utf8_lossy(pem);
    let (_, rest) = text.split_once("PRIVATE KEY")?;
    let (_, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END")?;
    if body.contains("ENCRYPTED") {
        return Some(false);
    }
    // Written in a string: `\n` between lines, quotes and plus signs around them.
    let body = body.replace("\\r", "").replace("\\n", "").replace("\\/", "/");
    let lines = body.split_whitespace().filter(|line| !line.contains(':') && *line != "+");
    let is_base64 = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let compact: String = lines.flat_map(str::chars).filter(is_base64).collect();
    let compact = compact.split_once('=').map_or(compact.as_str(), |(head, _)| head);
    let whole = compact.len() - compact.len() % 4;
    let der = STANDARD.decode(compact.get(..whole)?).ok()?;
    Some(is_der_sequence(&der) || is_plain_openssh(&der))
}

/// A SEQUENCE that is as long as it says, give or take what was cut off above.
fn is_der_sequence(der: &[u8]) -> bool {
    let (len, header) = match der {
        [0x30, 0x81, len, ..] => (usize::from(*len), 3),
        [0x30, 0x82, high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])), 4),
        [0x30, len, ..] if *len < 0x80 => (usize::from(*len), 2),
        _ => return false,
    };
    let has = der.len().saturating_sub(header);
    len >= 32 && has + 3 >= len && has <= len + 3
}

fn is_plain_openssh(der: &[u8]) -> bool {
    der.strip_prefix(b"openssh-key-v1\0")
        .is_some_and(|rest| rest.starts_with(b"\0\0\0\x04none\0\0\0\x04none"))
}

fn has_aws_account(id: &[u8]) -> Option<bool> {
    const LARGEST_ACCOUNT: u64 = 999_999_999_999;
    let digits = id.get(4..20)?;
    let bytes = base32(digits)?;
    let head = bytes.first_chunk::<6>()?;
    let number = head.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let account = (number & 0x7fff_ffff_ff80) >> 7;
    // Ids from before 2019 hold no account; their fifth letter comes before `Q`.
    let is_old = digits.first().is_some_and(|letter| (b'A'..=b'P').contains(letter));
    Some(is_old || account <= LARGEST_ACCOUNT)
}

/// Base 32 of RFC 4648 without padding; `None` when a character is none of it.
fn base32(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in text {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5 | u32::from(value)) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

fn is_basic_auth(text: &[u8]) -> Option<bool> {
    let decoded = STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?;
    let split = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = decoded.split_at_checked(split)?;
    let is_text = decoded.iter().all(|byte| (0x20..0x7f).contains(byte));
    Some(is_text && !name.is_empty() && is_url_password(password.get(1..)?))
}

fn is_numbered(token: &[u8]) -> Option<bool> {
    let first = token.split(|byte| *byte == b'.').next()?;
    let number = lenient_url(first)?;
    Some(number.len() >= 15 && number.iter().all(u8::is_ascii_digit))
}

fn is_lastkey_access_key(id: &[u8]) -> Option<bool> {
    const PREFIX: &[u8] = b"LKTA";
    let bytes = base32(id.strip_prefix(PREFIX)?)?;
    let (body, checksum) = bytes.split_at_checked(16)?;
    Some(sha256_head(&[PREFIX, body]) == checksum)
}

fn is_lastkey_token(token: &[u8]) -> Option<bool> {
    let (prefix, text) = token.split_at_checked(5)?;
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    Some(sha256_head(&[prefix, body]) == *checksum)
}

/// Passwords that stand in documentation and tests all over the world, in lower case.
const KNOWN_TO_ALL: &[&str] = &[
    "password",
    "passwd",
    "pass",
    "pwd",
    "secret",
    "test",
    "tester",
    "testing",
    "guest",
    "root",
    "admin",
    "user",
    "username",
    "postgres",
    "mysql",
    "redis",
    "rabbitmq",
    "mongo",
    "minio",
    "123",
    "1234",
    "12345",
    "123456",
    "abc",
    "foo",
    "bar",
    "baz",
    "hunter2",
    "letmein",
    "pw",
    "p",
    "token",
    "apikey",
    "key",
    "xxx",
    "***",
    "password1",
    "password123",
    "passw0rd",
    "pass123",
    "test123",
    "default",
    "none",
    "null",
    "example",
    "anonymous",
    "demo",
    "open sesame",
    "opensesame",
];

/// Whether a text may be a password that somebody uses.
pub(super) fn is_url_password(secret: &[u8]) -> bool {
    let lower = secret.to_ascii_lowercase();
    let closes = |open: u8, close: u8| secret.ends_with(&[close]) && secret.contains(&open);
    let is_variable = matches!(secret, [b'$' | b'%' | b'{' | b'<' | b'[' | b'*', ..])
        || closes(b'{', b'}')
        || closes(b'<', b'>');
    let is_known = KNOWN_TO_ALL.iter().any(|known| known.as_bytes() == lower);
    secret.len() >= 4 && !is_variable && !is_known
}

fn is_mixed(secret: &[u8]) -> bool {
    secret.iter().any(u8::is_ascii_digit)
        && secret.iter().any(u8::is_ascii_lowercase)
        && secret.iter().any(u8::is_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };

    use super::Check;

    #[test]
    fn github_checksum_of_a_published_token_is_right() {
        let token = ["ghp_zQWBuTSOoRi4A9sp", "HcVY5ncnsDkxkJ0mLq17"].concat();
        assert!(Check::GithubCrc32.holds(token.as_bytes()));
        let other = token.replace("zQ", "zR");
        assert!(!Check::GithubCrc32.holds(other.as_bytes()));
        assert!(!Check::GithubCrc32.holds(b"ghp_"));
    }

    #[test]
    fn jwt_needs_objects_an_algorithm_and_a_signature() {
        let make = |header: &str, claims: &str, signature: &str| {
            let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
            format!("{}.{}.{signature}", encode(header), encode(claims))
        };
        let is_jwt = |text: String| Check::Jwt.holds(text.as_bytes());
        assert!(is_jwt(make("{\"alg\":\"ES256\"}", "{\"sub\":\"x\"}", "c2ln")));
        assert!(!is_jwt(make("{\"alg\":\"none\"}", "{\"sub\":\"x\"}", "c2ln")));
        assert!(!is_jwt(make("{\"alg\":\"ES256\"}", "[]", "c2ln")));
        assert!(!is_jwt(make("{\"alg\":\"ES256\"}", "{}", "")));
        assert!(!is_jwt("a.b.c".to_owned()));
    }

    fn pem(label: &str, body: &[u8], newline: &str) -> Vec<u8> {
        let text = STANDARD.encode(body);
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let lines = lines.join(newline);
        format!("-----BEGIN {label}-----{newline}{lines}{newline}-----END {label}-----").into()
    }

    #[test]
    fn pem_holds_a_whole_key_that_is_not_encrypted() {
        let label = ["RSA PRIVATE", " KEY"].concat();
        let mut der = vec![0x30, 0x81, 200];
        der.extend(0..200);
        assert!(Check::Pem.holds(&pem(&label, &der, "\n")));
        assert!(Check::Pem.holds(&pem(&label, &der, "\\n")));
        assert!(Check::Pem.holds(&pem(&label, &der, "\\n' +\n  '")));
        der.truncate(150);
        assert!(!Check::Pem.holds(&pem(&label, &der, "\n")));
        assert!(!Check::Pem.holds(&pem(&label, b"not a key but words", "\n")));
        let sealed = pem(&label, b"x", "\nProc-Type: 4,ENCRYPTED\n");
        assert!(!Check::Pem.holds(&sealed));
    }

    #[test]
    fn pem_of_openssh_is_told_from_one_with_a_passphrase() {
        let label = ["OPENSSH PRIVATE", " KEY"].concat();
        let plain = b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0";
        let sealed = b"openssh-key-v1\0\0\0\0\x0aaes256-ctr\0\0\0\x06bcrypt";
        assert!(Check::Pem.holds(&pem(&label, plain, "\n")));
        assert!(!Check::Pem.holds(&pem(&label, sealed, "\n")));
    }

    #[test]
    fn aws_account_cannot_have_thirteen_digits() {
        assert!(Check::AwsKeyId.holds(["AKIA", "QYLPMN5HHHFPZAM2"].concat().as_bytes()));
        assert!(!Check::AwsKeyId.holds(["AKIA", "7777777777777777"].concat().as_bytes()));
        assert!(!Check::AwsKeyId.holds(b"AKIA"));
    }

    #[test]
    fn basic_auth_holds_a_name_and_a_password() {
        let holds = |text: &str| Check::BasicAuth.holds(STANDARD.encode(text).as_bytes());
        assert!(holds("deploy:h4rdT0Guess"));
        assert!(!holds("user:password"));
        assert!(!holds(":h4rdT0Guess"));
        assert!(!holds("no colon here"));
        assert!(!holds("Aladdin:open sesame"));
    }
}
