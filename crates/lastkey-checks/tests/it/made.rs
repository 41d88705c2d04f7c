//! Secrets made up at test time.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use lastkey_checks::{
    finding::Fingerprinter,
    scan::{Options, Outcome, Rules, Scanner, Workspace},
};

/// Letters that look random and are the same in each run.
pub(crate) struct Letters(u64);

impl Letters {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn text(&mut self, alphabet: &str, len: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..len).map(|_| letters[self.number() as usize % letters.len()]).collect()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number() as u8).collect()
    }
}

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS: &str = "0123456789";

/// Fills a pattern: `[CLASS:LEN]` becomes letters of a class; `[crc62]`, `[glsa]`, `[jwt]`,
/// `[k8s]`, `[pem]`, `[pemline]`, `[basic]`, `[age]`, `[lkta]`, `[lkb]` and `[macaroon]`
/// become what needs a structure.
pub(crate) fn fill(pattern: &str, seed: u64) -> String {
    let mut letters = Letters::new(seed);
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("[=") {
        out.push_str(before);
        let (spec, more) = after.split_once(']').expect("a pattern ends its brackets");
        out.push_str(&piece(spec, &mut letters));
        rest = more;
    }
    out + rest
}

fn piece(spec: &str, letters: &mut Letters) -> String {
    match spec.split_once(':') {
        Some((class, len)) => {
            let alphabet = match class {
                "d" => DIGITS.to_owned(),
                "h" => format!("{DIGITS}abcdef"),
                "H" => format!("{DIGITS}ABCDEF"),
                "l" => LOWER.to_owned(),
                "a" => format!("{DIGITS}{LOWER}"),
                "U" => format!("{DIGITS}{UPPER}"),
                "A" => format!("{DIGITS}{LOWER}{UPPER}"),
                "L" => format!("{LOWER}{UPPER}"),
                "2" => format!("{UPPER}234567"),
                "b" => format!("{DIGITS}{LOWER}{UPPER}+/"),
                "u" => format!("{DIGITS}{LOWER}{UPPER}_-"),
                other => panic!("{other} is no class"),
            };
            letters.text(&alphabet, len.parse().expect("a length"))
        }
        None => structured(spec, letters),
    }
}

fn structured(spec: &str, letters: &mut Letters) -> String {
    match spec {
        "uuid" => [8, 4, 4, 4, 12].map(|len| piece(&format!("h:{len}"), letters)).join("-"),
        "crc62" => {
            let body = piece("A:30", letters);
            format!("{body}{}", base62(crc32(body.as_bytes())))
        }
        "glsa" => {
            let body = format!("glsa_{}", piece("A:32", letters));
            let sum: String =
                crc32(body.as_bytes()).to_le_bytes().iter().map(|b| format!("{b:02x}")).collect();
            format!("{body}_{sum}")
        }
        "jwt" => jwt("{\"sub\":\"user-7\",\"role\":\"admin\"}", letters),
        "k8s" => jwt("{\"iss\":\"kubernetes/serviceaccount\",\"sub\":\"system:sa:x\"}", letters),
        "pem" => pem(letters, "\n"),
        "pemline" => pem(letters, "\\n"),
        "basic" => STANDARD.encode(format!("deploy:{}", piece("A:14", letters))),
        "macaroon" => {
            let body = [b"\x02\x01\x08py".to_vec(), b"pi.org".to_vec(), letters.bytes(90)].concat();
            format!("pypi-{}", URL_SAFE_NO_PAD.encode(body))
        }
        "discord" => format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(format!("8{}", piece("d:17", letters))),
            piece("u:6", letters),
            piece("A:38", letters)
        ),
        "age" => age(letters),
        "lkta" => sealed(letters, "LKTA", 16, &base32),
        "lkb" => sealed(letters, "lkb1_", 96, &|bytes| URL_SAFE_NO_PAD.encode(bytes)),
        other => panic!("{other} is no structure"),
    }
}

fn jwt(claims: &str, letters: &mut Letters) -> String {
    let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"RS256\",\"kid\":\"k1\"}");
    let signature = URL_SAFE_NO_PAD.encode(letters.bytes(64));
    format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims))
}

fn pem(letters: &mut Letters, newline: &str) -> String {
    let mut der = vec![0x30, 0x82, 2, 0];
    der.extend(letters.bytes(512));
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let label = ["PRIVATE", "KEY"].join(" ");
    let lines = lines.join(newline);
    format!("-----BEGIN {label}-----{newline}{lines}{newline}-----END {label}-----")
}

fn age(letters: &mut Letters) -> String {
    const ALPHABET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let name = "age-secret-key-";
    let data: Vec<u8> = letters
        .text(ALPHABET, 52)
        .chars()
        .map(|letter| ALPHABET.find(letter).unwrap() as u8)
        .collect();
    let mut values: Vec<u8> = name.bytes().map(|byte| byte >> 5).collect();
    values.push(0);
    values.extend(name.bytes().map(|byte| byte & 31));
    values.extend(&data);
    let mut checked = values.clone();
    checked.extend([0; 6]);
    let sum = polymod(&checked) ^ 1;
    let tail = (0..6).map(|at| (sum >> (5 * (5 - at)) & 31) as u8);
    let digit = |value: u8| ALPHABET.chars().nth(usize::from(value)).unwrap();
    let body: String = data.iter().copied().chain(tail).map(digit).collect();
    format!("{name}1{body}").to_uppercase()
}

fn polymod(values: &[u8]) -> u32 {
    let generator = [0x3b6a_57b2_u32, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.iter().fold(1_u32, |sum, value| {
        let top = sum >> 25;
        let next = ((sum & 0x01ff_ffff) << 5) ^ u32::from(*value);
        (0..5).filter(|bit| (top >> bit) & 1 == 1).fold(next, |next, bit| next ^ generator[bit])
    })
}

fn sealed(
    letters: &mut Letters,
    prefix: &str,
    len: usize,
    encode: &dyn Fn(&[u8]) -> String,
) -> String {
    let body = letters.bytes(len);
    let whole = [prefix.as_bytes(), &body].concat();
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &whole);
    format!("{prefix}{}", encode(&[body.as_slice(), &sum.as_ref()[..4]].concat()))
}

fn base32(bytes: &[u8]) -> String {
    let alphabet: Vec<char> = format!("{UPPER}234567").chars().collect();
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> (7 - bit) & 1)).collect();
    bits.chunks(5)
        .map(|five| alphabet[usize::from(five.iter().fold(0, |sum, bit| sum << 1 | bit))])
        .collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

fn base62(mut number: u32) -> String {
    let digits: Vec<char> = format!("{DIGITS}{UPPER}{LOWER}").chars().collect();
    let mut text = String::new();
    for _ in 0..6 {
        text.insert(0, digits[(number % 62) as usize]);
        number /= 62;
    }
    text
}

/// A scanner with the built-in rules.
pub(crate) fn scanner() -> Scanner {
    let rules = Rules::builtin().expect("the built-in rules are whole");
    Scanner::new(rules, Fingerprinter::unkeyed(), None, Options::default()).expect("a scanner")
}

/// What is found in a file.
pub(crate) fn scan(scanner: &Scanner, path: &str, content: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    scanner.scan(path, None, &mut &*content, &mut Workspace::default(), &mut outcome);
    outcome
}
