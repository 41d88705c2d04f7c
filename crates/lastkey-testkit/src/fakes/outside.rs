//! Databases, programs that rotate and a judge of claims, in memory.
//!
//! Room      `testkit`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::database::{Endpoint, Login};
use lastkey_core::leak::{Claim, Claims, PROOF_LEN};
use lastkey_core::outside::{DatabaseError, Databases, HookCall, HookError, NewAccount, Webhooks};
use lastkey_core::secret_item::ValueKind;
use lastkey_secret::SecretVec;
use tokio::sync::oneshot;

/// A claim is right whose proof is the value itself, filled up with the bytes of the key.
#[derive(Clone, Copy, Debug)]
pub struct FakeClaims;

impl FakeClaims {
    /// The proof that this value was seen.
    #[must_use]
    pub fn prove(key: &[u8; PROOF_LEN], value: &[u8]) -> [u8; PROOF_LEN] {
        let mut proof = *key;
        proof.iter_mut().zip(value).for_each(|(byte, seen)| *byte = *seen);
        proof
    }
}

impl Claims for FakeClaims {
    fn holds(&self, key: &[u8; PROOF_LEN], claim: &Claim, value: &[u8]) -> bool {
        claim.proof == Self::prove(key, value)
    }
}

/// A database server: accounts with their passwords; none for one that is locked.
#[derive(Debug, Default)]
pub struct FakeDatabases(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    accounts: BTreeMap<String, Option<Vec<u8>>>,
    failing: Option<&'static str>,
    is_late: bool,
    late: Vec<(String, Vec<u8>)>,
    losing: Option<&'static str>,
    listed: Option<Vec<String>>,
    hold: Option<oneshot::Receiver<()>>,
}

impl FakeDatabases {
    /// Makes an account, or gives it another password.
    pub fn put(&self, account: &str, password: &[u8]) {
        self.state().accounts.insert(account.to_owned(), Some(password.to_vec()));
    }

    /// Whether an account lets somebody in by this password.
    #[must_use]
    pub fn lets_in(&self, account: &str, password: &[u8]) -> bool {
        self.state().accounts.get(account).is_some_and(|has| has.as_deref() == Some(password))
    }

    /// Refuses calls of this name from now on; `None` for none.
    pub fn fail(&self, call: Option<&'static str>) {
        self.state().failing = call;
    }

    /// Does calls of this name from now on, and their answers are lost; `None` for none.
    pub fn lose(&self, call: Option<&'static str>) {
        self.state().losing = call;
    }

    /// Drops an account behind the service's back.
    pub fn remove(&self, account: &str) {
        self.state().accounts.remove(account);
    }

