//! Stretches: the 16 bytes by which a scan pack knows a value, for each way to write it.
//!
//! Room      `checks`, inside `scan`. Makers of packs and the service that confirms matches choose
//!           them by the same function.
//! Source    docs/formats/scan-pack.md, "What stands in it".
//! Holds     Whatever takes fewer than 2^80 guesses, by what it covers of the value and not by how
//!           it looks written, is no stretch. Copies of a value are wiped.

use zeroize::Zeroizing;

use crate::scan::entropy::wordiness;

/// Bytes that one entry stands for.
pub(super) const STRETCH_LEN: usize = 16;
/// As many hexadecimal digits mean them.
pub(super) const HEX_LEN: usize = 2 * STRETCH_LEN;
/// What could be found by fewer guesses than two to this is no stretch.
const MIN_STRENGTH_BITS: f64 = 80.0;
/// Most parts of one value.
const MAX_PARTS: usize = 16;
/// As much of a part is looked at, in bytes.
const MAX_PART_LEN: usize = 512;

/// How a stretch stands in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As its 16 bytes.
    Raw,
    /// In hexadecimal digits or base64 that mean them.
    Decoded,
}

/// 16 bytes that stand for a value.
pub(super) struct Stretch {
    pub(super) kind: Kind,
    pub(super) bytes: Zeroizing<[u8; STRETCH_LEN]>,
}

/// The stretches of a value: of each of its parts, for each way in which it may be written. None
/// when all of it could be guessed.
pub(super) fn stretches(value: &[u8]) -> Vec<Stretch> {
    parts(value).into_iter().flat_map(of_part).collect()
}

/// What a value is made of: texts of JSON and YAML, lines of PEM, the longest ones. A value in
/// one piece is its only part.
fn parts(value: &[u8]) -> Vec<&[u8]> {
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || b"\"',".contains(byte);
    let is_text = value.iter().all(|byte| byte.is_ascii_whitespace() || *byte >= b' ');
    let mut parts: Vec<&[u8]> =
        if is_text { value.split(is_between).collect() } else { vec![value] };
    parts.retain(|part| part.len() >= STRETCH_LEN);
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts.truncate(MAX_PARTS);
    parts.into_iter().map(|part| part.get(..MAX_PART_LEN).unwrap_or(part)).collect()
}

fn of_part(part: &[u8]) -> Vec<Stretch> {
    let is_seen = |byte: u8| byte > b' ';
    let mut stretches: Vec<Stretch> = Vec::new();
    let ways: [Write; 3] = [as_it_is, in_percent, in_json];
    for write in ways {
        let bytes = strongest(part, write, is_seen);
        let known = |bytes: &Zeroizing<_>| stretches.iter().any(|one| one.bytes == *bytes);
        if let Some(bytes) = bytes.filter(|bytes| !known(bytes)) {
            stretches.push(Stretch { kind: Kind::Raw, bytes });
        }
    }
    let decoded = strongest(part, as_it_is, |_| true).or_else(|| hex_run(part));
    stretches.extend(decoded.map(|bytes| Stretch { kind: Kind::Decoded, bytes }));
    stretches
}

/// Writes one byte of a value as a text may have it.
type Write = fn(u8, &mut Vec<u8>);

fn as_it_is(byte: u8, text: &mut Vec<u8>) {
    text.push(byte);
}

fn in_percent(byte: u8, text: &mut Vec<u8>) {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        text.push(byte);
    } else {
        text.extend([b'%', digit(byte >> 4), digit(byte & 15)].map(|one| one.to_ascii_uppercase()));
    }
}

fn in_json(byte: u8, text: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => text.extend([b'\\', byte]),
        0..b' ' => text.extend([b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]),
        _ => text.push(byte),
    }
}

/// A half of a byte, in hexadecimal.
const fn digit(half: u8) -> u8 {
    if half < 10 { b'0' + half } else { b'a' + half - 10 }
}

/// The 16 bytes of a part, as it is written, that are hardest to guess, if they are hard enough.
fn strongest(
    part: &[u8],
    write: Write,
    is_seen: impl Fn(u8) -> bool,
) -> Option<Zeroizing<[u8; STRETCH_LEN]>> {
    const LONGEST_WRITTEN: usize = 6;
    let mut text = Zeroizing::new(Vec::with_capacity(STRETCH_LEN + LONGEST_WRITTEN));
    let mut best = MIN_STRENGTH_BITS;
    let mut chosen = None;
    for start in 0..part.len() {
        text.clear();
        let mut covered = 0;
        for byte in part.get(start..)?.iter().take(STRETCH_LEN) {
            if text.len() >= STRETCH_LEN {
                break;
            }
            write(*byte, &mut text);
            covered += usize::from(text.len() <= STRETCH_LEN);
        }
        let Some(written) = text.first_chunk::<STRETCH_LEN>() else { break };
        if !written.iter().all(|byte| is_seen(*byte)) {
            continue;
        }
        let strength = strength(part.get(start..start + covered)?, best);
        if strength > best || chosen.is_none() && strength >= best {
            best = strength;
            chosen = Some(Zeroizing::new(*written));
        }
    }
    chosen
}

