//! SSH keys as recipients of age: whoever has one needs no other key to hold a share.
//!
//! Room      `crypto`.
//! Source    The recipient type `ssh-ed25519` of age (its package `agessh`); RFC 8709 for the public
//!           key; RFC 7748, section 4.1, for the map between the two forms of the curve.
//! Holds     A key that is no point of the curve is refused when it is read. Every secret in
//!           between is wiped.

use core::fmt;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use curve25519_dalek::edwards::CompressedEdwardsY;
use lastkey_secret::SecretArray;

use super::{
    AgeKeyError, EnvelopeError,
    age::SHARE_LEN,
    age_file::{base64, unbase64},
    recipient::wrap_once,
};
use crate::{digest::sha256, entropy::Entropy, hkdf::Prk};

const KIND: &str = "ssh-ed25519";
const LABEL: &[u8] = b"age-encryption.org/v1/ssh-ed25519";
/// Length and name of the kind, and the length of the key: what a public key begins with.
const PREFIX: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";

/// The public half of an SSH key: `ssh-ed25519 AAAA...`.
#[derive(Clone, PartialEq, Eq)]
pub struct SshRecipient {
    /// The key as SSH writes it.
    wire: Vec<u8>,
    /// The same point on the curve that is agreed on.
    montgomery: [u8; 32],
}

impl SshRecipient {
    /// Whether a text is meant to be an SSH key, of whatever kind.
    pub(super) fn is_meant(text: &str) -> bool {
        ["ssh-", "sk-ssh-", "ecdsa-", "sk-ecdsa-"].iter().any(|start| text.starts_with(start))
    }

    /// Reads a line of a `.pub` file or of `authorized_keys` without options; what follows the key
    /// is a comment.
    ///
    /// # Errors
    /// [`AgeKeyError::SshKind`] for a key of another kind, [`AgeKeyError::SshRecipient`].
    pub fn parse(text: &str) -> Result<Self, AgeKeyError> {
        let refused = AgeKeyError::SshRecipient;
        let mut words = text.split_whitespace();
        if words.next() != Some(KIND) {
            return Err(AgeKeyError::SshKind);
        }
        let wire = words.next().and_then(unbase64).ok_or(refused)?;
        let key = wire.strip_prefix(PREFIX).ok_or(refused)?.try_into().map_err(|_| refused)?;
        let point = CompressedEdwardsY(key).decompress().ok_or(refused)?;
        if point.is_small_order() {
            return Err(refused);
        }
        Ok(Self { montgomery: point.to_montgomery().to_bytes(), wire })
    }

    /// The stanza that gives a file key to whoever has the private half, without end of line.
    pub(super) fn stanza(
        &self,
        file_key: &SecretArray<16>,
        entropy: &mut dyn Entropy,
    ) -> Result<String, EnvelopeError> {
        let ephemeral = SecretArray::try_fill(|bytes| entropy.fill(bytes));
        let ephemeral = ephemeral.map_err(|_| EnvelopeError::Entropy)?;
        let share = public(&ephemeral).ok_or(EnvelopeError::Failed)?;
        let key = self.agree(&ephemeral, &share).ok_or(EnvelopeError::Options)?;
        let wrapped = file_key.expose(|file_key| wrap_once(&key, file_key))?;
        let [a, b, c, d, ..] = sha256(&self.wire);
        let tag = base64(&[a, b, c, d]);
        Ok(format!("-> {KIND} {tag} {}\n{}", base64(&share), base64(&wrapped)))
    }

    /// The key that an ephemeral key and this recipient have in common. The agreement is tied to
    /// the SSH key by a second one with a scalar that everybody can work out.
    fn agree(
        &self,
        ephemeral: &SecretArray<32>,
        share: &[u8; SHARE_LEN],
    ) -> Option<SecretArray<32>> {
        let tweak = Prk::extract(&self.wire, &[])?.expand::<32>(&[LABEL])?;
        let shared = multiply(ephemeral, &self.montgomery)?;
        let shared = shared.expose(|point| multiply(&SecretArray::copy_of(&tweak), point))?;
        let salt = [&share[..], &self.montgomery].concat();
        let key = shared.expose(|shared| Prk::extract(&salt, shared))?.expand::<32>(&[LABEL])?;
        Some(SecretArray::copy_of(&key))
    }
}

