//! Words of the wire and values of the domain.
//!
//! Room      `http`. The wire has words of its own; these tables translate, both ways.

use lastkey_core::holding::HeldWhat;
use lastkey_core::key::{Key, KeyUsage};
use lastkey_core::state::State;
use lastkey_core::version::Origin;
use lastkey_crypto::import::ImportAlgorithm;
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::sign::SignAlgorithm;
use lastkey_service::ops::sign::MessageType;
use lastkey_wire::words as wire;

/// A key spec.
pub(super) const fn spec_in(spec: wire::KeySpec) -> MaterialSpec {
    match spec {
        wire::KeySpec::Aes256 => MaterialSpec::Aes256,
        wire::KeySpec::Aes128 => MaterialSpec::Aes128,
        wire::KeySpec::Hmac256 => MaterialSpec::Hmac256,
        wire::KeySpec::Hmac384 => MaterialSpec::Hmac384,
        wire::KeySpec::Hmac512 => MaterialSpec::Hmac512,
        wire::KeySpec::Rsa2048 => MaterialSpec::Rsa2048,
        wire::KeySpec::Rsa3072 => MaterialSpec::Rsa3072,
        wire::KeySpec::Rsa4096 => MaterialSpec::Rsa4096,
        wire::KeySpec::EccNistP256 => MaterialSpec::P256,
        wire::KeySpec::EccNistP384 => MaterialSpec::P384,
        wire::KeySpec::EccSecgP256K1 => MaterialSpec::Secp256k1,
        wire::KeySpec::Ed25519 => MaterialSpec::Ed25519,
        wire::KeySpec::Sm4 => MaterialSpec::Sm4,
        wire::KeySpec::Sm2 => MaterialSpec::Sm2,
    }
}

/// A key spec.
pub(super) const fn spec_out(spec: MaterialSpec) -> wire::KeySpec {
    match spec {
        MaterialSpec::Aes256 => wire::KeySpec::Aes256,
        MaterialSpec::Aes128 => wire::KeySpec::Aes128,
        MaterialSpec::Hmac256 => wire::KeySpec::Hmac256,
        MaterialSpec::Hmac384 => wire::KeySpec::Hmac384,
        MaterialSpec::Hmac512 => wire::KeySpec::Hmac512,
        MaterialSpec::Rsa2048 => wire::KeySpec::Rsa2048,
        MaterialSpec::Rsa3072 => wire::KeySpec::Rsa3072,
        MaterialSpec::Rsa4096 => wire::KeySpec::Rsa4096,
        MaterialSpec::P256 => wire::KeySpec::EccNistP256,
        MaterialSpec::P384 => wire::KeySpec::EccNistP384,
        MaterialSpec::Secp256k1 => wire::KeySpec::EccSecgP256K1,
        MaterialSpec::Ed25519 => wire::KeySpec::Ed25519,
        MaterialSpec::Sm4 => wire::KeySpec::Sm4,
        MaterialSpec::Sm2 => wire::KeySpec::Sm2,
    }
}

/// A usage.
pub(super) const fn usage_in(usage: wire::KeyUsage) -> KeyUsage {
    match usage {
        wire::KeyUsage::EncryptDecrypt => KeyUsage::EncryptDecrypt,
        wire::KeyUsage::SignVerify => KeyUsage::SignVerify,
        wire::KeyUsage::GenerateVerifyMac => KeyUsage::GenerateVerifyMac,
    }
}

/// A usage.
pub(super) const fn usage_out(usage: KeyUsage) -> wire::KeyUsage {
    match usage {
        KeyUsage::EncryptDecrypt => wire::KeyUsage::EncryptDecrypt,
        KeyUsage::SignVerify => wire::KeyUsage::SignVerify,
        KeyUsage::GenerateVerifyMac => wire::KeyUsage::GenerateVerifyMac,
    }
}

/// An origin.
pub(super) const fn origin_in(origin: wire::Origin) -> Origin {
    match origin {
        wire::Origin::Generated => Origin::Generated,
        wire::Origin::Imported => Origin::Imported,
    }
}

/// An origin.
pub(super) const fn origin_out(origin: Origin) -> wire::Origin {
    match origin {
        Origin::Generated => wire::Origin::Generated,
        Origin::Imported => wire::Origin::Imported,
    }
}

/// What a place holds, as somebody reports it.
pub(super) const fn held_in(what: wire::HeldWhat) -> HeldWhat {
    match what {
        wire::HeldWhat::EtcdObjects => HeldWhat::EtcdObjects,
        wire::HeldWhat::Volumes => HeldWhat::Volumes,
    }
}

/// What a place holds.
pub(super) const fn held_out(what: HeldWhat) -> wire::HeldWhat {
    match what {
        HeldWhat::EtcdObjects => wire::HeldWhat::EtcdObjects,
        HeldWhat::Volumes => wire::HeldWhat::Volumes,
    }
}

/// The state of a key. A scheduled destruction hides what lies beneath.
pub(super) const fn key_state(key: &Key) -> wire::KeyState {
    if key.destruction.is_some() {
        return wire::KeyState::PendingDeletion;
    }
    match key.state {
        State::PreActivation => wire::KeyState::PendingImport,
        State::Active => wire::KeyState::Enabled,
        State::Suspended => wire::KeyState::Disabled,
        State::Deactivated => wire::KeyState::Deactivated,
        State::Compromised => wire::KeyState::Compromised,
        State::Destroyed => wire::KeyState::Destroyed,
    }
}

