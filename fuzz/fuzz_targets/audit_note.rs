//! Notes, checkpoints, receipts, keys and requests to a witness: texts of strangers.
#![no_main]

use lastkey_core::audit::checkpoint::Checkpoint;
use lastkey_core::audit::note::{NoteKey, split};
use lastkey_core::audit::receipt::Receipt;
use lastkey_core::audit::tile::TileName;
use lastkey_core::audit::witness::{AddCheckpoint, Remembered};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let known: Vec<NoteKey> = text.lines().filter_map(|line| NoteKey::parse(line).ok()).collect();
    if let Ok((body, _)) = split(text) {
        let _ = Checkpoint::parse(body);
        let _ = Checkpoint::open(text, &known);
    }
    if let Ok(receipt) = Receipt::parse(text) {
        assert_eq!(Receipt::parse(&receipt.to_string()).as_ref(), Ok(&receipt));
        assert!(receipt.verify(b"record", &known).is_err());
    }
    if let Ok(request) = AddCheckpoint::parse(text) {
        assert_eq!(AddCheckpoint::parse(&request.to_string()).as_ref(), Ok(&request));
        let _ = request.judge(&known, |_| Some(Remembered::default()));
    }
    if let Some(name) = TileName::parse(text) {
        assert_eq!(name.to_string(), text);
    }
});
