//! Use case: a person sets password and second factor with the code that he was given.
//!
//! Room      `service`.
//! Holds     the code is used up by the commit that writes the password. When the first
//!           administrator of policies is enrolled, the same commit removes every token: no
//!           permanent one remains.

use std::sync::Arc;

use lastkey_core::access::User;
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::ports::{Expected, Revision, Write};
use lastkey_core::principal::Peer;
use lastkey_core::record::{Record, RecordPath};
use lastkey_secret::SecretVec;

use crate::access::is_enrolled_administrator;
use crate::audited::Visit;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::exchange_token::Refused;
use crate::people::{FIRST_ADMINISTRATOR, MAX_PASSWORD_LEN, MIN_PASSWORD_LEN, is_code_of};
use crate::root::SecretPlace;
use crate::sealing::{detached, remove_tokens};

/// Who enrols.
#[derive(Debug)]
pub struct Request {
    /// His name; the first administrator chooses one.
    pub name: Name,
    /// The code that he was given.
    pub code: SecretVec,
    /// What he chose; none to be told his second factor first.
    pub chosen: Option<Chosen>,
}

/// What a person shows from now on.
#[derive(Debug)]
pub struct Chosen {
    /// The password: [`MIN_PASSWORD_LEN`] to [`MAX_PASSWORD_LEN`] bytes.
    pub password: SecretVec,
    /// The first one-time code, which shows that his authenticator works.
    pub one_time_code: SecretVec,
}

/// How far a person has come.
#[derive(Debug)]
pub enum Enrolled {
    /// His second factor, for his authenticator: `otpauth://totp/...`.
    Offered(SecretVec),
    /// He is enrolled, in these groups.
    Done(Vec<Name>),
}

/// What the audit log calls it.
const ACTION: &str = "sts:Enrol";