/// An estimate from below of how many guesses a text takes, as a power of two: what the kinds of
/// its characters allow, less what repeats and what reads like words. What is below `enough`
/// already is not looked at any closer.
#[expect(clippy::cast_precision_loss, reason = "a stretch has sixteen bytes")]
fn strength(text: &[u8], enough: f64) -> f64 {
    let has = |is_kind: &dyn Fn(u8) -> bool| text.iter().any(|byte| is_kind(*byte));
    let kinds: [(bool, f64); 6] = [
        (has(&|byte| byte.is_ascii_digit()), 10.0),
        (has(&|byte| byte.is_ascii_lowercase()), 26.0),
        (has(&|byte| byte.is_ascii_uppercase()), 26.0),
        (has(&|byte| byte.is_ascii_punctuation()), 8.0),
        (has(&|byte| byte.is_ascii_control()), 32.0),
        (has(&|byte| !byte.is_ascii()), 128.0),
    ];
    let alphabet: f64 = kinds.iter().filter(|(is_there, _)| *is_there).map(|(_, size)| size).sum();
    let is_hex = text.iter().all(u8::is_ascii_hexdigit);
    let alphabet = if is_hex { 16.0 } else { alphabet };
    let variety = different(text) as f64 / text.len().max(1) as f64;
    let bits = text.len() as f64 * alphabet.max(1.0).log2() * variety.clamp(0.4, 1.0).sqrt();
    if bits < enough || wordiness(text).unwrap_or(0.0) <= 0.45 { bits } else { 0.4 * bits }
}

/// How many different bytes there are.
fn different(text: &[u8]) -> usize {
    let mut bytes = Zeroizing::new(text.to_vec());
    bytes.sort_unstable();
    bytes.dedup();
    bytes.len()
}

/// The first 32 hex digits of a text that are not few different ones, as the bytes they mean.
fn hex_run(text: &[u8]) -> Option<Zeroizing<[u8; STRETCH_LEN]>> {
    const FEWEST_DIFFERENT: usize = 9;
    let digits = text.windows(HEX_LEN).find(|window| window.iter().all(u8::is_ascii_hexdigit))?;
    let lower = Zeroizing::new(digits.to_ascii_lowercase());
    (different(&lower) >= FEWEST_DIFFERENT).then(|| unhex(digits)).flatten().map(Zeroizing::new)
}

/// The bytes that 32 hexadecimal digits mean.
pub(super) fn unhex(digits: &[u8]) -> Option<[u8; STRETCH_LEN]> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|one| u8::try_from(one).ok());
    let (pairs, _) = digits.as_chunks::<2>();
    let mut bytes = [0; STRETCH_LEN];
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Kind, parts, stretches};

    fn shown(value: &[u8]) -> Vec<(Kind, String)> {
        let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        stretches(value).iter().map(|one| (one.kind, shown(&*one.bytes))).collect()
    }

    #[test]
    fn values_are_taken_apart_where_texts_end() {
        let json =
            br#"{"password": "0123456789abcdef", "short": "x", "url": "https://h/0123456789"}"#;
        assert_eq!(parts(json), [&b"https://h/0123456789"[..], b"0123456789abcdef"]);
        assert_eq!(parts(b"  in-one-piece-0123\n"), [b"in-one-piece-0123"]);
        assert!(parts(b"too short").is_empty());
        assert_eq!(parts(&[b'a'; 5_000])[0].len(), 512);
    }

    #[test]
    fn value_that_could_be_guessed_has_no_stretch() {
        for value in [
            &b"short"[..],
            b"correct-horse-battery-staple",
            b"aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            b"00000000000000000000000000000000",
            b"20261123-20261123-20261123",
            b"my database password is this",
        ] {
            assert!(shown(value).is_empty(), "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn each_way_to_write_a_value_has_its_own_stretch() {
        let found = shown(b"kT9v/Q2xL+mZ7w\\Rb4N");
        let raw = |text: &str| (Kind::Raw, text.to_owned());
        assert!(found.iter().any(|one| *one == raw("kT9v/Q2xL+mZ7w\\R")), "{found:?}");
        assert!(found.iter().any(|(kind, text)| *kind == Kind::Raw && text.contains("\\\\")));
        assert!(found.iter().any(|(kind, _)| *kind == Kind::Decoded), "{found:?}");
        assert_eq!(shown(b"kT9vQ2xLmZ7wRb4N").len(), 2, "written alike, it stands once");
    }

    #[test]
    fn stretch_is_judged_by_what_it_covers_and_not_by_how_it_is_written() {
        // Each letter takes three: five letters are soon guessed.
        let value = "\u{e9}\u{fc}\u{e5}\u{f8}\u{f1}\u{e7}\u{df}\u{e6}\u{f0}\u{fe}";
        let found = shown(value.as_bytes());
        assert!(!found.is_empty() && found.iter().all(|(_, text)| !text.contains('%')));
        // 16 digits are 64 bits, whatever they would be in base64; 32 are a key.
        assert!(shown(b"9f86d081884c7d65").is_empty());
        let [(kind, _)] = &shown(b"9f86d081884c7d659a2feaa0c55ad015")[..] else { panic!() };
        assert_eq!(*kind, Kind::Decoded);
    }

    #[test]
    fn guessable_beginning_of_a_strong_value_is_no_stretch() {
        let value = b"postgres://user:@kT9vQ2xLmZ7wRb4NpY3c8sHd";
        let found = stretches(value);
        assert!(!found.is_empty());
        assert!(found.iter().all(|stretch| *stretch.bytes != value[..16]));
    }

    #[test]
    fn value_of_any_bytes_has_a_stretch_for_where_it_is_encoded() {
        let value: Vec<u8> = (0..32_u8).map(|n| n.wrapping_mul(83) ^ 0x1f).collect();
        assert!(shown(&value).iter().any(|(kind, _)| *kind == Kind::Decoded));
    }
}
