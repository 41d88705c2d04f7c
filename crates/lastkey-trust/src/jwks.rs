//! Sets of public keys, as issuers publish them.
//!
//! Room      `trust`.
//! Source    RFC 7517 (JWK), RFC 7518, section 6 (RSA and EC), RFC 8037 (Ed25519), RFC 9964
//!           (ML-DSA).
//! Holds     Every key of a set is usable for signatures; each has a closed list of algorithms
//!           that fit its type and curve, so no header of a token chooses another kind.

use core::fmt;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ML_DSA_44,
    ML_DSA_65, ML_DSA_87, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};
use serde_json::{Map, Value};

use crate::{b64, strict_json};

/// Longest set that is read, in bytes.
pub const MAX_SET_LEN: usize = 262_144;
/// Most keys in a set, those that are skipped included.
pub const MAX_KEYS: usize = 64;
/// Longest key id, in bytes.
const MAX_KEY_ID_LEN: usize = 256;
/// Members that only a private or symmetric key has.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "k", "priv"];

/// A signature algorithm of JOSE. Symmetric ones and `none` are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519; in a header `EdDSA` or, since RFC 9864, `Ed25519`.
    EdDsa,
    /// ML-DSA-44.
    MlDsa44,
    /// ML-DSA-65.
    MlDsa65,
    /// ML-DSA-87.
    MlDsa87,
}

const RSA_ALGORITHMS: [Algorithm; 6] = [
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
];

impl Algorithm {
    /// The algorithm of a header or key.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "RS384" => Some(Self::Rs384),
            "RS512" => Some(Self::Rs512),
            "PS256" => Some(Self::Ps256),
            "PS384" => Some(Self::Ps384),
            "PS512" => Some(Self::Ps512),
            "ES256" => Some(Self::Es256),
            "ES384" => Some(Self::Es384),
            "ES512" => Some(Self::Es512),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            "ML-DSA-44" => Some(Self::MlDsa44),
            "ML-DSA-65" => Some(Self::MlDsa65),
            "ML-DSA-87" => Some(Self::MlDsa87),
            _ => None,
        }
    }

    fn rsa_parameters(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
            Self::Es256
            | Self::Es384
            | Self::Es512
            | Self::EdDsa
            | Self::MlDsa44
            | Self::MlDsa65
            | Self::MlDsa87 => None,
        }
    }
}

/// Why a set was refused. Keys of an unknown kind are skipped and are no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Longer than 256 KiB.
    #[error("the key set is longer than 262144 bytes")]
    TooLong,
    /// More than 64 keys.
    #[error("the key set has more than 64 keys")]
    TooManyKeys,
    /// Not an object with an array `keys` of objects, or a member is named twice.
    #[error("not a JSON Web Key Set")]
    Malformed,
    /// A key of a known kind with bad or missing members.
    #[error("a key of the set is malformed: {0}")]
    BadKey(&'static str),
    /// A private or symmetric key: its owner should know.
    #[error("the key set holds a private or secret key")]
    PrivateKey,
    /// Two keys for signatures have one id.
    #[error("two keys of the set have the same id")]
    DuplicateKeyId,
    /// No key for signatures at all.
    #[error("the key set has no key for signatures")]
    Empty,
}

/// What the keys of a set are for, as their `use` says.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Any tokens: `sig`, or nothing is said.
    Signatures,
    /// Tokens of a trust domain: `jwt-svid`.
    JwtSvid,
}

/// The entries of a set, of whatever kind.
///
/// # Errors
/// [`JwksError::TooLong`], [`JwksError::Malformed`], [`JwksError::TooManyKeys`].
pub(crate) fn entries(bytes: &[u8]) -> Result<Vec<Value>, JwksError> {
    if bytes.len() > MAX_SET_LEN {
        return Err(JwksError::TooLong);
    }
    let mut object = strict_json::parse_object(bytes).ok_or(JwksError::Malformed)?;
    let Some(Value::Array(entries)) = object.remove("keys") else {
        return Err(JwksError::Malformed);
    };
    if entries.len() > MAX_KEYS { Err(JwksError::TooManyKeys) } else { Ok(entries) }
}

/// The public keys of one issuer.
pub struct KeySet(Vec<VerifyKey>);

