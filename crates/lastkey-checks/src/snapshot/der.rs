//! The two facts of a certificate that the checks need: its last second and its public key.
//!
//! Room      `checks`.
//! Source    RFC 5280, 4.1; X.690 for the encoding.

use base64::{Engine, engine::general_purpose::STANDARD};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The last second of its validity, in seconds since 1970.
    pub not_after: u64,
    /// Its public key as it is encoded (SubjectPublicKeyInfo).
    pub public_key: Vec<u8>,
}

/// Reads the first certificate of a PEM file; nothing when there is none or it is damaged.
#[must_use]
pub fn first_certificate(pem: &str) -> Option<Certificate> {
    let body =
        pem.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END CERTIFICATE-----")?.0;
    let text: String = body.split_whitespace().collect();
    certificate(&STANDARD.decode(text).ok()?)
}

fn certificate(der: &[u8]) -> Option<Certificate> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    let (tag, _, after) = element(rest)?;
    if tag == 0xa0 {
        rest = after;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, rest) = element(rest)?;
    let (tag, end, _) = element(element(validity)?.2)?;
    let rest = element(rest)?.2;
    let (_, _, after) = element(rest)?;
    let public_key = rest.get(..rest.len() - after.len())?.to_vec();
    Some(Certificate { not_after: time(tag, std::str::from_utf8(end).ok()?)?, public_key })
}

/// Tag, content and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let bytes = rest.get(..count)?;
        let len = bytes.iter().fold(0_usize, |len, byte| len << 8 | usize::from(*byte));
        (len, rest.get(count..)?)
    };
    Some((*tag, rest.get(..len)?, rest.get(len..)?))
}

/// UTCTime (tag 23) or GeneralizedTime (tag 24), both in UTC.
fn time(tag: u8, text: &str) -> Option<u64> {
    let digits = text.strip_suffix('Z')?;
    let (year, rest) = match tag {
        23 => {
            let short: u64 = digits.get(..2)?.parse().ok()?;
            (if short < 50 { 2000 + short } else { 1900 + short }, digits.get(2..)?)
        }
        24 => (digits.get(..4)?.parse().ok()?, digits.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let days = days_before(year, part(0)?, part(2)?)?;
    Some(days * 86_400 + part(4)? * 3_600 + part(6)? * 60 + part(8)?)
}

/// Days from 1970 to a day of the Gregorian calendar.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is the last one.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    (year * 365 + leap_days + (month * 153 + 2) / 5 + day).checked_sub(719_469)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{certificate, first_certificate, time};

    #[test]
    fn times_are_read() {
        assert_eq!(time(23, "700101000000Z"), Some(0));
        assert_eq!(time(23, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(time(24, "20240229120000Z"), Some(1_709_208_000));
        assert_eq!(time(24, "20241329120000Z"), None);
    }

    #[test]
    fn certificate_gives_end_and_key() {
        let read = first_certificate(include_str!("../../tests/data/ca.crt")).unwrap();
        assert_eq!(read.not_after, 2110820496);
        assert_eq!(read.public_key.first(), Some(&0x30));
        assert!(
            first_certificate("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
                .is_none()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = certificate(&bytes);
        }
    }
}
