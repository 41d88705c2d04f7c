//! Signature Version 4: the published examples, vectors of another implementation, refusals.
//!
//! Room      `trust`, tests.
//! Source    AWS Signature Version 4 test suite and the IAM example of the AWS General Reference;
//!           `tests/vectors/sigv4.json` is written by botocore (tests/python/make_sigv4.py).

use std::fs;
use std::path::Path;

use lastkey_core::time::Timestamp;
use lastkey_crypto::digest::sha256;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_secret::SecretVec;
use lastkey_trust::revocation::Revocations;
use lastkey_trust::sigv4::{
    Authorization, KeptKeys, Request, SignatureError, Signer, format_date, open_signed,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::*;

/// 2015-08-30T12:36:00Z, the moment of the published examples.
const THEN: Timestamp = Timestamp(1_440_938_160);
const DATE: &str = "20150830T123600Z";
const EXAMPLE_ID: &str = "AKIDEXAMPLE";

fn example_secret() -> SecretVec {
    secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
}

fn signer<'a>(secret: &'a SecretVec, service: &'static str) -> Signer<'a> {
    Signer { access_key_id: EXAMPLE_ID, secret, region: "us-east-1", service, now: THEN }
}

type Headers<'a> = Vec<(&'a str, &'a str)>;

fn check(
    (method, path, query): (&str, &str, &str),
    headers: &Headers<'_>,
    body: &str,
    service: &'static str,
    signature: &str,
) {
    let body_sha256 = sha256(body.as_bytes());
    let request = Request { method, path, query, headers, body_sha256: &body_sha256 };
    let secret = example_secret();
    let value = signer(&secret, service).authorization(&request).unwrap();
    assert!(value.ends_with(&format!("Signature={signature}")), "{query}: {value}");
    let parsed = Authorization::parse(&value).unwrap();
    assert_eq!(parsed.access_key_id, EXAMPLE_ID);
    assert_eq!(parsed.verify(&request, &secret, service, THEN), Ok(()));
}

#[test]
fn signatures_match_the_published_examples() {
    let host = ("host", "example.amazonaws.com");
    let plain = vec![host, ("x-amz-date", DATE)];
    let empty = "";
    check(
        ("GET", "/", ""),
        &plain,
        empty,
        "service",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    );
    check(
        ("POST", "/", ""),
        &plain,
        empty,
        "service",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    );
    check(
        ("GET", "/", "Param2=value2&Param1=value1"),
        &plain,
        empty,
        "service",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    );
    check(
        ("GET", "/", "Param1=value1"),
        &plain,
        empty,
        "service",
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    );
    let form = ("content-type", "application/x-www-form-urlencoded");
    check(
        ("POST", "/", ""),
        &vec![form, host, ("x-amz-date", DATE)],
        "Param1=value1",
        "service",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    );
    let iam = vec![
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("host", "iam.amazonaws.com"),
        ("x-amz-date", DATE),
    ];
    check(
        ("GET", "/", "Action=ListUsers&Version=2010-05-08"),
        &iam,
        empty,
        "iam",
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    );
}

#[test]
fn signatures_match_those_of_botocore() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/sigv4.json");
    let vectors: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert!(vectors.len() >= 10);
    for vector in &vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let headers: Headers<'_> = vector["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
            .collect();
        let body_sha256 = sha256(text("body").as_bytes());
        let request = Request {
            method: text("method"),
            path: text("path"),
            query: text("query"),
            headers: &headers,
            body_sha256: &body_sha256,
        };
        let parsed = Authorization::parse(text("authorization")).unwrap();
        let verified = parsed.verify(&request, &example_secret(), parsed.service, THEN);
        assert_eq!(verified, Ok(()), "{}", text("name"));
    }
}

