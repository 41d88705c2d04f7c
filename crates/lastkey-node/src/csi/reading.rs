//! What a volume is made of: read in the name of a pod or, while the service is away, remembered.
//!
//! Room      `node`.
//! Holds     Each secret is read once for a volume, a few at the same time, and no more of them
//!           than a volume can need.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastkey_secret::SecretVec;
use tokio::task::JoinSet;

use super::outage::Identity;
use super::plan::{Plan, Source};
use super::provider::Provider;
use super::refusal::{Refusal, Whom, is_no, of_object, of_session};
use super::render::Values;
use super::request::Asked;
use crate::ports::{PodIdentity, PodSession, ReadSecret, SecretError, Which};

/// Secrets of a volume that are read at the same time.
const READS_AT_ONCE: usize = 16;
/// Bytes of all secrets of a volume: several times what fits into it.
const MAX_READ_LEN: usize = 16 << 20;

/// In whose name is read.
#[derive(Clone, Copy)]
struct Reader<'a> {
    session: Option<&'a Arc<PodSession>>,
    identity: Option<&'a Identity>,
}

/// What was read.
pub(super) struct Read {
    pub(super) values: Values,
    /// None when the service is away.
    pub(super) session: Option<Arc<PodSession>>,
    /// Whether all came from the service.
    pub(super) is_live: bool,
}

impl Provider {
    /// Reads every secret of a plan, in the session that there is or in another one.
    pub(super) async fn read(
        &self,
        plan: &Plan,
        whom: Whom<'_>,
        (token, has_pod): (&SecretVec, bool),
        kept: Option<Arc<PodSession>>,
    ) -> Result<Read, Failed> {
        let identity = self.identity(token, whom.role);
        let identity = identity.as_ref();
        if let Some(session) = kept {
            let reader = Reader { session: Some(&session), identity };
            match self.read_all(plan, whom, reader).await {
                // Somebody has ended it; whether the token opens another one is not said by that.
                Err(failed) if failed.is_ended => {}
                read => {
                    let (values, is_live) = read?;
                    return Ok(Read { values, session: Some(session), is_live });
                }
            }
        }
        let opened = self.open_session(whom.asked, (token, has_pod), whom.role, identity);
        let session = opened.await?;
        let reader = Reader { session: session.as_ref(), identity };
        let (values, is_live) = self.read_all(plan, whom, reader).await?;
        Ok(Read { values, session, is_live })
    }

    /// Whose token it is, as far as values are remembered for outages.
    fn identity(&self, token: &SecretVec, role: &str) -> Option<Identity> {
        let (_, judge) = self.outage.as_ref()?;
        let PodIdentity { namespace, service_account } = judge.judge(token)?;
        Some(Identity { role: role.to_owned(), namespace, service_account })
    }

    /// Opens a session; none when the service is away and values are remembered for this identity.
    async fn open_session(
        &self,
        asked: &Asked,
        (token, has_pod): (&SecretVec, bool),
        role: &str,
        identity: Option<&Identity>,
    ) -> Result<Option<Arc<PodSession>>, Failed> {
        let error = match self.service.open_session(token, role).await {
            Ok(session) => return Ok(Some(Arc::new(session))),
            Err(error) => error,
        };
        match (&error, &self.outage, identity) {
            (SecretError::Away(_), Some(_), Some(_)) => return Ok(None),
            (SecretError::Refused { code, .. }, Some((shelf, _)), Some(identity))
                if is_no(code) =>
            {
                shelf.forget_all(identity);
            }
            (SecretError::Away(_) | SecretError::Refused { .. }, _, _) => {}
        }
        Err(Failed::of(of_session(&asked.who(), (role, has_pod), &error), &error))
    }

