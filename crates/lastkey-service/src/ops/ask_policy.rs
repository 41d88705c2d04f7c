//! Use cases: what may somebody do, and who may do something.
//!
//! Room      `service`.
//! Holds     the answers come from the snapshot that decides, by the code that decides.

use std::sync::Arc;

use lastkey_core::access::{Role, RoleHolders};
use lastkey_core::ids::{KeyId, KeyRef, Name, SessionId};
use lastkey_core::key::Tags;
use lastkey_core::permit::{ALL_ACTIONS, Facts, KeyFacts, Question, ReadPolicies, Resource};
use lastkey_core::principal::{Identity, Kind, Principal, SPIFFE, Session, Workload};
use lastkey_core::secret_item::{SecretName, SecretPath};
use lastkey_core::time::Timestamp;
use lastkey_crypto::context::EncryptionContext;
pub use lastkey_policy::{Answer, WhoCan};
use lastkey_trust::x509::SpiffeId;

use crate::access::{Access, ROLE_DOCUMENT};
use crate::audited::Trail;
use crate::authenticate::LOCAL_USERS;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::keyring::LoadedKey;

/// Whose rights are asked about.
#[derive(Clone, Debug, Default)]
pub struct Whose {
    /// The name as the audit log writes it; the caller himself when it is left out.
    pub principal: Option<String>,
    /// The role he acts in.
    pub role: Option<String>,
    /// His groups.
    pub groups: Vec<String>,
}

/// May he?
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Yes or no.
    pub allowed: bool,
    /// Why, a line each. Nothing for who may not have a secret, asks about himself and may not
    /// learn the reasons of decisions.
    pub why: Vec<String>,
}

impl Engine {
    /// Whether somebody may do something to a key, a secret or the installation, and why.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name or action that there cannot be; [`Error::Denied`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn can(
        &self,
        call: &Call,
        whose: Whose,
        action: &str,
        about: About,
        context: EncryptionContext,
    ) -> Result<Verdict, Error> {
        let mut trail = Trail::of::<ReadPolicies>(self, call);
        let outcome = self.try_can(&mut trail, whose, action, about, &context).await;
        trail.close(self, outcome).await
    }

    async fn try_can(
        &self,
        trail: &mut Trail<'_>,
        whose: Whose,
        action: &str,
        about: About,
        context: &EncryptionContext,
    ) -> Result<Verdict, Error> {
        // Everybody may ask about himself.
        let is_about_himself = whose.principal.is_none();
        let who = match whose.principal {
            None => trail.call().caller.principal.clone(),
            Some(name) => {
                self.permit::<ReadPolicies>(trail, Resource::Instance)?;
                principal(name, whose.role, whose.groups, trail.at())?
            }
        };
        let action = known_action(action)?;
        let asked = self.asked_about(trail, about).await?;
        trail.call().go_on()?;
        let facts = Facts {
            now: trail.at(),
            source: trail.call().caller.source,
            context: Some(context),
            key: asked.facts(),
        };
        let question = Question { who: &who, action, resource: &asked.resource, facts: &facts };
        let explanation = self.access.get().policies.explain(&question);
        let allowed = explanation.allowed;
        // The words of a refusal tell what is known of a secret, and so whether it is there.
        let is_secret = matches!(asked.resource, Resource::Secret(_));
        let is_told = allowed || !is_secret || !is_about_himself || self.may_explain(trail.call());
        let why = if is_told { explanation.to_string() } else { String::new() };
        Ok(Verdict { allowed, why: why.lines().map(str::to_owned).collect() })
    }

    /// Everybody who may do something to a key, a secret or the installation, and who can become
    /// one of them in Kubernetes, in words.
    ///
    /// # Errors
    /// As [`Engine::can`].
    pub async fn who_can(
        &self,
        call: &Call,
        action: &str,
        about: About,
    ) -> Result<(WhoCan, Vec<String>), Error> {
        let mut trail = Trail::of::<ReadPolicies>(self, call);
        let outcome = self.try_who_can(&mut trail, action, about).await;
        trail.close(self, outcome).await
    }

    async fn try_who_can(
        &self,
        trail: &mut Trail<'_>,
        action: &str,
        about: About,
    ) -> Result<(WhoCan, Vec<String>), Error> {
        self.permit::<ReadPolicies>(trail, Resource::Instance)?;
        let action = known_action(action)?;
        let asked = self.asked_about(trail, about).await?;
        trail.call().go_on()?;
        let access = self.access.get();
        let found = access.policies.who_can(action, &asked.resource, asked.facts());
        let become_one = access.becoming(&found.may);
        Ok((found, become_one))
    }

    async fn asked_about(&self, trail: &mut Trail<'_>, about: About) -> Result<Asked, Error> {
        let key = match about {
            About::Key(key) => key,
            About::Instance => return Ok(Asked::of(Resource::Instance)),
            About::SecretPath(path) => return Ok(Asked::of(Resource::SecretPath(path))),
            About::Secret(name) => {
                let stored = self.stored_secret(&name).await?;
                let tags = stored.map(|stored| stored.item.tags);
                return Ok(Asked { tags, ..Asked::of(Resource::Secret(name)) });
            }
        };
        let id: Option<KeyId> = match key {
            KeyRef::Id(id) => Some(id),
            KeyRef::Alias(alias) => self.alias_target(&alias).await?,
        };
        let known = match id {
            Some(id) => self.known_key(id).await?,
            None => None,
        };
        let Some(known) = known else {
            trail.reason = "no such key".into();
            return Err(Error::Denied);
        };
        trail.key = Some(known.key.id);
        let resource = Resource::Key(known.key.id);
        Ok(Asked { known: Some(known), ..Asked::of(resource) })
    }
}

