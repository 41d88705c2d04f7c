//! Signatures of requests to S3.
//!
//! Room      `connect`, inside.
//! Source    AWS Signature Version 4 with a signed body ("Authenticating Requests: Using the
//!           Authorization Header" of the Amazon S3 API Reference), whose examples are the vectors.

use aws_lc_rs::hmac;
use lastkey_crypto::digest::sha256;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::credential::Credential;
use crate::seal::hex_of;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What is signed.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// Its path, encoded.
    pub(super) path: &'a str,
    /// Its query, encoded, by rising names.
    pub(super) query: &'a str,
    /// Headers by rising names, in lower case; the date and the hash of the body among them.
    pub(super) headers: &'a [(String, String)],
    /// Hash of its body, in hexadecimal digits.
    pub(super) body_hash: &'a str,
}

/// A moment as it is signed: `20130524T000000Z`.
pub(super) fn stamp(now: OffsetDateTime) -> String {
    let (date, time) = (now.date(), now.time());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute, second) = time.as_hms();
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The header that authorizes a request.
pub(super) fn authorization(
    unsigned: &Unsigned<'_>,
    credential: &Credential,
    region: &str,
    stamp: &str,
) -> String {
    let Unsigned { method, path, query, headers, body_hash } = unsigned;
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{body_hash}");
    let date = stamp.get(..8).unwrap_or_default();
    let scope = format!("{date}/{region}/s3/aws4_request");
    let hash = hex_of(&sha256(canonical.as_bytes()));
    let text = format!("{ALGORITHM}\n{stamp}\n{scope}\n{hash}");
    let key = signing_key(credential, date, region);
    let signature = hex_of(&*hmac(&*key, text.as_bytes()));
    let id = &credential.key_id;
    format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
}

fn signing_key(credential: &Credential, date: &str, region: &str) -> Zeroizing<[u8; 32]> {
    let of_date = credential.secret_key.expose(|secret| {
        let mut first = Zeroizing::new(Vec::with_capacity(secret.len().saturating_add(4)));
        first.extend_from_slice(b"AWS4");
        first.extend_from_slice(secret);
        hmac(&first, date.as_bytes())
    });
    let rest = [region, "s3", "aws4_request"];
    rest.iter().fold(of_date, |key, part| hmac(&*key, part.as_bytes()))
}

fn hmac(key: &[u8], text: &[u8]) -> Zeroizing<[u8; 32]> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut out = Zeroizing::new([0; 32]);
    out.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// Encodes a part of a path or of a query: everything but letters, digits, `-`, `.`, `_` and `~`.
pub(super) fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;

    use super::*;

    fn credential() -> Credential {
        Credential {
            key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: SecretVec::copy_of(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            session_token: None,
        }
    }

    fn signed(method: &str, path: &str, query: &str, more: &[(&str, &str)], body: &[u8]) -> String {
        let body_hash = hex_of(&sha256(body));
        let stamp = stamp(OffsetDateTime::from_unix_timestamp(1_369_353_600).unwrap());
        let mut headers: Vec<_> =
            more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        headers.push(("host".to_owned(), "examplebucket.s3.amazonaws.com".to_owned()));
        headers.push(("x-amz-content-sha256".to_owned(), body_hash.clone()));
        headers.push(("x-amz-date".to_owned(), stamp.clone()));
        headers.sort();
        let unsigned = Unsigned { method, path, query, headers: &headers, body_hash: &body_hash };
        let header = authorization(&unsigned, &credential(), "us-east-1", &stamp);
        header.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    /// The four examples of the documentation.
    #[test]
    fn requests_are_signed_as_the_documentation_signs_its_own() {
        assert_eq!(
            signed("GET", "/test.txt", "", &[("range", "bytes=0-9")], b""),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let put = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        assert_eq!(
            signed("PUT", "/test%24file.text", "", &put, b"Welcome to Amazon S3."),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        assert_eq!(
            signed("GET", "/", "lifecycle=", &[], b""),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signed("GET", "/", "max-keys=2&prefix=J", &[], b""),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn what_is_not_plain_is_encoded() {
        assert_eq!(encoded("a-Z_0.~/ +é"), "a-Z_0.~%2F%20%2B%C3%A9");
    }
}