    /// Reads every secret of a plan once; and whether all came from the service.
    async fn read_all(
        &self,
        plan: &Plan,
        whom: Whom<'_>,
        reader: Reader<'_>,
    ) -> Result<(Values, bool), Failed> {
        let asked = whom.asked;
        let mut users: BTreeMap<&Source, Vec<(&str, bool)>> = BTreeMap::new();
        for file in &plan.files {
            for source in file.content.sources() {
                users.entry(source).or_default().push((&file.object, file.is_optional));
            }
        }
        let read_one = |source: Source| {
            let (service, session) = (Arc::clone(&self.service), reader.session.cloned());
            async move {
                let read = match session {
                    Some(session) => service.read(&session, &source.name, &source.which).await,
                    None => Err(SecretError::Away("there is no session".into())),
                };
                (source, read)
            }
        };
        let mut waiting = users.keys().copied().cloned();
        let mut reading: JoinSet<_> = waiting.by_ref().take(READS_AT_ONCE).map(read_one).collect();
        let (mut values, mut is_live, mut len) = (Values::new(), true, 0_usize);
        while let Some(done) = reading.join_next().await {
            if let Some(next) = waiting.next() {
                reading.spawn(read_one(next));
            }
            let (source, read) = done.map_err(|_| Refusal::Unready(INTERNAL.to_owned()))?;
            let (read, came_live) = self.remembered(&source, read, reader.identity);
            len += read.as_ref().map_or(0, |read| read.value.len());
            if len > MAX_READ_LEN {
                return Err(Refusal::Invalid(format!(
                    "{}: the secrets of the volume have more than {MAX_READ_LEN} bytes; mount them \
                     in several volumes",
                    asked.who()
                ))
                .into());
            }
            is_live &= came_live;
            let objects = users.get(&source).map_or(&[][..], Vec::as_slice);
            let value = judged(read, (&source, objects), whom)?;
            values.insert(source, value);
        }
        if !is_live {
            self.metrics.gave_in_outage();
            tracing::warn!(
                namespace = asked.namespace,
                pod = asked.pod,
                pod_uid = asked.pod_uid,
                "the service is away; a pod was given what its account was given before"
            );
        }
        Ok((values, is_live))
    }

    /// Remembers what was read, or gives what is remembered; and whether it came from the service.
    fn remembered(
        &self,
        source: &Source,
        read: Result<ReadSecret, SecretError>,
        identity: Option<&Identity>,
    ) -> (Result<ReadSecret, SecretError>, bool) {
        let (Some((shelf, _)), Some(identity)) = (&self.outage, identity) else {
            return (read, true);
        };
        // The account of one pod is never given to another.
        if source.which == Which::Account {
            return (read, true);
        }
        match read {
            Ok(read) => {
                shelf.put(identity, source, &read);
                (Ok(read), true)
            }
            Err(SecretError::Away(cause)) => match shelf.find(identity, source) {
                Some(kept) => (Ok(kept), false),
                None => (Err(SecretError::Away(cause)), true),
            },
            Err(refused) => {
                shelf.forget(identity, source);
                (Err(refused), true)
            }
        }
    }
}

pub(super) const INTERNAL: &str = "the provider has failed; look at its log";

/// A value, or none when every object that it is for may do without.
fn judged(
    read: Result<ReadSecret, SecretError>,
    (source, objects): (&Source, &[(&str, bool)]),
    whom: Whom<'_>,
) -> Result<Option<Arc<ReadSecret>>, Failed> {
    let error = match read {
        Ok(read) => return Ok(Some(Arc::new(read))),
        Err(error) => error,
    };
    let may_be_missing = match &error {
        SecretError::Refused { code, .. } => {
            matches!(code.as_str(), "AccessDenied" | "SecretState")
        }
        SecretError::Away(_) => false,
    };
    match objects.iter().find(|(_, is_optional)| !(may_be_missing && *is_optional)) {
        None => Ok(None),
        Some((object, _)) => Err(Failed::of(of_object(object, source, whom, &error), &error)),
    }
}

/// Why a volume was not made, and whether that may pass by itself.
pub(super) struct Failed {
    pub(super) refusal: Refusal,
    pub(super) is_away: bool,
    /// The session is not taken.
    is_ended: bool,
}

impl Failed {
    /// What keeps the service away is told to the log alone: people of a pod are sent there.
    fn of(refusal: Refusal, error: &SecretError) -> Self {
        let (is_away, is_ended) = match error {
            SecretError::Away(cause) => {
                tracing::warn!(cause, "the service does not answer");
                (true, false)
            }
            SecretError::Refused { code, .. } => (false, code == "Unauthenticated"),
        };
        Self { refusal, is_away, is_ended }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, is_away: false, is_ended: false }
    }
}