/// A good request, and what is done to it before it is verified.
fn verified(
    change: impl FnOnce(&mut Vec<(String, String)>, &mut [u8; 32], &mut String),
    now: Timestamp,
) -> Option<SignatureError> {
    let mut headers = vec![
        ("Host".to_owned(), "lastkey.example".to_owned()),
        ("X-Amz-Date".to_owned(), DATE.to_owned()),
        ("X-Amz-Target".to_owned(), "TrentService.Decrypt".to_owned()),
        ("Content-Type".to_owned(), "application/x-amz-json-1.1".to_owned()),
    ];
    let mut body_sha256 = sha256(b"{}");
    let secret = example_secret();
    let mut value = {
        let lent: Headers<'_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let request = Request {
            method: "POST",
            path: "/",
            query: "",
            headers: &lent,
            body_sha256: &body_sha256,
        };
        signer(&secret, "kms").authorization(&request).unwrap()
    };
    headers.push(("User-Agent".to_owned(), "unsigned".to_owned()));
    change(&mut headers, &mut body_sha256, &mut value);
    let lent: Headers<'_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let request =
        Request { method: "POST", path: "/", query: "", headers: &lent, body_sha256: &body_sha256 };
    match Authorization::parse(&value) {
        Ok(parsed) => parsed.verify(&request, &secret, "kms", now).err(),
        Err(error) => Some(error),
    }
}

fn altered(
    change: impl FnOnce(&mut Vec<(String, String)>, &mut [u8; 32], &mut String),
) -> Option<SignatureError> {
    verified(change, THEN)
}

#[test]
fn signature_holds_for_this_request_only() {
    assert_eq!(altered(|_, _, _| ()), None);
    assert_eq!(altered(|headers, _, _| headers[4].1 = "other".into()), None);
    let mismatch = Some(SignatureError::Mismatch);
    assert_eq!(altered(|headers, _, _| headers[0].1 = "evil.example".into()), mismatch);
    assert_eq!(altered(|headers, _, _| headers[2].1 = "TrentService.Sign".into()), mismatch);
    assert_eq!(altered(|_, body, _| *body = sha256(b"{ }")), mismatch);
    assert_eq!(altered(|_, _, value| *value = value.replace("us-east-1", "us-east-2")), mismatch);
}

#[test]
fn signature_is_good_for_five_minutes_either_way() {
    let at = |seconds| verified(|_, _, _| (), Timestamp(seconds));
    assert_eq!(at(THEN.0 + 300), None);
    assert_eq!(at(THEN.0 - 300), None);
    assert_eq!(at(THEN.0 + 301), Some(SignatureError::OutsideWindow));
    assert_eq!(at(THEN.0 - 301), Some(SignatureError::OutsideWindow));
}

#[test]
fn header_that_must_be_signed_is_asked_for() {
    let not_signed = Some(SignatureError::HeaderNotSigned);
    let add = |name: &str, value: &str| {
        let pair = (name.to_owned(), value.to_owned());
        altered(|headers, _, _| headers.push(pair))
    };
    assert_eq!(add("x-amz-security-token", "lks1.x"), not_signed);
    assert_eq!(add("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"), not_signed);
    assert_eq!(add("x-amz-date", DATE), not_signed);
    assert_eq!(altered(|headers, _, _| drop(headers.remove(0))), not_signed);
    let unlisted = |value: &mut String| *value = value.replace("host;", "");
    assert_eq!(altered(|_, _, value| unlisted(value)), not_signed);
    assert_eq!(altered(|_, _, value| *value = value.replace("content-type;", "")), not_signed);
}

#[test]
fn authorization_of_another_form_is_refused() {
    let malformed = Some(SignatureError::Malformed);
    for (from, to) in [
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"),
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256"),
        ("aws4_request", "aws5_request"),
        ("aws4_request", "aws4_request/x"),
        ("Credential=AKIDEXAMPLE", "Credential="),
        ("content-type;host", "host;content-type"),
        ("content-type;host", "host;host"),
        ("content-type;host", "Content-Type;host"),
        ("content-type;host", ";host"),
        ("Signature=", "Signature=0"),
        ("SignedHeaders", "Signedheaders"),
        ("SignedHeaders", "Signature"),
    ] {
        let refused = altered(|_, _, value| *value = value.replacen(from, to, 1));
        assert_eq!(refused, malformed, "{from} {to}");
    }
    assert_eq!(altered(|_, _, value| value.push_str(", Extra=1")), malformed);
    assert_eq!(altered(|_, _, value| value.push_str(&" ".repeat(4_096))), malformed);
    let upper = |value: &mut String| {
        let at = value.len() - 64;
        let hex = value.split_off(at).replace(|c: char| c.is_ascii_lowercase(), "A");
        value.push_str(&hex);
    };
    assert_eq!(altered(|_, _, value| upper(value)), malformed);
}