/// One public key and the algorithms it may be used with.
pub struct VerifyKey {
    key_id: Option<String>,
    parsed: Vec<(Algorithm, ParsedPublicKey)>,
}

impl KeySet {
    /// Parses a set.
    ///
    /// Skipped without an error: keys of an unknown `kty` or `crv`, keys whose `use` or `key_ops`
    /// is not for verification, and keys whose `alg` does not fit their type.
    ///
    /// # Errors
    /// [`JwksError`] by variant; a set is taken whole or not at all.
    pub fn parse(bytes: &[u8]) -> Result<Self, JwksError> {
        Self::of(&entries(bytes)?, Purpose::Signatures)
    }

    /// The keys of one purpose among the entries of a set.
    ///
    /// # Errors
    /// As [`KeySet::parse`].
    pub(crate) fn of(entries: &[Value], purpose: Purpose) -> Result<Self, JwksError> {
        let mut keys: Vec<VerifyKey> = Vec::with_capacity(entries.len());
        for entry in entries {
            let members = entry.as_object().ok_or(JwksError::Malformed)?;
            let Some(key) = parse_key(members, purpose)? else {
                continue;
            };
            if key.key_id.is_some() && keys.iter().any(|other| other.key_id == key.key_id) {
                return Err(JwksError::DuplicateKeyId);
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(JwksError::Empty) } else { Ok(Self(keys)) }
    }

    /// The key of this id; without an id, the only key of a set of one.
    #[must_use]
    pub fn find(&self, key_id: Option<&str>) -> Option<&VerifyKey> {
        match (key_id, self.0.as_slice()) {
            (Some(id), keys) => keys.iter().find(|key| key.key_id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// The ids of the keys, in the order of the set.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|key| key.key_id.as_deref())
    }

    /// How many keys there are; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a set is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl VerifyKey {
    /// Whether `signature` is one of `message`; `None` when the key does not do `algorithm`.
    #[must_use]
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Option<bool> {
        let (_, key) = self.parsed.iter().find(|(one, _)| *one == algorithm)?;
        Some(key.verify_sig(message, signature).is_ok())
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

type Members = Map<String, Value>;

fn parse_key(members: &Members, purpose: Purpose) -> Result<Option<VerifyKey>, JwksError> {
    if PRIVATE_MEMBERS.iter().any(|name| members.contains_key(*name)) {
        return Err(JwksError::PrivateKey);
    }
    if !is_for_verification(members, purpose)? {
        return Ok(None);
    }
    let parsed = match text(members, "kty")?.ok_or(JwksError::BadKey("kty"))? {
        "RSA" => parse_rsa(members)?,
        "EC" => parse_ec(members)?,
        "OKP" => parse_ed25519(members)?,
        "AKP" => parse_ml_dsa(members)?,
        _ => return Ok(None),
    };
    let key_id = text(members, "kid")?.map(str::to_owned);
    if key_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_KEY_ID_LEN) {
        return Err(JwksError::BadKey("kid"));
    }
    Ok((!parsed.is_empty()).then_some(VerifyKey { key_id, parsed }))
}

fn text<'a>(members: &'a Members, name: &'static str) -> Result<Option<&'a str>, JwksError> {
    members.get(name).map(|value| value.as_str().ok_or(JwksError::BadKey(name))).transpose()
}

fn bytes(members: &Members, name: &'static str) -> Result<Vec<u8>, JwksError> {
    let text = text(members, name)?.ok_or(JwksError::BadKey(name))?;
    b64::decode(text.as_bytes()).ok_or(JwksError::BadKey(name))
}

fn is_for_verification(members: &Members, purpose: Purpose) -> Result<bool, JwksError> {
    let said = text(members, "use")?;
    let by_use = match purpose {
        Purpose::Signatures => said.is_none_or(|one| one == "sig"),
        Purpose::JwtSvid => said == Some("jwt-svid"),
    };
    let by_operations = match members.get("key_ops") {
        None => true,
        Some(value) => {
            let operations = value.as_array().ok_or(JwksError::BadKey("key_ops"))?;
            operations.iter().any(|one| one.as_str() == Some("verify"))
        }
    };
    Ok(by_use && by_operations)
}

/// Of `possible`, what the `alg` of the key leaves: everything where there is none.
fn allowed(members: &Members, possible: &[Algorithm]) -> Result<Vec<Algorithm>, JwksError> {
    let wanted = text(members, "alg")?;
    let fits = |one: &Algorithm| wanted.is_none_or(|name| Algorithm::parse(name) == Some(*one));
    Ok(possible.iter().copied().filter(fits).collect())
}

fn parse_rsa(members: &Members) -> Result<Vec<(Algorithm, ParsedPublicKey)>, JwksError> {
    let (n, e) = (bytes(members, "n")?, bytes(members, "e")?);
    if n.first().is_none_or(|first| *first == 0) || !(256..=1024).contains(&n.len()) {
        return Err(JwksError::BadKey("n"));
    }
    // 2,048 bits are 256 whole bytes; a first byte below 128 would make it fewer.
    if n.len() == 256 && n.first().is_some_and(|first| *first < 128) {
        return Err(JwksError::BadKey("n"));
    }
    if e.first().is_none_or(|first| *first == 0) || e.last().is_none_or(|last| last % 2 == 0) {
        return Err(JwksError::BadKey("e"));
    }
    let components = PublicKeyComponents { n: n.as_slice(), e: e.as_slice() };
    let parse_for = |algorithm: Algorithm| {
        let parameters = algorithm.rsa_parameters().ok_or(JwksError::BadKey("alg"))?;
        let key = components.to_parsed_public_key(parameters);
        key.map(|key| (algorithm, key)).map_err(|_| JwksError::BadKey("n"))
    };
    allowed(members, &RSA_ALGORITHMS)?.into_iter().map(parse_for).collect()
}

fn parse_ec(members: &Members) -> Result<Vec<(Algorithm, ParsedPublicKey)>, JwksError> {
    let (algorithm, verification, field_len): (_, &'static dyn VerificationAlgorithm, _) =
        match text(members, "crv")?.ok_or(JwksError::BadKey("crv"))? {
            "P-256" => (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED, 32),
            "P-384" => (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED, 48),
            "P-521" => (Algorithm::Es512, &ECDSA_P521_SHA512_FIXED, 66),
            _ => return Ok(Vec::new()),
        };
    let (x, y) = (bytes(members, "x")?, bytes(members, "y")?);
    if x.len() != field_len || y.len() != field_len {
        return Err(JwksError::BadKey("x"));
    }
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    parse_one(members, algorithm, verification, &point)
}

fn parse_ed25519(members: &Members) -> Result<Vec<(Algorithm, ParsedPublicKey)>, JwksError> {
    if text(members, "crv")?.ok_or(JwksError::BadKey("crv"))? != "Ed25519" {
        return Ok(Vec::new());
    }
    let x = bytes(members, "x")?;
    if x.len() != 32 {
        return Err(JwksError::BadKey("x"));
    }
    parse_one(members, Algorithm::EdDsa, &ED25519, &x)
}

fn parse_ml_dsa(members: &Members) -> Result<Vec<(Algorithm, ParsedPublicKey)>, JwksError> {
    let (algorithm, verification): (_, &'static dyn VerificationAlgorithm) =
        match text(members, "alg")?.ok_or(JwksError::BadKey("alg"))? {
            "ML-DSA-44" => (Algorithm::MlDsa44, &ML_DSA_44),
            "ML-DSA-65" => (Algorithm::MlDsa65, &ML_DSA_65),
            "ML-DSA-87" => (Algorithm::MlDsa87, &ML_DSA_87),
            _ => return Ok(Vec::new()),
        };
    parse_one(members, algorithm, verification, &bytes(members, "pub")?)
}

fn parse_one(
    members: &Members,
    algorithm: Algorithm,
    verification: &'static dyn VerificationAlgorithm,
    key: &[u8],
) -> Result<Vec<(Algorithm, ParsedPublicKey)>, JwksError> {
    if allowed(members, &[algorithm])?.is_empty() {
        return Ok(Vec::new());
    }
    let parsed = ParsedPublicKey::new(verification, key).map_err(|_| JwksError::BadKey("x"))?;
    Ok(vec![(algorithm, parsed)])
}
