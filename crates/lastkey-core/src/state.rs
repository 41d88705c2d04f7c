//! The life of keys and of key versions: two tables, and both must permit an operation.
//!
//! Room      `core`.
//! Source    NIST SP 800-57 Part 1 Rev. 5, section 7 (key states and transitions).
//! Holds     every change of state in the product goes through [`Phase::after`] or
//!           [`State::after`]; what those refuse cannot happen. The golden file
//!           `tests/golden/states.txt` shows both tables whole.

use core::fmt;

/// State of a key or of one of its versions (SP 800-57 Part 1 Rev. 5, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Exists, must not be used yet (a key that waits for imported material).
    PreActivation,
    /// May protect and process data.
    Active,
    /// Held back for a time; may come back.
    Suspended,
    /// May process data protected before, must not protect new data.
    Deactivated,
    /// Known or suspected to be in other hands; processing only, with care.
    Compromised,
    /// Material is gone; only a tombstone remains.
    Destroyed,
}

impl State {
    /// All states, in the order of life.
    pub const ALL: [Self; 6] = [
        Self::PreActivation,
        Self::Active,
        Self::Suspended,
        Self::Deactivated,
        Self::Compromised,
        Self::Destroyed,
    ];

    /// Whether this state lets new data be protected.
    #[must_use]
    pub const fn may_protect(self) -> bool {
        matches!(self, Self::Active)
    }

    /// Whether this state lets protected data be processed.
    #[must_use]
    pub const fn may_process(self) -> bool {
        matches!(self, Self::Active | Self::Deactivated | Self::Compromised)
    }

    /// Whether this state lets the key be used in this way.
    #[must_use]
    pub const fn permits(self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Protect => self.may_protect(),
            Purpose::Process => self.may_process(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreActivation => "pre-activation",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deactivated => "deactivated",
            Self::Compromised => "compromised",
            Self::Destroyed => "destroyed",
        })
    }
}

/// What an operation does with a key (SP 800-57: apply protection, or process protected data).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Encrypt, sign, generate a MAC, wrap.
    Protect,
    /// Decrypt, verify, verify a MAC, unwrap.
    Process,
}

/// The state does not allow this change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not allowed in this state")]
pub struct Refused;

/// Something that happens to a key as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyEvent {
    /// Material of its owner arrives.
    ImportMaterial,
    /// Back into use.
    Enable,
    /// Held back for a time.
    Disable,
    /// Retired: processes, protects no more, for good.
    Deactivate,
    /// Its material is known or suspected to be in other hands.
    MarkCompromised,
    /// Destruction is scheduled; until then nothing may use the key.
    ScheduleDestruction,
    /// The scheduled destruction is called off.
    CancelDestruction,
    /// The window has passed: the material goes.
    Destroy,
}

impl KeyEvent {
    /// All events.
    pub const ALL: [Self; 8] = [
        Self::ImportMaterial,
        Self::Enable,
        Self::Disable,
        Self::Deactivate,
        Self::MarkCompromised,
        Self::ScheduleDestruction,
        Self::CancelDestruction,
        Self::Destroy,
    ];
}

/// Where a key is in its life: its state, and whether its destruction is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Phase {
    /// The state.
    pub state: State,
    /// While true nothing may use the key, whatever its state.
    pub destruction_scheduled: bool,
}

impl Phase {
    /// A phase without scheduled destruction.
    #[must_use]
    pub const fn of(state: State) -> Self {
        Self { state, destruction_scheduled: false }
    }

    /// Whether a key in this phase may be used in this way.
    #[must_use]
    pub const fn permits(self, purpose: Purpose) -> bool {
        !self.destruction_scheduled && self.state.permits(purpose)
    }

    /// The phase after an event: the table of key transitions.
    ///
    /// # Errors
    /// [`Refused`] when the event may not happen in this phase.
    pub const fn after(self, event: KeyEvent) -> Result<Self, Refused> {
        if self.destruction_scheduled {
            self.after_scheduled(event)
        } else {
            self.after_live(event)
        }
    }

