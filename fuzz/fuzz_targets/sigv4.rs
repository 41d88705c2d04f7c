//! `Authorization` headers and requests: no panic, and what we sign we verify.
#![no_main]

use lastkey_core::time::Timestamp;
use lastkey_secret::SecretVec;
use lastkey_trust::sigv4::{Authorization, Request, Signer};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp(1_440_938_160);

fuzz_target!(|text: &str| {
    let secret = SecretVec::copy_of(b"secret");
    let mut lines = text.splitn(4, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (value, path, query, header) = (next(), next(), next(), next());
    let headers = [("host", "h"), ("x-amz-date", "20150830T123600Z"), ("x-other", header)];
    let request =
        Request { method: "GET", path, query, headers: &headers, body_sha256: &[0; 32] };
    if let Ok(parsed) = Authorization::parse(value) {
        assert!(parsed.verify(&request, &secret, parsed.service, NOW).is_err());
    }
    let signer =
        Signer { access_key_id: "A", secret: &secret, region: "r", service: "kms", now: NOW };
    if let Ok(value) = signer.authorization(&request) {
        let parsed = Authorization::parse(&value).expect("ours is well formed");
        assert_eq!(parsed.verify(&request, &secret, "kms", NOW), Ok(()));
    }
});
