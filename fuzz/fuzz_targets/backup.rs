//! Backups: the head in clear, the stream inside, and the list of what was destroyed.
#![no_main]

use lastkey_core::audit::note::{KeyKind, NoteSigner};
use lastkey_core::ids::InstanceId;
use lastkey_secret::SecretArray;
use lastkey_store::backup::{decode_head, read_list, scan_stream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_head(bytes, "fuzz");
    let _ = scan_stream(bytes);
    let seed = SecretArray::copy_of(&[1; 32]);
    if let (Ok(text), Ok(signer)) =
        (std::str::from_utf8(bytes), NoteSigner::from_seed("fuzz", KeyKind::Ed25519, &seed))
    {
        assert!(read_list(text, InstanceId([0; 16]), signer.key()).is_err());
    }
});
