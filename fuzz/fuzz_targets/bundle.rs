//! Bundles of trust domains, and chains of certificates that clients show.
#![no_main]

use lastkey_core::time::Timestamp;
use lastkey_trust::authorities::MAX_AUTHORITIES;
use lastkey_trust::svid::{Bundle, TrustDomain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(bundle) = Bundle::parse(text) else { return };
    assert!(bundle.authorities.is_some() || bundle.tokens.is_some());
    let Some(authorities) = bundle.authorities else { return };
    let chain: Vec<_> = authorities.certificates().map(<[u8]>::to_vec).collect();
    assert!((1..=MAX_AUTHORITIES).contains(&chain.len()));
    // An authority is no workload, whoever vouches for it.
    let domain = TrustDomain { name: "example.org".to_owned(), authorities };
    assert!(domain.verify(&chain, Timestamp(1_800_000_000)).is_err());
});
