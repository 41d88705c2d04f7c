//! Keys, versions and aliases, one method for each route.
//!
//! Room      `client`. `key` is an id or an alias (`alias/app`) everywhere.

use http::Method;
use lastkey_wire::{
    StringMap,
    native::{
        Empty,
        aliases::{ListAliasesReply, SetAliasRequest},
        holdings::{
            DestroyVersionRequest, ForgetHoldingRequest, ImpactReply, ReportHoldingRequest,
        },
        keys::{
            CreateKeyRequest, ImportParametersReply, ImportParametersRequest, ImportRequest,
            KeyView, ListKeysReply, PublicKeyReply, RemoveTagsRequest, RotationReply,
            ScheduleDeletionRequest, SetRotationRequest, SetTagsRequest, UpdateKeyRequest,
        },
        query::PageQuery,
        versions::{ListVersionsReply, VersionView},
    },
    words::ImportAlgorithm,
};

use crate::{
    call::{Call, escape},
    client::Client,
};

/// A call without a body.
type Bare<'a, R> = Call<'a, (), R>;

/// A change of a key's state that needs nothing but its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// Back into use.
    Enable,
    /// Held back until enabled.
    Disable,
    /// Processes old data, protects nothing any more; for good.
    Deactivate,
    /// Known or suspected to be in other hands; for good.
    Compromise,
    /// Keeps a key that was to be destroyed.
    CancelDeletion,
}

/// A change of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionChange {
    /// Protects new data from now on.
    MakePrimary,
    /// Every use is refused and counted, but the version can come back.
    ShadowDisable,
    /// Back from shadow-disabled.
    Enable,
    /// Known or suspected to be in other hands; for good.
    Compromise,
}

