//! Dialects of classes: what the parameters of a SecretProviderClass ask for.
//!
//! Room      `node`. One file for each provider whose classes are understood.
//! Holds     Where a server is, how its certificate is checked and how a provider logs in is never
//!           taken from a class, which a pod can overlay; an address that the operator allowed is
//!           heeded before a class comes here. What cannot mean anything here is refused
//!           by name; what needs no heeding is told in the log.

mod alibaba;
mod aws;
mod entry;
mod native;
mod vault;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use self::entry::Entry;
use super::plan::Plan;
use super::refusal::Refusal;
use super::request::CLASS;

/// Whose classes are understood, and under which name the driver finds the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Personality {
    /// Our own.
    Lastkey,
    /// Of the provider of Alibaba Cloud.
    AlibabaCloud,
    /// Of the provider of AWS.
    Aws,
    /// Of the provider of Vault.
    Vault,
}

impl Personality {
    /// The name that classes call the provider by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lastkey => "lastkey",
            Self::AlibabaCloud => "alibabacloud",
            Self::Aws => "aws",
            Self::Vault => "vault",
        }
    }

    /// The audience that its users have asked the driver for already.
    pub(super) const fn audience(self) -> Option<&'static str> {
        match self {
            Self::Lastkey => None,
            Self::AlibabaCloud => Some("sts.aliyuncs.com"),
            Self::Aws => Some("sts.amazonaws.com"),
            Self::Vault => Some("vault"),
        }
    }

    /// The parameter in which a class names a server.
    pub(super) const fn address(self) -> Option<&'static str> {
        match self {
            Self::Lastkey => Some("address"),
            Self::Vault => Some("vaultAddress"),
            // Theirs are told by region, and by object.
            Self::AlibabaCloud | Self::Aws => None,
        }
    }

    /// Reads the parameters of a class.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub(super) fn plan(
        self,
        parameters: &BTreeMap<String, String>,
        mode: u32,
    ) -> Result<Plan, Refusal> {
        let plan = match self {
            Self::Lastkey => native::plan(parameters, mode),
            Self::AlibabaCloud => alibaba::plan(parameters, mode),
            Self::Aws => aws::plan(parameters, mode),
            Self::Vault => vault::plan(parameters, mode),
        };
        plan?.checked()
    }
}

/// A name that no personality has.
#[derive(Debug, thiserror::Error)]
#[error("no such personality: {0}; there are lastkey, alibabacloud, aws and vault")]
pub struct NoPersonality(String);

impl FromStr for Personality {
    type Err = NoPersonality;

    fn from_str(text: &str) -> Result<Self, NoPersonality> {
        let all = [Self::Lastkey, Self::AlibabaCloud, Self::Aws, Self::Vault];
        all.into_iter().find(|one| one.name() == text).ok_or_else(|| NoPersonality(text.to_owned()))
    }
}

/// Names of parameters that are not in the list.
fn others(parameters: &BTreeMap<String, String>, heeded: &[&str]) -> BTreeSet<String> {
    let unheeded = parameters.keys().filter(|name| !heeded.contains(&name.as_str()));
    unheeded.filter(|name| *name != CLASS).cloned().collect()
}
