//! What one loss would cost: configurations of seals in which it costs everything.
//!
//! Room      `service`.

use std::collections::BTreeSet;
use std::fmt;

use lastkey_core::seal_record::{SealKind, SealRecord};

/// A reason why one loss is fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weakness {
    /// There is one seal.
    SingleSeal,
    /// All seals are lost with the machine.
    OneMachine,
    /// All shares, or enough of them that the others are too few, lie with one holder.
    OneHolder,
    /// Shares that nobody has encrypted lay in one place together.
    SharesInClear,
}

impl Weakness {
    /// The word in answers and in the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SingleSeal => "single-seal",
            Self::OneMachine => "one-machine",
            Self::OneHolder => "one-holder",
            Self::SharesInClear => "shares-in-clear",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn next(self) -> &'static str {
        match self {
            Self::SingleSeal => "add a second seal of another kind: `lastkey seal add`",
            Self::OneMachine => {
                "add a seal that survives the machine: `lastkey seal add shamir` or `passphrase`"
            }
            Self::OneHolder => {
                "give the shares to different holders: `lastkey seal add shamir --recipient`"
            }
            Self::SharesInClear => {
                "make the shares anew, each encrypted to its holder: `lastkey seal add shamir --recipient`"
            }
        }
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SingleSeal => "there is one seal; when it is lost, so is everything",
            Self::OneMachine => "every seal is lost with this machine",
            Self::OneHolder => "one holder can lose the shares of the only seal that others share",
            Self::SharesInClear => "shares were written in clear, all to one place",
        })
    }
}

/// Everything that is wrong with some seals.
#[must_use]
pub fn weaknesses(seals: &[SealRecord]) -> Vec<Weakness> {
    let mut found = Vec::new();
    if seals.len() < 2 {
        found.push(Weakness::SingleSeal);
    }
    if seals.len() > 1 && seals.iter().all(is_in_the_machine) {
        found.push(Weakness::OneMachine);
    }
    let others = |one: &SealRecord| seals.iter().any(|seal| seal.id != one.id && survives(seal));
    for seal in seals {
        if let SealKind::Shamir { threshold, holders } = &seal.kind {
            let in_clear = holders.iter().all(|holder| holder.recipient.is_empty());
            let is_lost = |recipient: &str| {
                let kept = holders.iter().filter(|holder| holder.recipient != recipient).count();
                kept < usize::from(*threshold)
            };
            let recipients: BTreeSet<&str> =
                holders.iter().map(|holder| holder.recipient.as_str()).collect();
            if in_clear {
                found.push(Weakness::SharesInClear);
            } else if recipients.len() == 1
                || !others(seal) && recipients.iter().any(|recipient| is_lost(recipient))
            {
                found.push(Weakness::OneHolder);
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether a seal is lost with the machine that the server runs on.
const fn is_in_the_machine(seal: &SealRecord) -> bool {
    match &seal.kind {
        SealKind::Keyfile => true,
        SealKind::Device { kind, .. } => kind.is_in_the_machine(),
        SealKind::Passphrase { .. } | SealKind::Shamir { .. } => false,
    }
}

const fn survives(seal: &SealRecord) -> bool {
    !is_in_the_machine(seal)
}

#[cfg(test)]
mod tests {
    use lastkey_core::seal_device::DeviceKind;
    use lastkey_core::seal_record::{RootWrap, ShareHolder};
    use lastkey_core::time::Timestamp;

    use super::*;

    fn seals(kinds: Vec<SealKind>) -> Vec<Weakness> {
        let seal = |(fill, kind)| SealRecord {
            id: [fill; 16],
            kind,
            root: RootWrap::Direct(Vec::new()),
            created_at: Timestamp(0),
        };
        weaknesses(&(1..).zip(kinds).map(seal).collect::<Vec<_>>())
    }

    fn passphrase() -> SealKind {
        SealKind::Passphrase { memory_kib: 8, passes: 1, lanes: 1, salt: [0; 16] }
    }

    fn shamir(threshold: u8, recipients: &[&str]) -> SealKind {
        let holder = |recipient: &&str| ShareHolder {
            recipient: (*recipient).to_owned(),
            check_value: [0; 32],
        };
        SealKind::Shamir { threshold, holders: recipients.iter().map(holder).collect() }
    }

    fn device(kind: DeviceKind) -> SealKind {
        SealKind::Device { kind, settings: [].into() }
    }

    #[test]
    fn one_seal_is_one_loss() {
        for kind in [passphrase(), SealKind::Keyfile, shamir(2, &["a", "b", "c"])] {
            assert_eq!(seals(vec![kind]), [Weakness::SingleSeal]);
        }
        assert_eq!(seals(vec![passphrase(), shamir(2, &["a", "b", "c"])]), []);
        assert_eq!(seals(vec![passphrase(), device(DeviceKind::Tpm2)]), []);
    }

    #[test]
    fn two_seals_in_one_machine_are_one_loss() {
        let both = vec![SealKind::Keyfile, device(DeviceKind::Tpm2)];
        assert_eq!(seals(both), [Weakness::OneMachine]);
        assert_eq!(seals(vec![SealKind::Keyfile, device(DeviceKind::Kms)]), []);
    }

    #[test]
    fn shares_of_one_holder_are_one_loss() {
        let with = |kind| seals(vec![passphrase(), kind]);
        assert_eq!(with(shamir(2, &["a", "a", "a"])), [Weakness::OneHolder]);
        assert_eq!(with(shamir(2, &["", "", ""])), [Weakness::SharesInClear]);
        assert_eq!(with(shamir(2, &["a", "a", "b"])), []);
        // Each is told once, however many seals have it and whatever lies between them.
        let three = vec![shamir(2, &["a", "a"]), shamir(2, &["", ""]), shamir(2, &["b", "b"])];
        assert_eq!(seals(three), [Weakness::OneHolder, Weakness::SharesInClear]);
        // Where nothing else survives the machine, every holder counts.
        let beside_the_tpm = |kind| seals(vec![device(DeviceKind::Tpm2), kind]);
        assert_eq!(beside_the_tpm(shamir(2, &["a", "a", "b"])), [Weakness::OneHolder]);
        assert_eq!(beside_the_tpm(shamir(2, &["a", "b", "c"])), []);
    }
}
