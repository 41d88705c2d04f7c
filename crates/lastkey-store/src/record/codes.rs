//! Numbers that stand for the words of a record. A number is given once and never again.
//!
//! Room      `store`.
//! Source    `docs/formats/record.md`, "Codes".

use lastkey_core::database::DatabaseKind;
use lastkey_core::holding::HeldWhat;
use lastkey_core::key::KeyUsage;
use lastkey_core::lease::LeaseStep;
use lastkey_core::record::DueWhat;
use lastkey_core::secret_item::{SecretDueWhat, ValueKind};
use lastkey_core::secret_rotation::{RotationDueWhat, Step};
use lastkey_core::state::State;
use lastkey_core::version::Origin;
use lastkey_crypto::import::ImportAlgorithm;
use lastkey_crypto::material::MaterialSpec;

use super::DecodeError;

/// One table gives both directions, so that they cannot differ.
macro_rules! codes {
    ($($to:ident, $from:ident: $word:ident { $($variant:ident = $code:literal,)* })*) => {$(
        pub(super) const fn $to(word: $word) -> u8 {
            match word {
                $($word::$variant => $code,)*
            }
        }

        pub(super) const fn $from(code: u8) -> Result<$word, DecodeError> {
            match code {
                $($code => Ok($word::$variant),)*
                0 => Err(DecodeError::Malformed),
                _ => Err(DecodeError::Newer),
            }
        }
    )*};
}

codes! {
    spec_code, spec: MaterialSpec {
        Aes128 = 1,
        Aes256 = 2,
        Sm4 = 3,
        Hmac256 = 4,
        Hmac384 = 5,
        Hmac512 = 6,
        Rsa2048 = 7,
        Rsa3072 = 8,
        Rsa4096 = 9,
        P256 = 10,
        P384 = 11,
        Secp256k1 = 12,
        Ed25519 = 13,
        Sm2 = 14,
    }
    usage_code, usage: KeyUsage {
        EncryptDecrypt = 1,
        SignVerify = 2,
        GenerateVerifyMac = 3,
    }
    value_kind_code, value_kind: ValueKind {
        Opaque = 1,
        Fields = 2,
    }
    secret_due_code, secret_due: SecretDueWhat {
        Destroy = 1,
    }
    step_code, step: Step {
        Created = 1,
        Set = 2,
        Tested = 3,
    }
    rotation_due_code, rotation_due: RotationDueWhat {
        Rotate = 1,
        Revoke = 2,
    }
    database_code, database: DatabaseKind {
        PostgreSql = 1,
        MariaDb = 2,
    }
    lease_step_code, lease_step: LeaseStep {
        Making = 1,
        InUse = 2,
        Ending = 3,
    }
    held_code, held: HeldWhat {
        EtcdObjects = 1,
        Volumes = 2,
    }
    origin_code, origin: Origin {
        Generated = 1,
        Imported = 2,
    }
    state_code, state: State {
        PreActivation = 1,
        Active = 2,
        Suspended = 3,
        Deactivated = 4,
        Compromised = 5,
        Destroyed = 6,
    }
    due_code, due: DueWhat {
        Rotate = 1,
        Destroy = 2,
        ExpireImport = 3,
        Erase = 4,
    }
    import_code, import: ImportAlgorithm {
        RsaesOaepSha256 = 1,
        RsaAesKeyWrapSha256 = 2,
    }
}
