//! The servers of a node: its own, and others that classes may name.
//!
//! Room      `node`.
//! Source    docs/adr/0053-classes-name-allowed-servers.md.
//! Holds     A class names a server by an address that the operator allowed; any other one is not
//!           heeded. Each server has a provider of its own, so what one of them gave or was told is
//!           never mixed with another's, and a volume is in one of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastkey_wire::grpc::csi_provider::{MountRequest, MountResponse};

use super::dialect::Personality;
use super::provider::Provider;
use super::refusal::Refusal;
use super::request::Asked;

/// The providers of a node, one for each server.
pub struct Providers {
    own: Arc<Provider>,
    /// By the address that a class names, without a slash at its end.
    others: BTreeMap<String, Arc<Provider>>,
}

impl Providers {
    /// The provider of the node's own server.
    #[must_use]
    pub const fn new(own: Arc<Provider>) -> Self {
        Self { own, others: BTreeMap::new() }
    }

    /// Lets classes name the server of another provider by this address.
    pub fn allow(&mut self, address: &str, provider: Arc<Provider>) {
        self.others.insert(bare(address).to_owned(), provider);
    }

    /// The one of the node's own server.
    #[must_use]
    pub const fn own(&self) -> &Arc<Provider> {
        &self.own
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Provider>> {
        std::iter::once(&self.own).chain(self.others.values())
    }

    /// The files of a volume.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) async fn mount(
        &self,
        personality: Personality,
        request: &MountRequest,
    ) -> Result<MountResponse, Refusal> {
        let mut asked = Asked::parse(request)?;
        let chosen = self.chosen(personality, &mut asked);
        for other in self.all().filter(|other| !Arc::ptr_eq(other, chosen)) {
            other.let_go(personality, &asked);
        }
        chosen.mount_asked(personality, &asked).await
    }

    fn chosen(&self, personality: Personality, asked: &mut Asked) -> &Arc<Provider> {
        let allowed = personality.address().and_then(|name| {
            let address = asked.parameters.get(name)?;
            Some((name, self.others.get(bare(address))?))
        });
        let Some((name, provider)) = allowed else { return &self.own };
        // It is heeded, so nobody is told that it is not.
        asked.parameters.remove(name);
        provider
    }
}

fn bare(address: &str) -> &str {
    address.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::{Service, provider, request, token};
    use super::*;

    fn named(name: &str, address: &str) -> MountRequest {
        let mut asked = request("u", &token("u", 1));
        let mut attributes: Value = serde_json::from_str(&asked.attributes).unwrap();
        attributes[name] = address.into();
        asked.attributes = attributes.to_string();
        asked
    }

    fn providers() -> (Arc<Service>, Arc<Service>, Providers) {
        let (own, provider) = provider(None);
        let other = Arc::new(Service::default());
        let beside = provider.beside(other.clone(), None).unwrap();
        let mut all = Providers::new(provider);
        all.allow("https://other.example:8443/", Arc::new(beside));
        (own, other, all)
    }

    #[tokio::test]
    async fn class_reaches_an_allowed_server_and_no_other_one() {
        let (own, other, all) = providers();
        let mount = async |name: &str, address: &str| {
            all.mount(Personality::Lastkey, &named(name, address)).await.unwrap();
            (own.calls(), other.calls())
        };
        for (name, address) in [
            ("address", "https://evil.example"),
            ("address", "https://other.example:84430"),
            ("vaultAddress", "https://other.example:8443"),
        ] {
            let (own, other) = mount(name, address).await;
            assert!(own > 0 && other == 0, "{name} {address}");
        }
        let before = own.calls();
        let (own, other) = mount("address", "https://other.example:8443").await;
        assert!(own == before && other > 0);
    }

    #[tokio::test]
    async fn volume_is_kept_by_the_provider_that_was_asked_last() {
        let (_, _, all) = providers();
        let volumes = || all.all().map(|one| one.slots().len()).collect::<Vec<_>>();
        for (address, expected) in
            [("", [1, 0]), ("https://other.example:8443/", [0, 1]), ("elsewhere", [1, 0])]
        {
            all.mount(Personality::Lastkey, &named("address", address)).await.unwrap();
            assert_eq!(volumes(), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn classes_of_vault_name_it_in_their_own_way() {
        let (own, other, all) = providers();
        let mut asked = named("vaultAddress", "https://other.example:8443");
        let object = "- {objectName: a, secretPath: kv/data/a, secretKey: x}";
        let mut attributes: Value = serde_json::from_str(&asked.attributes).unwrap();
        attributes["objects"] = object.into();
        attributes["roleName"] = "r".into();
        asked.attributes = attributes.to_string();
        // The value has no such field; what counts is who was asked for it.
        all.mount(Personality::Vault, &asked).await.unwrap_err();
        assert!(own.calls() == 0 && other.calls() > 0);
    }
}
