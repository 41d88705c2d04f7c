//! Texts inside texts: base64 that hides a file with secrets in it.
//!
//! Room      `checks`, inside `scan`.

use std::ops::Range;

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Shorter runs of base64 are not decoded, in bytes.
const SHORTEST: usize = 40;

/// The runs of base64 that decode to text, each with what it decodes to.
pub(super) fn texts(text: &[u8]) -> impl Iterator<Item = (Range<usize>, Vec<u8>)> {
    Runs { text, at: 0 }.filter_map(move |span| {
        let decoded = decode(text.get(span.clone())?)?;
        Some((span, decoded))
    })
}

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// Finds runs by looking at every fortieth byte: a run of forty covers one of them.
struct Runs<'t> {
    text: &'t [u8],
    at: usize,
}

impl Iterator for Runs<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let end = self.at.checked_add(SHORTEST)?;
            let stretch = self.text.get(self.at..end)?;
            if let Some(gap) = stretch.iter().rposition(|byte| !is_base64(*byte)) {
                self.at += gap + 1;
                continue;
            }
            let more = self.text.get(end..)?.iter().take_while(|byte| is_base64(**byte)).count();
            let run = self.at..end + more;
            self.at = run.end;
            return Some(run);
        }
    }
}

fn decode(run: &[u8]) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let is_url = run.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let alphabet = if is_url { &base64::alphabet::URL_SAFE } else { &base64::alphabet::STANDARD };
    let engine = GeneralPurpose::new(alphabet, config);
    let head = engine.decode(run.get(..SHORTEST - SHORTEST % 4)?).ok()?;
    if !is_text(&head) {
        return None;
    }
    // A run may end with one character that belongs to nothing.
    let whole = run.len() - usize::from(run.len() % 4 == 1);
    engine.decode(run.get(..whole)?).ok().filter(|decoded| is_text(decoded))
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..0x7f))
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::texts;

    #[test]
    fn text_is_decoded_and_noise_is_not() {
        let inner = "user: admin\npassword: something to be found\n";
        let noise: Vec<u8> = (0..60_u8).map(|n| n.wrapping_mul(37) ^ 0xa5).collect();
        let outer =
            format!("a: {}\nb: {}\nc: short\n", STANDARD.encode(inner), STANDARD.encode(noise));
        let found: Vec<_> = texts(outer.as_bytes()).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, inner.as_bytes());
        assert_eq!(found[0].0.start, 3);
    }

    #[test]
    fn runs_are_found_wherever_they_begin() {
        let run = STANDARD.encode("thirty characters of plain text");
        for gap in 0..90 {
            let text = format!("{}{run} tail", "- ".repeat(gap));
            assert_eq!(texts(text.as_bytes()).count(), 1, "{gap}");
        }
    }
}