impl Access {
    /// Who can take the roles whose policies these are by what he may do in a cluster: Kubernetes
    /// gives the token of an account to whoever may ask for it, or may run a pod as it.
    fn becoming(&self, may: &[Answer]) -> Vec<String> {
        let mut roles: Vec<_> = may
            .iter()
            .filter_map(|answer| answer.policy.strip_prefix(ROLE_DOCUMENT)?.split('#').next())
            .filter_map(|name| self.roles.get(&Name::parse(name).ok()?))
            .collect();
        roles.sort_by_key(|role| &role.name);
        roles.dedup_by_key(|role| &role.name);
        roles.into_iter().filter_map(becoming).collect()
    }
}

fn becoming(role: &Role) -> Option<String> {
    let RoleHolders::ServiceAccounts { cluster, namespaces, service_accounts, .. } = &role.holders
    else {
        return None;
    };
    let listed = |all: &[String]| {
        if all.iter().any(|one| one == "*") { "any".to_owned() } else { all.join(", ") }
    };
    let (accounts, namespaces, role) = (listed(service_accounts), listed(namespaces), &role.name);
    Some(format!(
        "whoever may create pods, or tokens of ServiceAccount {accounts}, in namespace {namespaces} \
         of cluster {cluster} can take role {role}"
    ))
}

/// What a question is about.
#[derive(Clone, Debug)]
pub enum About {
    /// The installation as a whole.
    Instance,
    /// A key.
    Key(KeyRef),
    /// A secret, there or not.
    Secret(SecretName),
    /// A path of secrets.
    SecretPath(SecretPath),
}

/// What a question is about, with what policy may know of it.
struct Asked {
    resource: Resource,
    known: Option<Arc<LoadedKey>>,
    tags: Option<Tags>,
}

impl Asked {
    const fn of(resource: Resource) -> Self {
        Self { resource, known: None, tags: None }
    }

    fn facts(&self) -> Option<KeyFacts<'_>> {
        let of_secret = self.tags.as_ref().map(|tags| KeyFacts { aliases: &[], tags });
        self.known.as_ref().map(|known| known.key.facts()).or(of_secret)
    }
}

/// The action as the list of all actions has it.
pub(crate) fn known_action(action: &str) -> Result<&'static str, Error> {
    let found = ALL_ACTIONS.iter().find(|(name, _)| *name == action);
    found.map(|(name, _)| *name).ok_or_else(|| {
        let names: Vec<_> = ALL_ACTIONS.iter().map(|(name, _)| *name).collect();
        Error::invalid("action", format!("expected one of {}", names.join(", ")))
    })
}

/// Somebody of this name, as if he had just opened a session.
pub(crate) fn principal(
    name: String,
    role: Option<String>,
    groups: Vec<String>,
    now: Timestamp,
) -> Result<Principal, Error> {
    let kind = kind_of(&name).ok_or_else(|| {
        let forms = "expected k8s:CLUSTER/NAMESPACE/NAME, user:NAME, node:NAME, unix:UID, \
                     oidc:PROVIDER/SUBJECT or spiffe://TRUST-DOMAIN/PATH";
        Error::invalid("principal", forms)
    })?;
    let is_system = matches!(kind, Kind::System);
    let session = (!is_system).then(|| Session {
        id: SessionId([0; 16]),
        role,
        issued_at: now,
        expires_at: Timestamp(now.0.saturating_add(900)),
        token_id: None,
        methods: Vec::new(),
        second_factor_at: None,
        policy: None,
        limits: Vec::new(),
    });
    Ok(Principal::verified(Identity { name, kind, groups, session }))
}

fn kind_of(name: &str) -> Option<Kind> {
    if name == Principal::ADMIN || name == Principal::SCHEDULER {
        return Some(Kind::System);
    }
    let (kind, rest) = name.split_once(':')?;
    if rest.is_empty() {
        return None;
    }
    match kind {
        "user" => Some(Kind::User),
        "node" => Some(Kind::Node),
        LOCAL_USERS => {
            Some(Kind::Federated { provider: kind.to_owned(), subject: rest.to_owned() })
        }
        SPIFFE => {
            let id = SpiffeId::parse(name).ok()?;
            Some(Kind::Federated { provider: kind.to_owned(), subject: id.as_str().to_owned() })
        }
        "oidc" => {
            let (provider, subject) = rest.split_once('/')?;
            Some(Kind::Federated { provider: provider.to_owned(), subject: subject.to_owned() })
        }
        "k8s" => {
            let mut parts = rest.splitn(3, '/').map(str::to_owned);
            Some(Kind::Workload(Workload {
                cluster: parts.next()?,
                namespace: parts.next()?,
                service_account: parts.next()?,
                service_account_uid: String::new(),
                pod: None,
                node: None,
            }))
        }
        _ => None,
    }
}
