//! Use cases: sessions end before their time, by who may say so or by who holds them.
//!
//! Room      `service`.
//! Holds     a revocation counts on this server before it is acknowledged. Whoever shows a
//!           credential may end it, and learns nothing else.

use std::sync::{Arc, PoisonError};

use lastkey_core::access::{MAX_SESSION_SECS, Node, Revocation, RevokedWhat, User};
use lastkey_core::audit::{Event, Phase};
use lastkey_core::ids::{Name, RequestId, SessionId};
use lastkey_core::permit::{Resource, RevokeSessions};
use lastkey_core::ports::{Expected, StoreError, Write};
use lastkey_core::principal::{Peer, Principal, Source};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::time::Timestamp;
use lastkey_crypto::digest::sha256;
use lastkey_secret::SecretVec;
use lastkey_trust::kubelet::MAX_LIFETIME_SECS;

use crate::access::{check_revocation, is_about};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::named::Named;
use crate::sealing::detached;

/// A credential that its holder wants to be void.
#[derive(Debug)]
pub enum Burned {
    /// A bearer token, or the administrator's token.
    Bearer(SecretVec),
    /// A triple, shown by its secret.
    Triple {
        /// Its name.
        access_key_id: String,
        /// Its secret.
        secret: SecretVec,
    },
}

/// What somebody holds.
enum Ours {
    Session(SessionId),
    /// The administrator's token, by its hash.
    Token([u8; 32]),
}

/// How often a revocation is written anew when somebody else was faster.
const ATTEMPTS: usize = 8;

/// Until when the certificate of a node may be dated ahead: by no more than a minute, since a
/// revocation follows it no further.
pub(crate) const fn ahead_of(now: Timestamp) -> Timestamp {
    Timestamp(now.0.saturating_add(60))
}