    /// The accounts that there are.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().accounts.keys().cloned().collect()
    }

    /// The next list of all accounts tells those that there are now, whatever happens until then.
    pub fn list_early(&self) {
        let mut state = self.state();
        state.listed = Some(state.accounts.keys().cloned().collect());
    }

    /// Holds up the next drop of an account, a trial's included, until it is told to go on.
    pub fn hold_next_drop(&self) -> oneshot::Sender<()> {
        let (go_on, hold) = oneshot::channel();
        self.state().hold = Some(hold);
        go_on
    }

    /// Whether the drop that is to be held up has not come yet.
    #[must_use]
    pub fn awaits_drop(&self) -> bool {
        self.state().hold.is_some()
    }

    async fn held_up(&self) {
        let hold = self.state().hold.take();
        if let Some(hold) = hold {
            // Whoever was to tell may be gone.
            let _ = hold.await;
        }
    }

    /// From now on sets passwords later, and does not answer: it waits for a lock.
    pub fn be_late(&self) {
        self.state().is_late = true;
    }

    /// Does what it has not done, and is late no more.
    pub fn catch_up(&self) {
        let mut state = self.state();
        state.is_late = false;
        for (account, password) in std::mem::take(&mut state.late) {
            state.accounts.insert(account, Some(password));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, call: &'static str) -> Result<MutexGuard<'_, State>, DatabaseError> {
        let state = self.state();
        if state.failing == Some(call) {
            return Err(DatabaseError::Refused(format!("no {call} today")));
        }
        Ok(state)
    }
}

fn is_let_in(state: &State, login: Login<'_>) -> Result<(), DatabaseError> {
    let has = state.accounts.get(login.account).and_then(Option::as_ref);
    let is_right = has.is_some_and(|has| login.password.expose(|bytes| bytes == has));
    if is_right { Ok(()) } else { Err(DatabaseError::Login(login.account.to_owned())) }
}

fn no_account(account: &str) -> DatabaseError {
    DatabaseError::Refused(format!("there is no account {account}"))
}

#[async_trait]
impl Databases for FakeDatabases {
    async fn log_in(&self, _: Endpoint<'_>, login: Login<'_>) -> Result<(), DatabaseError> {
        is_let_in(&*self.enter("log_in")?, login)
    }

    async fn set_password(
        &self,
        _: Endpoint<'_>,
        root: Login<'_>,
        account: Login<'_>,
    ) -> Result<(), DatabaseError> {
        let mut state = self.enter("set_password")?;
        is_let_in(&state, root)?;
        let password = account.password.expose(<[u8]>::to_vec);
        if state.is_late {
            state.late.push((account.account.to_owned(), password));
            return Err(DatabaseError::Away("it did not answer in time".to_owned()));
        }
        let held = state.accounts.get_mut(account.account);
        *held.ok_or_else(|| no_account(account.account))? = Some(password);
        Ok(())
    }

    async fn lock(
        &self,
        _: Endpoint<'_>,
        root: Login<'_>,
        account: &str,
    ) -> Result<(), DatabaseError> {
        let mut state = self.enter("lock")?;
        is_let_in(&state, root)?;
        *state.accounts.get_mut(account).ok_or_else(|| no_account(account))? = None;
        Ok(())
    }

    async fn make_account(
        &self,
        _: Endpoint<'_>,
        root: Login<'_>,
        new: NewAccount<'_>,
    ) -> Result<(), DatabaseError> {
        let mut state = self.enter("make_account")?;
        is_let_in(&state, root)?;
        let password = new.login.password.expose(<[u8]>::to_vec);
        state.accounts.insert(new.login.account.to_owned(), Some(password));
        answered(&state, "make_account", ())
    }

    async fn try_account(
        &self,
        _: Endpoint<'_>,
        root: Login<'_>,
        _: NewAccount<'_>,
    ) -> Result<(), DatabaseError> {
        self.held_up().await;
        is_let_in(&*self.enter("try_account")?, root)
    }

    async fn extend_account(
        &self,
        _: Endpoint<'_>,
        root: Login<'_>,
        account: &str,
        _: Duration,
    ) -> Result<bool, DatabaseError> {
        let state = self.enter("extend_account")?;
        is_let_in(&state, root)?;
        Ok(state.accounts.contains_key(account))
    }

    async fn drop_account(
        &self,
        _: Endpoint<'_>,
        root: Login<'_>,
        account: &str,
        _: Option<&str>,
    ) -> Result<(), DatabaseError> {
        self.held_up().await;
        let mut state = self.enter("drop_account")?;
        is_let_in(&state, root)?;
        state.accounts.remove(account);
        answered(&state, "drop_account", ())
    }

    async fn accounts(
        &self,
        _: Endpoint<'_>,
        root: Login<'_>,
        prefix: &str,
    ) -> Result<Vec<String>, DatabaseError> {
        let mut state = self.enter("accounts")?;
        is_let_in(&state, root)?;
        let listed = state.listed.take();
        let mut names = listed.unwrap_or_else(|| state.accounts.keys().cloned().collect());
        names.retain(|name| name.starts_with(prefix));
        Ok(names)
    }
}

/// An answer, unless it is lost on the way.
fn answered<T>(state: &State, call: &'static str, answer: T) -> Result<T, DatabaseError> {
    if state.losing == Some(call) {
        return Err(DatabaseError::Away("it did not answer in time".to_owned()));
    }
    Ok(answer)
}

/// A program that rotates: takes what it is given, and fails at a step when told to.
#[derive(Debug, Default)]
pub struct FakeWebhooks(Mutex<Hooked>);

#[derive(Debug, Default)]
struct Hooked {
    steps: Vec<String>,
    failing: Option<&'static str>,
    losing: Option<&'static str>,
    makes: Option<Vec<u8>>,
}

impl FakeWebhooks {
    /// The steps that it was called in, with the version when there was one.
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        self.hooked().steps.clone()
    }

    /// Refuses a step from now on; `None` for none.
    pub fn fail(&self, step: Option<&'static str>) {
        self.hooked().failing = step;
    }

    /// Does a step from now on, and its answer is lost; `None` for none.
    pub fn lose(&self, step: Option<&'static str>) {
        self.hooked().losing = step;
    }

    /// Makes this value from now on, when it is asked for one.
    pub fn make(&self, value: &[u8]) {
        self.hooked().makes = Some(value.to_vec());
    }

    fn hooked(&self) -> MutexGuard<'_, Hooked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Webhooks for FakeWebhooks {
    fn check(&self, _: &str, _: Option<&str>) -> Result<(), HookError> {
        Ok(())
    }

    async fn call(&self, call: HookCall<'_>) -> Result<Option<(ValueKind, SecretVec)>, HookError> {
        let mut hooked = self.hooked();
        let step = call.step.as_str();
        let version = call.version.map(|version| format!(" {version}")).unwrap_or_default();
        hooked.steps.push(format!("{step}{version}"));
        if hooked.failing == Some(step) {
            return Err(HookError::No(format!("no {step} today")));
        }
        if hooked.losing == Some(step) {
            return Err(HookError::Away("it did not answer in time".to_owned()));
        }
        let made = hooked.makes.as_ref().filter(|_| step == "create");
        Ok(made.map(|made| (ValueKind::Opaque, SecretVec::copy_of(made))))
    }
}