    const fn after_live(self, event: KeyEvent) -> Result<Self, Refused> {
        use KeyEvent as E;
        use State as S;
        let state = match (self.state, event) {
            (S::PreActivation | S::Active, E::ImportMaterial)
            | (S::Active | S::Suspended, E::Enable) => S::Active,
            (S::Active | S::Suspended, E::Disable) => S::Suspended,
            (S::Active | S::Suspended | S::Deactivated, E::Deactivate) => S::Deactivated,
            (S::Active | S::Suspended | S::Deactivated | S::Compromised, E::MarkCompromised) => {
                S::Compromised
            }
            (
                S::PreActivation | S::Active | S::Suspended | S::Deactivated | S::Compromised,
                E::ScheduleDestruction,
            ) => return Ok(Self { state: self.state, destruction_scheduled: true }),
            (S::PreActivation, E::Enable | E::Disable | E::Deactivate | E::MarkCompromised)
            | (S::Suspended | S::Deactivated | S::Compromised, E::ImportMaterial)
            | (S::Deactivated | S::Compromised, E::Enable | E::Disable)
            | (S::Compromised, E::Deactivate)
            | (S::Destroyed, _)
            | (_, E::CancelDestruction | E::Destroy) => return Err(Refused),
        };
        Ok(Self::of(state))
    }

    const fn after_scheduled(self, event: KeyEvent) -> Result<Self, Refused> {
        use KeyEvent as E;
        use State as S;
        match (self.state, event) {
            (S::Active, E::CancelDestruction) => Ok(Self::of(S::Suspended)),
            (
                S::PreActivation | S::Suspended | S::Deactivated | S::Compromised,
                E::CancelDestruction,
            ) => Ok(Self::of(self.state)),
            (S::Active | S::Suspended | S::Deactivated | S::Compromised, E::MarkCompromised) => {
                Ok(Self { state: S::Compromised, destruction_scheduled: true })
            }
            (
                S::PreActivation | S::Active | S::Suspended | S::Deactivated | S::Compromised,
                E::Destroy,
            ) => Ok(Self::of(S::Destroyed)),
            (S::PreActivation, E::MarkCompromised)
            | (S::Destroyed, _)
            | (
                _,
                E::ImportMaterial | E::Enable | E::Disable | E::Deactivate | E::ScheduleDestruction,
            ) => Err(Refused),
        }
    }
}

/// Something that happens to one version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionEvent {
    /// Becomes the primary version.
    Promote,
    /// Another version becomes primary.
    Supersede,
    /// Any use is refused and reported, but this can be undone.
    ShadowDisable,
    /// A shadow-disabled version comes back.
    Reinstate,
    /// Its material is known or suspected to be in other hands.
    MarkCompromised,
    /// Its material goes.
    Destroy,
    /// The whole key is destroyed.
    DestroyWithKey,
}

impl VersionEvent {
    /// All events.
    pub const ALL: [Self; 7] = [
        Self::Promote,
        Self::Supersede,
        Self::ShadowDisable,
        Self::Reinstate,
        Self::MarkCompromised,
        Self::Destroy,
        Self::DestroyWithKey,
    ];
}