impl fmt::Display for SshRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KIND} {}", base64(&self.wire))
    }
}

impl fmt::Debug for SshRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn private(scalar: &SecretArray<32>) -> Option<PrivateKey> {
    scalar.expose(|bytes| PrivateKey::from_private_key(&X25519, bytes)).ok()
}

fn public(scalar: &SecretArray<32>) -> Option<[u8; SHARE_LEN]> {
    private(scalar)?.compute_public_key().ok()?.as_ref().try_into().ok()
}

/// X25519; `None` for a point of low order.
fn multiply(scalar: &SecretArray<32>, point: &[u8; 32]) -> Option<SecretArray<32>> {
    agree(&private(scalar)?, UnparsedPublicKey::new(&X25519, point), (), |shared| {
        if shared.iter().all(|byte| *byte == 0) {
            return Err(());
        }
        SecretArray::try_copy_of(shared).ok_or(())
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretArray;

    use super::{AgeKeyError, SshRecipient};
    use crate::{
        entropy::SystemEntropy,
        envelope::{EnvelopeError, FileRecipient},
        testing::FixedEntropy,
    };

    /// Made by `ssh-keygen -t ed25519`.
    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJotDuUDDI8J67qcCeehNvTu30La/zZsnRCGGJgpSz4Q";

    #[test]
    fn keys_are_read_as_ssh_keygen_writes_them_and_shown_without_their_comment() {
        let key = SshRecipient::parse(&format!("{KEY} alice@example.org\n")).unwrap();
        assert_eq!(key.to_string(), KEY);
        assert_eq!(key, SshRecipient::parse(KEY).unwrap());
    }

    #[test]
    fn other_kinds_and_damaged_keys_are_refused() {
        for other in [
            "ssh-rsa AAAAB3NzaC1yc2E= x",
            "sk-ssh-ed25519@openssh.com AAAA",
            "ecdsa-sha2-nistp256 A",
        ] {
            assert_eq!(FileRecipient::parse(other).err(), Some(AgeKeyError::SshKind), "{other}");
        }
        let (shorter, longer) = (KEY.split_at(KEY.len() - 4).0, format!("{KEY}AAAA"));
        let zero = format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{}", "A".repeat(43));
        let kind = KEY.replace("AAAAC3NzaC1lZDI1NTE5", "AAAAC3NzaC1lZDI1NTE4");
        let letter = KEY.replace("AAAAI", "AAA_I");
        for bad in ["ssh-ed25519", shorter, &longer, &zero, &kind, &letter] {
            assert_eq!(FileRecipient::parse(bad).err(), Some(AgeKeyError::SshRecipient), "{bad}");
        }
        // Half of all bytes are no point of the curve.
        let start = KEY.split_at(KEY.len() - 1).0;
        let points = "AEIMQUYcgkosw048"
            .chars()
            .filter(|end| SshRecipient::parse(&format!("{start}{end}")).is_ok());
        assert!((1..16).contains(&points.count()));
    }

    #[test]
    fn nothing_is_wrapped_without_randomness_and_no_two_stanzas_are_the_same() {
        let (key, file_key) = (SshRecipient::parse(KEY).unwrap(), SecretArray::copy_of(&[7; 16]));
        let refused = key.stanza(&file_key, &mut FixedEntropy(vec![0; 31]));
        assert_eq!(refused.err(), Some(EnvelopeError::Entropy));
        let stanza = || key.stanza(&file_key, &mut SystemEntropy).unwrap();
        assert_ne!(stanza(), stanza());
    }
}
