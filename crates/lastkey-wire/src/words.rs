//! The closed lists of words in requests and answers.
//!
//! Room      `wire`. Each list is an enum: `ALL` in the order of the documents, `as_str`,
//!           `Display`, `FromStr` (for command lines), JSON and schema, all from one table.

use core::fmt;
use core::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The text is not one of the words of its list; `Display` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The words that are allowed.
    pub allowed: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected one of ")?;
        f.write_str(&self.allowed.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

/// Declares closed lists of words.
macro_rules! words {
    ($($(#[$doc:meta])* $list:ident { $($(#[$word_doc:meta])* $name:ident = $text:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
            pub enum $list {
                $($(#[$word_doc])* #[serde(rename = $text)] $name,)*
            }

            impl $list {
                /// All words, in the order of the documents.
                pub const ALL: &'static [Self] = &[$(Self::$name),*];
                /// All words as text.
                pub const WORDS: &'static [&'static str] = &[$($text),*];

                /// The word as it is written in JSON.
                #[must_use]
                pub const fn as_str(self) -> &'static str {
                    match self { $(Self::$name => $text),* }
                }
            }

            impl fmt::Display for $list {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(self.as_str())
                }
            }

            impl FromStr for $list {
                type Err = UnknownWord;

                fn from_str(text: &str) -> Result<Self, UnknownWord> {
                    match text {
                        $($text => Ok(Self::$name),)*
                        _ => Err(UnknownWord { allowed: Self::WORDS }),
                    }
                }
            }
        )*
    };
}

words! {
    /// What the material of a key is. SM4 and SM2 need a server built with them.
    KeySpec {
        /// AES, 256 bits. The default.
        Aes256 = "AES_256",
        /// AES, 128 bits.
        Aes128 = "AES_128",
        /// HMAC with SHA-256.
        Hmac256 = "HMAC_256",
        /// HMAC with SHA-384.
        Hmac384 = "HMAC_384",
        /// HMAC with SHA-512.
        Hmac512 = "HMAC_512",
        /// RSA, 2,048 bits.
        Rsa2048 = "RSA_2048",
        /// RSA, 3,072 bits.
        Rsa3072 = "RSA_3072",
        /// RSA, 4,096 bits.
        Rsa4096 = "RSA_4096",
        /// NIST P-256.
        EccNistP256 = "ECC_NIST_P256",
        /// NIST P-384.
        EccNistP384 = "ECC_NIST_P384",
        /// secp256k1.
        EccSecgP256K1 = "ECC_SECG_P256K1",
        /// Ed25519.
        Ed25519 = "ED25519",
        /// SM4 (GB/T 32907).
        Sm4 = "SM4",
        /// SM2 (GB/T 32918).
        Sm2 = "SM2",
    }

    /// What a key is for.
    KeyUsage {
        /// Encrypt and decrypt.
        EncryptDecrypt = "ENCRYPT_DECRYPT",
        /// Sign and verify.
        SignVerify = "SIGN_VERIFY",
        /// Generate and verify MACs.
        GenerateVerifyMac = "GENERATE_VERIFY_MAC",
    }

    /// Where key material comes from.
    Origin {
        /// Drawn by the server.
        Generated = "generated",
        /// Brought by its owner.
        Imported = "imported",
    }

    /// Where a key is in its life.
    KeyState {
        /// Waits for its owner's material.
        PendingImport = "PendingImport",
        /// In use.
        Enabled = "Enabled",
        /// Held back; may come back.
        Disabled = "Disabled",
        /// Processes data protected before, protects no more.
        Deactivated = "Deactivated",
        /// Known or suspected to be in other hands.
        Compromised = "Compromised",
        /// Waits for its destruction; nothing may use it.
        PendingDeletion = "PendingDeletion",
        /// Material is gone; a tombstone remains.
        Destroyed = "Destroyed",
    }

    /// Where a key version is in its life.
    VersionState {
        /// Waits for its owner's material.
        PendingImport = "PendingImport",
        /// Protects new data.
        Active = "Active",
        /// Processes data protected before.
        Deactivated = "Deactivated",
        /// Any use is refused and counted; can be undone.
        ShadowDisabled = "ShadowDisabled",
        /// Known or suspected to be in other hands.
        Compromised = "Compromised",
        /// Material is gone.
        Destroyed = "Destroyed",
    }

    /// What a message to sign is.
    MessageType {
        /// The message itself.
        Raw = "RAW",
        /// Its digest, made by the caller.
        Digest = "DIGEST",
    }

    /// How to sign.
    SigningAlgorithm {
        /// RSASSA-PSS with SHA-256.
        RsassaPssSha256 = "RSASSA_PSS_SHA_256",
        /// RSASSA-PSS with SHA-384.
        RsassaPssSha384 = "RSASSA_PSS_SHA_384",
        /// RSASSA-PSS with SHA-512.
        RsassaPssSha512 = "RSASSA_PSS_SHA_512",
        /// RSASSA-PKCS1-v1_5 with SHA-256.
        RsassaPkcs1V15Sha256 = "RSASSA_PKCS1_V1_5_SHA_256",
        /// RSASSA-PKCS1-v1_5 with SHA-384.
        RsassaPkcs1V15Sha384 = "RSASSA_PKCS1_V1_5_SHA_384",
        /// RSASSA-PKCS1-v1_5 with SHA-512.
        RsassaPkcs1V15Sha512 = "RSASSA_PKCS1_V1_5_SHA_512",
        /// ECDSA with SHA-256.
        EcdsaSha256 = "ECDSA_SHA_256",
        /// ECDSA with SHA-384.
        EcdsaSha384 = "ECDSA_SHA_384",
        /// Ed25519.
        Ed25519 = "ED25519",
        /// SM2 with SM3.
        Sm2Dsa = "SM2DSA",
    }

    /// How material to import is wrapped.
    ImportAlgorithm {
        /// RSAES-OAEP with SHA-256: up to 446 bytes.
        RsaesOaepSha256 = "RSAES_OAEP_SHA_256",
        /// RSA-AES key wrap (RFC 5649 under an OAEP-wrapped AES key): any length.
        RsaAesKeyWrapSha256 = "RSA_AES_KEY_WRAP_SHA_256",
    }

    /// What a place outside holds under a key.
    HeldWhat {
        /// Objects of a Kubernetes cluster in etcd, or in a snapshot of it.
        EtcdObjects = "etcd-objects",
        /// Encrypted volumes of a node, and snapshots of them.
        Volumes = "volumes",
    }

    /// What became of a claim to have seen a managed value.
    LeakVerdict {
        /// It is one.
        Confirmed = "confirmed",
        /// It is none.
        Refuted = "refuted",
        /// That is not told: the version is not there any more, or the caller may not ask.
        Untold = "untold",
    }

    /// Length of a data key.
    DataKeySpec {
        /// 32 bytes. The default.
        Aes256 = "AES_256",
        /// 16 bytes.
        Aes128 = "AES_128",
    }

    /// Stable codes of errors. A newer server may know more.
    ErrorCode {
        /// The request is malformed.
        InvalidRequest = "InvalidRequest",
        /// More plaintext than one call protects.
        PlaintextTooLarge = "PlaintextTooLarge",
        /// The body is over the limit.
        BodyTooLarge = "BodyTooLarge",
        /// No token, or a wrong one.
        Unauthenticated = "Unauthenticated",
        /// Not allowed, or no such key.
        AccessDenied = "AccessDenied",
        /// The key is not in a state that permits this.
        KeyState = "KeyState",
        /// The secret or its version is deleted, destroyed or not there.
        SecretState = "SecretState",
        /// The key is not for this.
        KeyUsage = "KeyUsage",
        /// The ciphertext cannot be decrypted.
        Undecryptable = "Undecryptable",
        /// Somebody else changed it in the meantime.
        Conflict = "Conflict",
        /// It exists already.
        AlreadyExists = "AlreadyExists",
        /// A limit is reached.
        LimitExceeded = "LimitExceeded",
        /// The key is protected against deletion.
        DeletionProtected = "DeletionProtected",
        /// A place outside was reported to hold things under the key or version.
        KeyNeeded = "KeyNeeded",
        /// The clock jumped and waits for an operator.
        ClockHeld = "ClockHeld",
        /// A seal cannot be made, opened or let go of in this way.
        SealRefused = "SealRefused",
        /// A system outside, such as a database, refused or failed.
        OutsideFailed = "OutsideFailed",
        /// No such route.
        NotFound = "NotFound",
        /// The route has no such method.
        MethodNotAllowed = "MethodNotAllowed",
        /// The body is not JSON.
        UnsupportedMediaType = "UnsupportedMediaType",
        /// Too many requests.
        Throttled = "Throttled",
        /// The server is sealed.
        Sealed = "Sealed",
        /// A part that the server needs is away.
        Unavailable = "Unavailable",
        /// The request took too long.
        Timeout = "Timeout",
        /// A fault of the server.
        Internal = "Internal",
    }

    /// How the state of an installation stands to one that somebody remembers.
    Standing {
        /// It is what became of it.
        Continues = "continues",
        /// It is an older one, and an operator has said since that this is meant.
        Accepted = "accepted",
        /// It is an older one.
        Older = "older",
        /// It is another installation.
        Foreign = "foreign",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_in_json_text_and_command_lines() {
        for (spec, word) in KeySpec::ALL.iter().zip(KeySpec::WORDS) {
            assert_eq!(serde_json::to_string(spec).unwrap(), format!("\"{word}\""));
            assert_eq!(serde_json::from_str::<KeySpec>(&format!("\"{word}\"")).unwrap(), *spec);
            assert_eq!(word.parse::<KeySpec>(), Ok(*spec));
            assert_eq!(spec.to_string(), *word);
        }
    }

    #[test]
    fn an_unknown_word_gets_the_list_of_known_ones() {
        let error = "BYTES".parse::<MessageType>().unwrap_err();
        assert_eq!(error.to_string(), "expected one of RAW, DIGEST");
    }
}
