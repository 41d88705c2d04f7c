//! Use cases: people are made known, kept out, put into groups, and let enrol.
//!
//! Room      `service`.
//! Holds     what takes something away from a person ends his sessions in the same commit.

use std::sync::Arc;

use lastkey_core::access::{RevokedWhat, User};
use lastkey_core::ids::Name;
use lastkey_secret::SecretVec;

use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::enrol::check_name;
use crate::ops::named::{Before, Planned};
use crate::ops::set_access::nothing_written;
use crate::people::{FIRST_ADMINISTRATOR, first_administrator, newcomer, offer_enrolment};

/// Most groups of one person.
const MAX_GROUPS: usize = 64;

/// What of a person changes.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// His groups, all of them.
    pub groups: Option<Vec<Name>>,
    /// Whether he is kept out.
    pub disabled: Option<bool>,
}

impl Engine {
    /// Makes a person known, and answers the code with which he enrols.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::Invalid`] for too many groups or a name that nobody
    /// can have; [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn add_user(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        groups: Vec<Name>,
    ) -> Result<(User, SecretVec), Error> {
        check_name(&name)?;
        let groups = in_order(groups)?;
        self.let_enrol(call, name, move |before, name| match before.current {
            Some(_) => Err(Error::AlreadyExists),
            None => Ok(newcomer(name, groups, before.now)),
        })
        .await
    }

    /// Lets a person enrol anew: password and second factor that he had are void. The code of
    /// [`FIRST_ADMINISTRATOR`] is for whoever shall become an administrator of everything.
    ///
    /// # Errors
    /// [`Error::Invalid`] when nobody would be left who may change policies;
    /// [`Error::Denied`], also when there is no such person; [`Error::Conflict`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn renew_enrolment(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
    ) -> Result<(User, SecretVec), Error> {
        self.let_enrol(call, name, |before, name| match before.current {
            Some(user) => Ok(user.clone()),
            None if name.as_str() == FIRST_ADMINISTRATOR => {
                first_administrator(before.now).map_err(Error::Internal)
            }
            None => Err(Error::Denied),
        })
        .await
    }

    async fn let_enrol(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        who: impl FnOnce(&Before<'_, User>, Name) -> Result<User, Error> + Send + 'static,
    ) -> Result<(User, SecretVec), Error> {
        let (engine, named) = (Arc::clone(self), name.clone());
        let (hand_over, mut code) = tokio::sync::oneshot::channel();
        let changed = self.change_named::<User>(call, name, move |before| {
            let user = who(before, named.clone())?;
            let mut entropy = engine.ports.entropy.open();
            let materials = &engine.keyring.materials;
            let offered = offer_enrolment(user, &before.clock, materials, &mut *entropy);
            let (user, code) = offered.map_err(Error::Internal)?;
            // Nobody waits for it any more when the caller has gone away.
            let _ = hand_over.send(code);
            let planned = Planned::put(user);
            let was_there = before.current.is_some_and(|user| user.password.is_some());
            Ok(if was_there { planned.revoking(sessions_of(&named)) } else { planned })
        });
        let user = changed.await?.ok_or_else(nothing_written)?;
        Ok((user, code.try_recv().map_err(|_| nothing_written())?))
    }

    /// Keeps a person out, lets him in again, or changes his groups.
    ///
    /// # Errors
    /// [`Error::Invalid`] for too many groups, or when nobody would be left who may change
    /// policies; [`Error::Denied`], also when there is no such person; [`Error::Conflict`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn set_user(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        change: Change,
    ) -> Result<User, Error> {
        let groups = change.groups.map(in_order).transpose()?;
        let named = name.clone();
        let changed = self.change_named::<User>(call, name, move |before| {
            let user = before.current.ok_or(Error::Denied)?;
            let after = User {
                groups: groups.unwrap_or_else(|| user.groups.clone()),
                disabled: change.disabled.unwrap_or(user.disabled),
                ..user.clone()
            };
            let takes_away = after.groups != user.groups || after.disabled;
            let planned = Planned::put(after);
            Ok(if takes_away { planned.revoking(sessions_of(&named)) } else { planned })
        });
        changed.await?.ok_or_else(nothing_written)
    }

    /// Forgets a person. Nothing happens if there is none.
    ///
    /// # Errors
    /// [`Error::Invalid`] when nobody would be left who may change policies; [`Error::Denied`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn remove_user(self: &Arc<Self>, call: &Call, name: Name) -> Result<(), Error> {
        let named = name.clone();
        let plan = move |_: &Before<'_, User>| Ok(Planned::remove().revoking(sessions_of(&named)));
        self.change_named::<User>(call, name, plan).await.map(drop)
    }
}

fn sessions_of(name: &Name) -> RevokedWhat {
    RevokedWhat::User(name.as_str().to_owned())
}

/// Groups in one order, each once.
fn in_order(mut groups: Vec<Name>) -> Result<Vec<Name>, Error> {
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > MAX_GROUPS {
        return Err(Error::invalid("groups", format!("a person has at most {MAX_GROUPS} groups")));
    }
    Ok(groups)
}