impl Engine {
    /// Enrols a person. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] whatever is wrong with name or codes; [`Error::Throttled`]
    /// after too many attempts, for this name or in all; [`Error::Invalid`] for a password that
    /// is too short or long, or a name that nobody can have; [`Error::AlreadyExists`] when the
    /// first administrator chooses the name of somebody else; [`Error::Conflict`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn enrol(
        self: &Arc<Self>,
        id: RequestId,
        peer: &Peer,
        request: Request,
    ) -> Result<Enrolled, Error> {
        check_name(&request.name)?;
        if let Some(chosen) = &request.chosen {
            check_password(&chosen.password)?;
        }
        let target = format!("user/{}", request.name);
        let visit = Visit::of(self, id, peer, ACTION, target).guessing();
        let engine = Arc::clone(self);
        detached(async move {
            let outcome = engine.try_enrol(&visit, request).await;
            visit.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_enrol(&self, visit: &Visit, request: Request) -> Result<Enrolled, Refused> {
        let Request { name, code, chosen } = request;
        let user = self.enrolling(&name, &code).await?;
        match chosen {
            Some(chosen) => self.complete(visit, &name, &code, chosen, &user.name).await,
            None => {
                let address = self.second_factor(&user)?.otpauth_uri("Lastkey", name.as_str());
                Ok(Enrolled::Offered(address))
            }
        }
    }

    /// Finds out whose code it is: that of the person, or that of the first administrator.
    async fn enrolling(&self, name: &Name, code: &SecretVec) -> Result<User, Refused> {
        self.attempts.take(name, self.ports.clock.read().since_boot)?;
        let clock = self.clock.observe();
        let own = self.read_one::<User>(&RecordPath::user(name)).await?;
        let is_taken = own.is_some();
        let first = Name::parse(FIRST_ADMINISTRATOR).map_err(Error::from)?;
        let first = self.read_one::<User>(&RecordPath::user(&first)).await?;
        let is_good = |(user, _): &(User, Revision)| is_code_of(user, code, &clock);
        let (user, _) = match (own.filter(is_good), first.filter(is_good)) {
            (Some(own), _) => own,
            (None, Some(_)) if is_taken => return Err(Error::AlreadyExists.into()),
            (None, Some(first)) => first,
            (None, None) => return Err(Refused::Token("enrolment_code")),
        };
        self.attempts.forget(name);
        if user.disabled { Err(Refused::Token("disabled")) } else { Ok(user) }
    }

    /// Enrols whoever has the code of `of`, as `name`.
    async fn complete(
        &self,
        visit: &Visit,
        name: &Name,
        code: &SecretVec,
        chosen: Chosen,
        of: &Name,
    ) -> Result<Enrolled, Refused> {
        let password = self.new_password(chosen.password).await?;
        let changing = self.access_changes.lock().await;
        // Read again: the code may have been used, or the person kept out, in the meantime.
        let found = self.read_one::<User>(&RecordPath::user(of)).await?;
        let clock = self.clock.observe();
        let good = |(user, _): &(User, Revision)| is_code_of(user, code, &clock) && !user.disabled;
        let (user, revision) = found.filter(good).ok_or(Refused::Token("enrolment_code"))?;
        let step = self.step_of(&user, &chosen.one_time_code, visit.at())?;
        let step = step.ok_or(Refused::Token("one_time_code"))?;
        let enrolled =
            User { password: Some(password), last_step: step, enrolment: None, ..user.clone() };
        let after = self.named(enrolled, name)?;
        self.write_enrolled(visit, (&user, revision), after.clone()).await?;
        drop(changing);
        Ok(Enrolled::Done(after.groups))
    }

    /// The first administrator under the name that he chose.
    fn named(&self, user: User, name: &Name) -> Result<User, Error> {
        if user.name == *name {
            return Ok(user);
        }
        let secret = self.second_factor(&user)?;
        let place = SecretPlace::SecondFactor(name);
        let mut entropy = self.ports.entropy.open();
        let wrapped = self.keyring.materials.wrap_secret(place, secret.secret(), &mut *entropy);
        let second_factor = Some(wrapped.map_err(Error::Internal)?);
        Ok(User { name: name.clone(), second_factor, ..user })
    }

    async fn write_enrolled(
        &self,
        visit: &Visit,
        (before, revision): (&User, Revision),
        after: User,
    ) -> Result<(), Error> {
        let path = RecordPath::user(&after.name);
        let mut batch = Vec::new();
        let is_renamed = before.name != after.name;
        if is_renamed {
            let path = RecordPath::user(&before.name);
            batch.push(Write { path, expected: Expected::At(revision), record: None });
        }
        let closes_first_hour = is_enrolled_administrator(&after);
        if closes_first_hour {
            batch.extend(remove_tokens(&*self.store).await?);
        }
        let record = Record::User(after);
        let candidate = self.judge(&path, Some(record.clone())).await?;
        let expected = if is_renamed { Expected::Absent } else { Expected::At(revision) };
        batch.push(Write { path, expected, record: Some(record) });
        batch.push(candidate.count());
        visit.intend(self).await?;
        self.store.commit(batch).await?;
        self.install(candidate);
        if closes_first_hour {
            self.principals.clear();
        }
        Ok(())
    }
}

/// Nobody has the name under which the first administrator is kept.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn check_name(name: &Name) -> Result<(), Error> {
    if name.as_str() == FIRST_ADMINISTRATOR {
        return Err(Error::invalid(
            "name",
            "this one stands for whoever enrols first; choose another",
        ));
    }
    Ok(())
}

fn check_password(password: &SecretVec) -> Result<(), Error> {
    if (MIN_PASSWORD_LEN..=MAX_PASSWORD_LEN).contains(&password.len()) {
        Ok(())
    } else {
        let message = format!("expected {MIN_PASSWORD_LEN} to {MAX_PASSWORD_LEN} bytes");
        Err(Error::invalid("password", message))
    }
}
