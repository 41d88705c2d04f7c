//! Caveats: a bearer made narrower by its holder, without asking the server.
//!
//! Room      `trust`, inside.
//! Source    Birgisson et al., Macaroons (NDSS 2014): a chain of HMACs, verified only by us;
//!           `docs/formats/session.md`, "Bearer".
//! Holds     A caveat can be added and never taken away: the tail that would verify without it
//!           is not in the narrowed bearer. A caveat that is not known is refused.

use aws_lc_rs::hmac;
use lastkey_core::time::Timestamp;
use lastkey_secret::{SecretArray, SecretVec, ct_eq};
use minicbor::{Decode, Encode};

use super::codec;
use super::form::{BEARER_PREFIX, MAX_BEARER_LEN, armor, dearmor};

/// Most caveats on one bearer.
pub const MAX_CAVEATS: usize = 8;
/// Longest encoded caveat, in bytes.
const MAX_CAVEAT_LEN: usize = 1_024;
/// All caveats with their lengths.
pub(super) const MAX_TOTAL_LEN: usize = MAX_CAVEATS * (MAX_CAVEAT_LEN + 2);
const TAIL_LEN: usize = 32;

/// One thing that a narrowed bearer is limited to. Several add up: all must allow.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Caveat {
    /// Only these actions, by their names in policies.
    #[n(1)]
    Actions(#[n(0)] Vec<String>),
    /// Only these keys, by their ids; nothing that names no key.
    #[n(2)]
    Keys(#[n(0)] Vec<String>),
    /// Only before this moment, in seconds since 1970-01-01T00:00:00Z.
    #[n(3)]
    Until(#[n(0)] u64),
}

/// Why a bearer was not narrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaveatError {
    /// Not a bearer.
    #[error("this is not a bearer credential")]
    NotABearer,
    /// It has eight caveats already.
    #[error("a bearer has at most {MAX_CAVEATS} caveats")]
    TooMany,
    /// The caveat takes more than 1,024 bytes.
    #[error("the caveat is too long")]
    TooLong,
}

/// The same bearer, narrowed by `caveat`. Needs no key and no server.
///
/// # Errors
/// [`CaveatError`] by variant.
pub fn attenuate(bearer: &SecretVec, caveat: &Caveat) -> Result<SecretVec, CaveatError> {
    let body = bearer.expose(|text| dearmor(BEARER_PREFIX, MAX_BEARER_LEN, text));
    let body = SecretVec::take(body.ok_or(CaveatError::NotABearer)?);
    body.expose(|body| {
        let mut parts = BearerParts::parse(body).ok_or(CaveatError::NotABearer)?;
        if parts.caveats.len() >= MAX_CAVEATS {
            return Err(CaveatError::TooMany);
        }
        let encoded = codec::encode(caveat);
        if encoded.len() > MAX_CAVEAT_LEN {
            return Err(CaveatError::TooLong);
        }
        let tail = next_tail(parts.tail, &encoded);
        parts.caveats.push(&encoded);
        Ok(armor(BEARER_PREFIX, parts.assemble(&tail)))
    })
}

/// What a bearer consists of: `head ‖ count 1 ‖ (length 2 ‖ caveat)* ‖ tail 32`, where
/// `head = epoch 4 ‖ length 2 ‖ sealed`.
pub(super) struct BearerParts<'a> {
    pub(super) epoch: u32,
    pub(super) sealed: &'a [u8],
    head: &'a [u8],
    caveats: Vec<&'a [u8]>,
    tail: &'a [u8],
}

impl<'a> BearerParts<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let (epoch, rest) = body.split_first_chunk::<4>()?;
        let (sealed, rest) = take_short(rest)?;
        let head = body.get(..sealed.len().checked_add(6)?)?;
        let (count, mut rest) = rest.split_first()?;
        if usize::from(*count) > MAX_CAVEATS {
            return None;
        }
        let mut caveats = Vec::with_capacity(MAX_CAVEATS);
        for _ in 0..*count {
            let (caveat, after) = take_short(rest)?;
            if caveat.len() > MAX_CAVEAT_LEN {
                return None;
            }
            caveats.push(caveat);
            rest = after;
        }
        (rest.len() == TAIL_LEN).then_some(Self {
            epoch: u32::from_be_bytes(*epoch),
            sealed,
            head,
            caveats,
            tail: rest,
        })
    }

    /// The body of a bearer with these parts and another tail.
    fn assemble(&self, tail: &SecretArray<TAIL_LEN>) -> Vec<u8> {
        let mut body = self.head.to_vec();
        body.push(u8::try_from(self.caveats.len()).unwrap_or(u8::MAX));
        for caveat in &self.caveats {
            push_short(&mut body, caveat);
        }
        tail.expose(|tail| body.extend_from_slice(tail));
        body
    }

    /// The caveats, if the tail is the one of the chain under `key`.
    pub(super) fn verify(&self, key: &hmac::Key) -> Option<Narrowing> {
        let first = copy_tag(&hmac::sign(key, self.head));
        let tail = self
            .caveats
            .iter()
            .fold(first, |tail, caveat| tail.expose(|tail| next_tail(tail, caveat)));
        if !tail.expose(|tail| ct_eq(tail, self.tail)) {
            return None;
        }
        let known = self.caveats.iter().map(|caveat| codec::decode::<Caveat>(caveat));
        known.collect::<Option<Vec<_>>>().map(Narrowing)
    }
}

/// The body of a bearer without caveats.
pub(super) fn fresh_body(epoch: u32, sealed: &[u8], key: &hmac::Key) -> Vec<u8> {
    let mut body = epoch.to_be_bytes().to_vec();
    push_short(&mut body, sealed);
    let tail = hmac::sign(key, &body);
    body.push(0);
    body.extend_from_slice(tail.as_ref());
    body
}

fn next_tail(tail: &[u8], caveat: &[u8]) -> SecretArray<TAIL_LEN> {
    copy_tag(&hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, tail), caveat))
}

fn copy_tag(tag: &hmac::Tag) -> SecretArray<TAIL_LEN> {
    SecretArray::try_copy_of(tag.as_ref()).unwrap_or_else(|| SecretArray::copy_of(&[0; TAIL_LEN]))
}

fn take_short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// Appends length and bytes. Both callers stay far below 65,536 bytes.
fn push_short(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend_from_slice(bytes);
}

/// What the caveats of a bearer leave of its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing(Vec<Caveat>);

impl Narrowing {
    /// Whether the caveats allow `action` on `key`; `None` for actions that name no key.
    #[must_use]
    pub fn permits(&self, action: &str, key: Option<&str>) -> bool {
        self.0.iter().all(|caveat| match caveat {
            Caveat::Actions(actions) => actions.iter().any(|one| one == action),
            Caveat::Keys(keys) => key.is_some_and(|key| keys.iter().any(|one| one == key)),
            Caveat::Until(_) => true,
        })
    }

    /// The earliest end among the caveats.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        let ends = self.0.iter().filter_map(|caveat| match caveat {
            Caveat::Until(end) => Some(Timestamp(*end)),
            Caveat::Actions(_) | Caveat::Keys(_) => None,
        });
        ends.min()
    }

    /// The caveats, in the order in which they were added.
    #[must_use]
    pub fn caveats(&self) -> &[Caveat] {
        &self.0
    }
}