impl Engine {
    /// Ends sessions. Those that are opened later are not concerned.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that is none of its kind; [`Error::Denied`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn revoke(
        self: &Arc<Self>,
        call: &Call,
        what: RevokedWhat,
    ) -> Result<Revocation, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<RevokeSessions>(&engine, &call);
            trail.target = Some(format!("{}/{}", what.kind(), what.value()));
            let outcome = engine.try_revoke(&mut trail, what).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_revoke(
        &self,
        trail: &mut Trail<'_>,
        what: RevokedWhat,
    ) -> Result<Revocation, Error> {
        self.permit::<RevokeSessions>(trail, Resource::Instance)?;
        check_revocation(&what)?;
        trail.call().go_on()?;
        trail.intend(self).await?;
        // Held from its date until it counts: a certificate that is signed before is dated no
        // later, and one that is to be signed after is refused.
        let _changing = self.access_changes.lock().await;
        let revocation = self.revocation_of(what).await?;
        self.write_revocation(&revocation).await
    }

    /// Revocations that are in force.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list_revocations(&self, call: &Call) -> Result<Vec<Revocation>, Error> {
        let mut trail = Trail::of::<lastkey_core::permit::ReadRoles>(self, call);
        let outcome = self.try_list_revocations(&mut trail).await;
        trail.close(self, outcome).await
    }

    async fn try_list_revocations(&self, trail: &mut Trail<'_>) -> Result<Vec<Revocation>, Error> {
        self.permit::<lastkey_core::permit::ReadRoles>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        let stored = self.store.scan(&PathRange::kind("revocation", None, usize::MAX)).await?;
        let each = stored.into_iter().map(|stored| {
            let Record::Revocation(revocation) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            Ok(revocation)
        });
        each.collect()
    }

    /// Ends the session of whoever shows its credential; whether it was one of ours.
    ///
    /// # Errors
    /// [`Error::Throttled`] when too many were none of ours; [`Error::Unavailable`], [`Error::Internal`].
    pub async fn burn(
        self: &Arc<Self>,
        id: RequestId,
        peer: &Peer,
        credential: Burned,
    ) -> Result<bool, Error> {
        let (engine, source) =
            (Arc::clone(self), Source { address: peer.address, by_node_agent: false });
        detached(async move { engine.try_burn(id, source, &credential).await }).await?
    }

    async fn try_burn(
        &self,
        id: RequestId,
        source: Source,
        credential: &Burned,
    ) -> Result<bool, Error> {
        let Some(ours) = self.holder_of(credential).await? else {
            // What is none of ours costs a record; so many may be shown at once.
            let now = self.ports.clock.read().since_boot;
            self.burns.lock().unwrap_or_else(PoisonError::into_inner).take(now)?;
            self.record_burn(id, source, None, (Phase::Whole, "not_ours")).await?;
            return Ok(false);
        };
        let target = match ours {
            Ours::Session(session) => Some(format!("session/{session}")),
            Ours::Token(_) => None,
        };
        self.record_burn(id, source, target.as_deref(), (Phase::Intent, "pending")).await?;
        let burned = match ours {
            Ours::Session(session) => self.burn_session(session).await.map(|()| true),
            Ours::Token(hash) => self.burn_token(hash).await,
        };
        let result = burned.as_ref().map_or_else(Error::code, |_| "ok");
        self.record_burn(id, source, target.as_deref(), (Phase::Outcome, result)).await?;
        burned
    }

    /// What a credential of ours stands for.
    async fn holder_of(&self, credential: &Burned) -> Result<Option<Ours>, Error> {
        let token = match credential {
            Burned::Triple { access_key_id, secret } => {
                let session = self.sessions.holder_of_triple(access_key_id, secret);
                return Ok(session.map(Ours::Session));
            }
            Burned::Bearer(token) => token,
        };
        if let Some(session) = self.sessions.holder_of_bearer(token) {
            return Ok(Some(Ours::Session(session)));
        }
        let hash = token.expose(sha256);
        let stored = self.store.get(&RecordPath::token(&hash)).await?;
        Ok(stored.map(|_| Ours::Token(hash)))
    }

    async fn burn_session(&self, session: SessionId) -> Result<(), Error> {
        let what = RevokedWhat::Session(session.to_string());
        self.write_revocation(&revocation(what, self.clock.wall())).await.map(drop)
    }

    /// Removes the administrator's token.
    async fn burn_token(&self, hash: [u8; 32]) -> Result<bool, Error> {
        let Some(stored) = self.store.get(&RecordPath::token(&hash)).await? else {
            return Ok(false);
        };
        let expected = Expected::At(stored.revision);
        self.store.commit(vec![Write { path: stored.path, expected, record: None }]).await?;
        self.principals.remove(&hash);
        Ok(true)
    }

    async fn record_burn(
        &self,
        request: RequestId,
        source: Source,
        target: Option<&str>,
        (phase, result): (Phase, &'static str),
    ) -> Result<(), Error> {
        let event = Event {
            at: self.clock.wall(),
            request,
            who: &Principal::named("anonymous"),
            action: "sts:Burn",
            phase,
            key: None,
            version: None,
            context_hash: None,
            result,
            reason: "",
            source,
            target,
        };
        self.ports.audit.append_durably(&event).await.map_err(Error::Unavailable)
    }

    /// A revocation of what was opened until now, and of the certificates of nodes that are dated
    /// ahead, since they were signed within the second of the revocation before. Called while
    /// changes are held.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(crate) async fn revocation_of(&self, what: RevokedWhat) -> Result<Revocation, Error> {
        self.reread_concerned(&what).await?;
        let now = self.clock.wall();
        let last = self.nodes.last_issued(&what).filter(|last| *last <= ahead_of(now));
        Ok(revocation(what, last.map_or(now, |last| now.max(last))))
    }

    /// Writes a revocation and lets it count, together with what was written of the same before.
    /// Where it is about nodes or people, changes are held, and tokens that they have not joined with
    /// are void, and codes that they have not enrolled with.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn write_revocation(
        &self,
        revocation: &Revocation,
    ) -> Result<Revocation, Error> {
        for _ in 0..ATTEMPTS {
            let (counts, write) = self.plan_revocation(revocation.clone()).await?;
            let mut batch = vec![write];
            let nodes = self.withdraw_unused(&counts.what, &mut batch).await?;
            let committed = self.store.commit(batch).await;
            for node in &nodes {
                self.reload_node(node).await;
            }
            match committed {
                Err(StoreError::Conflict) => {}
                done => {
                    done?;
                    self.sessions.revoke(&counts);
                    return Ok(counts);
                }
            }
        }
        Err(Error::Conflict)
    }

    /// Adds to a batch that what lets in those that a revocation is about, and was not used yet, does
    /// so no more; the names of the nodes. Called while changes are held.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    async fn withdraw_unused(
        &self,
        what: &RevokedWhat,
        batch: &mut Vec<Write>,
    ) -> Result<Vec<Name>, Error> {
        let mut nodes = Vec::new();
        if matches!(what, RevokedWhat::Node(_) | RevokedWhat::Everything) {
            let take = |node: &mut Node| is_about(what, &node.name) && node.join.take().is_some();
            nodes = self.withdraw(batch, take).await?;
        }
        let person = match what {
            RevokedWhat::User(name) => Some(name.as_str()),
            RevokedWhat::Everything => None,
            RevokedWhat::Session(_)
            | RevokedWhat::Pod(_)
            | RevokedWhat::ServiceAccount(_)
            | RevokedWhat::Node(_)
            | RevokedWhat::Role(_)
            | RevokedWhat::Cluster(_) => return Ok(nodes),
        };
        let take = |user: &mut User| {
            person.is_none_or(|name| user.name.as_str() == name) && user.enrolment.take().is_some()
        };
        self.withdraw(batch, take).await?;
        Ok(nodes)
    }

    /// Adds to a batch all of a kind from which something was taken; their names.
    async fn withdraw<T: Named>(
        &self,
        batch: &mut Vec<Write>,
        take: impl Fn(&mut T) -> bool,
    ) -> Result<Vec<Name>, Error> {
        let mut names = Vec::new();
        for stored in self.store.scan(&PathRange::kind(T::WORD, None, usize::MAX)).await? {
            let Some(mut found) = T::from_record(stored.record) else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            if take(&mut found) {
                names.push(found.name().clone());
                let (expected, record) = (Expected::At(stored.revision), Some(found.into_record()));
                batch.push(Write { path: stored.path, expected, record });
            }
        }
        Ok(names)
    }

    /// A revocation as it counts beside what is written of the same, and the write of it.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn plan_revocation(
        &self,
        revocation: Revocation,
    ) -> Result<(Revocation, Write), Error> {
        let path = RecordPath::revocation(&revocation.what);
        let (expected, revocation) = match self.store.get(&path).await? {
            None => (Expected::Absent, revocation),
            Some(stored) => {
                let Record::Revocation(before) = stored.record else {
                    return Err(StoreError::Corrupt(stored.path).into());
                };
                (Expected::At(stored.revision), revocation.joined_to(&before))
            }
        };
        let record = Some(Record::Revocation(revocation.clone()));
        Ok((revocation, Write { path, expected, record }))
    }
}

/// A revocation of what was opened until now.
pub(crate) fn revocation(what: RevokedWhat, now: Timestamp) -> Revocation {
    let longest = match what {
        // The certificate of a kubelet, by which its node may join, is good for longer.
        RevokedWhat::Node(_) | RevokedWhat::Everything => MAX_LIFETIME_SECS,
        RevokedWhat::Session(_)
        | RevokedWhat::Pod(_)
        | RevokedWhat::ServiceAccount(_)
        | RevokedWhat::Role(_)
        | RevokedWhat::Cluster(_)
        | RevokedWhat::User(_) => MAX_SESSION_SECS,
    };
    // A day more, so that clocks may differ.
    let needed_until = Timestamp(now.0.saturating_add(longest + 86_400));
    Revocation { what, issued_until: now, needed_until }
}