#[test]
fn scope_is_of_our_service_and_the_day_of_the_request() {
    let other = altered(|_, _, value| *value = value.replace("/kms/", "/s3/"));
    assert_eq!(other, Some(SignatureError::OtherService));
    let other = altered(|_, _, value| *value = value.replace("/20150830/", "/20150829/"));
    assert_eq!(other, Some(SignatureError::BadDate));
    let other = altered(|headers, _, _| headers[1].1 = "2015-08-30T12:36:00Z".into());
    assert_eq!(other, Some(SignatureError::BadDate));
}

#[test]
fn body_is_signed() {
    let body_sha256 = sha256(b"{}");
    let declared: String = body_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let try_with = |hash: &str| {
        let headers = [("host", "h"), ("x-amz-content-sha256", hash), ("x-amz-date", DATE)];
        let request = Request {
            method: "POST",
            path: "/",
            query: "",
            headers: &headers,
            body_sha256: &body_sha256,
        };
        signer(&example_secret(), "kms").authorization(&request).err()
    };
    assert_eq!(try_with(&declared), None);
    for bad in
        ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", &declared.to_uppercase()]
    {
        assert_eq!(try_with(bad), Some(SignatureError::BodyNotSigned), "{bad}");
    }
}

/// The whole way: a triple is issued, a client signs, a replica opens.
#[test]
fn request_signed_with_a_triple_opens_its_session() {
    let ring = ring();
    let nothing = Revocations::default();
    let presentation = presentation(&nothing);
    let triple = ring.newest().unwrap().seal_triple(&session(), &mut SystemEntropy).unwrap();
    let (date, token) = (format_date(presentation.now), reveal(&triple.session_token));
    let mut headers =
        vec![("host", "h"), ("x-amz-date", &*date), ("x-amz-security-token", &*token)];
    let body_sha256 = sha256(b"{}");
    let signed = {
        let request = Request {
            method: "POST",
            path: "/v1/keys/a%20b/encrypt",
            query: "b=1&a=2",
            headers: &headers,
            body_sha256: &body_sha256,
        };
        Signer {
            access_key_id: &triple.access_key_id,
            secret: &triple.secret,
            region: "local",
            service: "kms",
            now: presentation.now,
        }
        .authorization(&request)
        .unwrap()
    };
    headers.push(("authorization", &signed));
    let kept = KeptKeys::default();
    let open = |headers: &[(&str, &str)]| {
        let request = Request {
            method: "POST",
            path: "/v1/keys/a%20b/encrypt",
            query: "b=1&a=2",
            headers,
            body_sha256: &body_sha256,
        };
        open_signed(&ring, &request, "kms", &presentation, &kept)
    };
    assert_eq!(open(&headers).unwrap().session, session());
    // And by the key that is kept from the request before: what is wrong stays wrong.
    assert_eq!(open(&headers).unwrap().session, session());
    let mut changed = signed.clone();
    let last = if changed.pop() == Some('0') { '1' } else { '0' };
    changed.push(last);
    let forged = [headers[0], headers[1], headers[2], ("authorization", &*changed)];
    assert_eq!(open(&forged).unwrap_err().word(), "signature_mismatch");
    let word = |headers: &[(&str, &str)]| open(headers).unwrap_err().word();
    assert_eq!(word(&headers[..3]), "signature_malformed");
    let without_token = [headers[0], headers[1], headers[3]];
    assert_eq!(word(&without_token), "signature_header_not_signed");
    let twice = [headers.clone(), vec![("authorization", "AWS4-HMAC-SHA256 x")]].concat();
    assert_eq!(word(&twice), "signature_malformed");
    let other = ring.newest().unwrap().seal_triple(&session(), &mut SystemEntropy).unwrap();
    let other_token = reveal(&other.session_token);
    let swapped = [headers[0], headers[1], ("x-amz-security-token", &*other_token), headers[3]];
    assert_eq!(word(&swapped), "signature_mismatch");
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_a_panic(text in "\\PC{0,200}", path in "/\\PC{0,50}", query in "\\PC{0,50}") {
        let _ = Authorization::parse(&text);
        let headers = [("host", "h"), ("x-amz-date", DATE)];
        let request = Request { method: "GET", path: &path, query: &query, headers: &headers, body_sha256: &[0; 32] };
        let secret = example_secret();
        if let Ok(value) = signer(&secret, "kms").authorization(&request) {
            let parsed = Authorization::parse(&value).unwrap();
            prop_assert_eq!(parsed.verify(&request, &secret, "kms", THEN), Ok(()));
        }
    }
}