impl State {
    /// The state of a version after an event: the table of version transitions.
    ///
    /// The primary version is the one that is active, so nothing but [`VersionEvent::Supersede`]
    /// and [`VersionEvent::DestroyWithKey`] may happen to an active version.
    ///
    /// # Errors
    /// [`Refused`] when the event may not happen in this state.
    pub const fn after(self, event: VersionEvent) -> Result<Self, Refused> {
        use VersionEvent as E;
        match (self, event) {
            (Self::PreActivation | Self::Deactivated, E::Promote) => Ok(Self::Active),
            (Self::Active, E::Supersede) | (Self::Suspended, E::Reinstate) => Ok(Self::Deactivated),
            (Self::Deactivated, E::ShadowDisable) => Ok(Self::Suspended),
            (Self::Deactivated | Self::Suspended, E::MarkCompromised) => Ok(Self::Compromised),
            (Self::Suspended | Self::Compromised, E::Destroy)
            | (
                Self::PreActivation
                | Self::Active
                | Self::Suspended
                | Self::Deactivated
                | Self::Compromised,
                E::DestroyWithKey,
            ) => Ok(Self::Destroyed),
            (Self::PreActivation, E::Supersede | E::ShadowDisable | E::Reinstate)
            | (Self::PreActivation, E::MarkCompromised | E::Destroy)
            | (Self::Active, E::Promote | E::ShadowDisable | E::Reinstate)
            | (Self::Active, E::MarkCompromised | E::Destroy)
            | (Self::Suspended, E::Promote | E::Supersede | E::ShadowDisable)
            | (Self::Deactivated, E::Supersede | E::Reinstate | E::Destroy)
            | (Self::Compromised, E::Promote | E::Supersede | E::ShadowDisable)
            | (Self::Compromised, E::Reinstate | E::MarkCompromised)
            | (Self::Destroyed, _) => Err(Refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::fmt::Write as _;

    use super::*;

    fn key_table(out: &mut String) {
        out.push_str("# Keys: phase + event -> phase\n");
        for scheduled in [false, true] {
            for state in State::ALL {
                let phase = Phase { state, destruction_scheduled: scheduled };
                let mark = |p: Phase| {
                    format!(
                        "{}{}",
                        p.state,
                        if p.destruction_scheduled { " (destruction scheduled)" } else { "" }
                    )
                };
                let uses = [Purpose::Protect, Purpose::Process].map(|p| phase.permits(p));
                writeln!(out, "{}: protect {}, process {}", mark(phase), uses[0], uses[1]).unwrap();
                for event in KeyEvent::ALL {
                    let to = phase.after(event).map_or_else(|_| "refused".to_owned(), mark);
                    writeln!(out, "  {event:?} -> {to}").unwrap();
                }
            }
        }
    }

    fn version_table(out: &mut String) {
        out.push_str("\n# Versions: state + event -> state\n");
        for state in State::ALL {
            writeln!(
                out,
                "{state}: protect {}, process {}",
                state.may_protect(),
                state.may_process()
            )
            .unwrap();
            for event in VersionEvent::ALL {
                let to =
                    state.after(event).map_or_else(|_| "refused".to_owned(), |s| s.to_string());
                writeln!(out, "  {event:?} -> {to}").unwrap();
            }
        }
    }

    #[test]
    fn both_tables_are_the_ones_in_the_golden_file() {
        let mut table = String::new();
        key_table(&mut table);
        version_table(&mut table);
        assert_eq!(table, include_str!("../tests/golden/states.txt"));
    }

    #[test]
    fn destroyed_is_the_end_of_every_life() {
        for scheduled in [false, true] {
            let dead = Phase { state: State::Destroyed, destruction_scheduled: scheduled };
            assert!(KeyEvent::ALL.into_iter().all(|event| dead.after(event).is_err()));
        }
        assert!(VersionEvent::ALL.into_iter().all(|event| State::Destroyed.after(event).is_err()));
    }

    #[test]
    fn a_key_is_destroyed_only_out_of_a_scheduled_destruction() {
        for state in State::ALL {
            assert_eq!(Phase::of(state).after(KeyEvent::Destroy), Err(Refused), "{state}");
        }
    }

    #[test]
    fn nothing_uses_a_key_whose_destruction_is_scheduled() {
        for state in State::ALL {
            let phase = Phase { state, destruction_scheduled: true };
            assert!(
                !phase.permits(Purpose::Protect) && !phase.permits(Purpose::Process),
                "{state}"
            );
        }
    }

    #[test]
    fn a_cancelled_destruction_never_leaves_a_key_in_use() {
        for state in State::ALL {
            let phase = Phase { state, destruction_scheduled: true };
            if let Ok(after) = phase.after(KeyEvent::CancelDestruction) {
                assert!(!after.permits(Purpose::Protect), "{state}");
            }
        }
    }

    #[test]
    fn a_version_is_destroyed_only_after_it_was_shadow_disabled_or_compromised() {
        let may: Vec<_> =
            State::ALL.into_iter().filter(|s| s.after(VersionEvent::Destroy).is_ok()).collect();
        assert_eq!(may, [State::Suspended, State::Compromised]);
    }
}