/// The state of a version.
pub(super) const fn version_state(state: State) -> wire::VersionState {
    match state {
        State::PreActivation => wire::VersionState::PendingImport,
        State::Active => wire::VersionState::Active,
        State::Suspended => wire::VersionState::ShadowDisabled,
        State::Deactivated => wire::VersionState::Deactivated,
        State::Compromised => wire::VersionState::Compromised,
        State::Destroyed => wire::VersionState::Destroyed,
    }
}

/// What a message is.
pub(super) const fn message_type_in(kind: Option<wire::MessageType>) -> MessageType {
    match kind {
        None | Some(wire::MessageType::Raw) => MessageType::Raw,
        Some(wire::MessageType::Digest) => MessageType::Digest,
    }
}

/// How to sign.
pub(super) const fn algorithm_in(algorithm: wire::SigningAlgorithm) -> SignAlgorithm {
    match algorithm {
        wire::SigningAlgorithm::RsassaPssSha256 => SignAlgorithm::RsassaPssSha256,
        wire::SigningAlgorithm::RsassaPssSha384 => SignAlgorithm::RsassaPssSha384,
        wire::SigningAlgorithm::RsassaPssSha512 => SignAlgorithm::RsassaPssSha512,
        wire::SigningAlgorithm::RsassaPkcs1V15Sha256 => SignAlgorithm::RsassaPkcs1V15Sha256,
        wire::SigningAlgorithm::RsassaPkcs1V15Sha384 => SignAlgorithm::RsassaPkcs1V15Sha384,
        wire::SigningAlgorithm::RsassaPkcs1V15Sha512 => SignAlgorithm::RsassaPkcs1V15Sha512,
        wire::SigningAlgorithm::EcdsaSha256 => SignAlgorithm::EcdsaSha256,
        wire::SigningAlgorithm::EcdsaSha384 => SignAlgorithm::EcdsaSha384,
        wire::SigningAlgorithm::Ed25519 => SignAlgorithm::Ed25519,
        wire::SigningAlgorithm::Sm2Dsa => SignAlgorithm::Sm2Dsa,
    }
}

/// How to sign.
pub(super) const fn algorithm_out(algorithm: SignAlgorithm) -> wire::SigningAlgorithm {
    match algorithm {
        SignAlgorithm::RsassaPssSha256 => wire::SigningAlgorithm::RsassaPssSha256,
        SignAlgorithm::RsassaPssSha384 => wire::SigningAlgorithm::RsassaPssSha384,
        SignAlgorithm::RsassaPssSha512 => wire::SigningAlgorithm::RsassaPssSha512,
        SignAlgorithm::RsassaPkcs1V15Sha256 => wire::SigningAlgorithm::RsassaPkcs1V15Sha256,
        SignAlgorithm::RsassaPkcs1V15Sha384 => wire::SigningAlgorithm::RsassaPkcs1V15Sha384,
        SignAlgorithm::RsassaPkcs1V15Sha512 => wire::SigningAlgorithm::RsassaPkcs1V15Sha512,
        SignAlgorithm::EcdsaSha256 => wire::SigningAlgorithm::EcdsaSha256,
        SignAlgorithm::EcdsaSha384 => wire::SigningAlgorithm::EcdsaSha384,
        SignAlgorithm::Ed25519 => wire::SigningAlgorithm::Ed25519,
        SignAlgorithm::Sm2Dsa => wire::SigningAlgorithm::Sm2Dsa,
    }
}

/// How material to import is wrapped.
pub(super) const fn import_algorithm_in(algorithm: wire::ImportAlgorithm) -> ImportAlgorithm {
    match algorithm {
        wire::ImportAlgorithm::RsaesOaepSha256 => ImportAlgorithm::RsaesOaepSha256,
        wire::ImportAlgorithm::RsaAesKeyWrapSha256 => ImportAlgorithm::RsaAesKeyWrapSha256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_and_domain_know_the_same_specs_by_the_same_names() {
        assert_eq!(wire::KeySpec::ALL.len(), MaterialSpec::ALL.len());
        for spec in wire::KeySpec::ALL {
            assert_eq!(spec_in(*spec).name(), spec.as_str());
            assert_eq!(spec_out(spec_in(*spec)), *spec);
        }
    }

    #[test]
    fn wire_and_domain_know_the_same_algorithms_by_the_same_names() {
        assert_eq!(wire::SigningAlgorithm::ALL.len(), SignAlgorithm::ALL.len());
        for algorithm in wire::SigningAlgorithm::ALL {
            assert_eq!(algorithm_in(*algorithm).name(), algorithm.as_str());
            assert_eq!(algorithm_out(algorithm_in(*algorithm)), *algorithm);
        }
        for algorithm in wire::ImportAlgorithm::ALL {
            assert_eq!(import_algorithm_in(*algorithm).name(), algorithm.as_str());
        }
    }

    #[test]
    fn wire_and_domain_know_the_same_usages_by_the_same_names() {
        for usage in wire::KeyUsage::ALL {
            assert_eq!(usage_in(*usage).name(), usage.as_str());
            assert_eq!(usage_out(usage_in(*usage)), *usage);
        }
    }
}