impl Client {
    /// Creates a key.
    pub fn create_key<'a>(
        &'a self,
        request: &'a CreateKeyRequest,
    ) -> Call<'a, &'a CreateKeyRequest, KeyView> {
        Call::route(self.transport(), Method::POST, "/v1/keys".to_owned()).with_body(request)
    }

    /// One page of the keys.
    pub fn list_keys(&self, page: &PageQuery) -> Bare<'_, ListKeysReply> {
        paged(Call::route(self.transport(), Method::GET, "/v1/keys".to_owned()), page)
    }

    /// One key.
    pub fn describe_key(&self, key: &str) -> Bare<'_, KeyView> {
        Call::route(self.transport(), Method::GET, key_path(key, ""))
    }

    /// Changes description or deletion protection.
    pub fn update_key<'a>(
        &'a self,
        key: &str,
        request: &'a UpdateKeyRequest,
    ) -> Call<'a, &'a UpdateKeyRequest, KeyView> {
        Call::route(self.transport(), Method::PATCH, key_path(key, "")).with_body(request)
    }

    /// Makes a new version and lets it protect new data.
    pub fn rotate_key(&self, key: &str) -> Bare<'_, KeyView> {
        Call::route(self.transport(), Method::POST, key_path(key, "/rotate"))
    }

    /// Changes the state of a key.
    pub fn change_key(&self, key: &str, change: KeyChange) -> Bare<'_, KeyView> {
        let step = match change {
            KeyChange::Enable => "/enable",
            KeyChange::Disable => "/disable",
            KeyChange::Deactivate => "/deactivate",
            KeyChange::Compromise => "/compromise",
            KeyChange::CancelDeletion => "/cancel-deletion",
        };
        Call::route(self.transport(), Method::POST, key_path(key, step))
    }

    /// Schedules the destruction of a key, in 7 to 366 days (default 30); with a reason in spite
    /// of what places were reported to hold under it.
    pub fn schedule_deletion(
        &self,
        key: &str,
        window_days: Option<u32>,
        in_spite_of_reports: Option<String>,
    ) -> Call<'_, ScheduleDeletionRequest, KeyView> {
        Call::route(self.transport(), Method::POST, key_path(key, "/schedule-deletion"))
            .with_body(ScheduleDeletionRequest { window_days, in_spite_of_reports })
    }

    /// How a key rotates by itself.
    pub fn rotation(&self, key: &str) -> Bare<'_, RotationReply> {
        Call::route(self.transport(), Method::GET, key_path(key, "/rotation"))
    }

    /// Lets a key rotate by itself, each 3,600 to 315,360,000 seconds.
    pub fn set_rotation(
        &self,
        key: &str,
        period_seconds: u64,
    ) -> Call<'_, SetRotationRequest, RotationReply> {
        Call::route(self.transport(), Method::PUT, key_path(key, "/rotation"))
            .with_body(SetRotationRequest { period_seconds })
    }

    /// Stops rotation by itself.
    pub fn stop_rotation(&self, key: &str) -> Bare<'_, RotationReply> {
        Call::route(self.transport(), Method::DELETE, key_path(key, "/rotation"))
    }

    /// One page of the versions of a key.
    pub fn list_versions(&self, key: &str, page: &PageQuery) -> Bare<'_, ListVersionsReply> {
        paged(Call::route(self.transport(), Method::GET, key_path(key, "/versions")), page)
    }

    /// One version of a key.
    pub fn describe_version(&self, key: &str, version: u32) -> Bare<'_, VersionView> {
        let path = key_path(key, &format!("/versions/{version}"));
        Call::route(self.transport(), Method::GET, path)
    }

    /// Changes one version of a key.
    pub fn change_version(
        &self,
        key: &str,
        version: u32,
        change: VersionChange,
    ) -> Bare<'_, VersionView> {
        let step = match change {
            VersionChange::MakePrimary => "make-primary",
            VersionChange::ShadowDisable => "shadow-disable",
            VersionChange::Enable => "enable",
            VersionChange::Compromise => "compromise",
        };
        let path = key_path(key, &format!("/versions/{version}/{step}"));
        Call::route(self.transport(), Method::POST, path)
    }

    /// Makes a version unusable from now on, for good; with a reason in spite of what places were
    /// reported to hold under it.
    pub fn destroy_version(
        &self,
        key: &str,
        version: u32,
        in_spite_of_reports: Option<String>,
    ) -> Call<'_, DestroyVersionRequest, VersionView> {
        let path = key_path(key, &format!("/versions/{version}/destroy"));
        Call::route(self.transport(), Method::POST, path)
            .with_body(DestroyVersionRequest { in_spite_of_reports })
    }

    /// What depends on a key, as far as the server knows.
    pub fn impact(&self, key: &str) -> Bare<'_, ImpactReply> {
        Call::route(self.transport(), Method::GET, key_path(key, "/impact"))
    }

    /// Reports what a place holds under a key, in place of its report before.
    pub fn report_holding(
        &self,
        key: &str,
        place: &str,
        report: ReportHoldingRequest,
    ) -> Call<'_, ReportHoldingRequest, Empty> {
        let path = key_path(key, &format!("/holdings/{}", escape(place)));
        Call::route(self.transport(), Method::PUT, path).with_body(report)
    }

    /// Forgets what a place was reported to hold under a key.
    pub fn forget_holding(
        &self,
        key: &str,
        place: &str,
        reason: String,
    ) -> Call<'_, ForgetHoldingRequest, Empty> {
        let path = key_path(key, &format!("/holdings/{}", escape(place)));
        Call::route(self.transport(), Method::DELETE, path)
            .with_body(ForgetHoldingRequest { reason })
    }

    /// The public half of an asymmetric key; of its primary version when none is named.
    pub fn public_key(&self, key: &str, version: Option<u32>) -> Bare<'_, PublicKeyReply> {
        Call::route(self.transport(), Method::GET, key_path(key, "/public-key"))
            .with_query("version", version)
    }

    /// What is needed to wrap the material of a key that waits for it.
    pub fn import_parameters(
        &self,
        key: &str,
        algorithm: ImportAlgorithm,
    ) -> Call<'_, ImportParametersRequest, ImportParametersReply> {
        Call::route(self.transport(), Method::POST, key_path(key, "/import-parameters"))
            .with_body(ImportParametersRequest { algorithm })
    }

    /// Gives a key its owner's material.
    pub fn import_material<'a>(
        &'a self,
        key: &str,
        request: &'a ImportRequest,
    ) -> Call<'a, &'a ImportRequest, KeyView> {
        Call::route(self.transport(), Method::POST, key_path(key, "/import")).with_body(request)
    }

    /// Sets tags; others stay.
    pub fn set_tags(&self, key: &str, tags: StringMap) -> Call<'_, SetTagsRequest, KeyView> {
        Call::route(self.transport(), Method::PUT, key_path(key, "/tags"))
            .with_body(SetTagsRequest { tags })
    }

    /// Removes tags by name.
    pub fn remove_tags(
        &self,
        key: &str,
        names: Vec<String>,
    ) -> Call<'_, RemoveTagsRequest, KeyView> {
        Call::route(self.transport(), Method::DELETE, key_path(key, "/tags"))
            .with_body(RemoveTagsRequest { names })
    }

    /// One page of the aliases.
    pub fn list_aliases(&self, page: &PageQuery) -> Bare<'_, ListAliasesReply> {
        paged(Call::route(self.transport(), Method::GET, "/v1/aliases".to_owned()), page)
    }

    /// Lets an alias name a key, whatever it named before.
    pub fn set_alias(&self, alias: &str, key: &str) -> Call<'_, SetAliasRequest, KeyView> {
        let path = format!("/v1/aliases/{}", escape(alias));
        Call::route(self.transport(), Method::PUT, path)
            .with_body(SetAliasRequest { key: key.to_owned() })
    }

    /// Removes an alias; the key stays.
    pub fn delete_alias(&self, alias: &str) -> Bare<'_, Empty> {
        let path = format!("/v1/aliases/{}", escape(alias));
        Call::route(self.transport(), Method::DELETE, path)
    }
}

fn key_path(key: &str, rest: &str) -> String {
    format!("/v1/keys/{}{rest}", escape(key))
}

/// The same call for one page.
pub(crate) fn paged<'a, R: serde::de::DeserializeOwned>(
    call: Bare<'a, R>,
    page: &PageQuery,
) -> Bare<'a, R> {
    call.with_query("limit", page.limit).with_query("marker", page.marker.as_ref())
}

#[cfg(test)]
mod tests {
    use super::key_path;

    #[test]
    fn key_path_cannot_leave_its_key() {
        assert_eq!(key_path("alias/app", "/rotate"), "/v1/keys/alias%2Fapp/rotate");
        assert_eq!(key_path("../sys", ""), "/v1/keys/..%2Fsys");
    }
}
