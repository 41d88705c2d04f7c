//! Managed secrets, one method for each route.
//!
//! Room      `client`. A program that delivers secrets needs four of them: [`Client::get_secret`],
//!           [`Client::describe_secret`], [`Client::list_secrets`] and
//!           [`Client::exchange_token`] before.

use http::Method;
use lastkey_wire::native::{
    Empty,
    leaks::{ConfirmLeaksReply, ConfirmLeaksRequest},
    rotation::{
        RotateSecretRequest, SecretRotationView, SetSecretRotationReply, SetSecretRotationRequest,
    },
    secrets::{
        DeleteSecretRequest, ListSecretVersionsReply, ListSecretsQuery, ListSecretsReply,
        PlaceStageRequest, PutSecretRequest, SecretConsumersReply, SecretValueQuery,
        SecretValueReply, SecretView, TransferSecretRequest, UpdateSecretRequest,
        WatchSecretsReply, WatchSecretsRequest,
    },
};

use crate::{
    call::{Call, escape},
    client::Client,
};

/// A call without a body.
type Bare<'a, R> = Call<'a, (), R>;

fn path(name: &str, rest: &str) -> String {
    format!("/v1/secrets/{}{rest}", escape(name))
}

impl Client {
    /// Writes a version of a secret, and makes the secret if there is none. Sent once: sent twice
    /// it would write two versions.
    pub fn put_secret<'a>(
        &'a self,
        name: &str,
        request: &'a PutSecretRequest,
    ) -> Call<'a, &'a PutSecretRequest, SecretView> {
        Call::route(self.transport(), Method::PUT, path(name, "")).once().with_body(request)
    }

    /// The value of a version: the one of the query, or the current one.
    pub fn get_secret(&self, name: &str, query: &SecretValueQuery) -> Bare<'_, SecretValueReply> {
        Call::route(self.transport(), Method::GET, path(name, "/value"))
            .with_query("version", query.version)
            .with_query("stage", query.stage.as_ref())
    }

    /// One secret, without its values.
    pub fn describe_secret(&self, name: &str) -> Bare<'_, SecretView> {
        Call::route(self.transport(), Method::GET, path(name, ""))
    }

    /// One page of the secrets in a path.
    pub fn list_secrets(&self, query: &ListSecretsQuery) -> Bare<'_, ListSecretsReply> {
        Call::route(self.transport(), Method::GET, "/v1/secrets".to_owned())
            .with_query("path", query.path.as_ref())
            .with_query("recursive", query.recursive.then_some(true))
            .with_query("name", query.name.as_ref())
            .with_query("tag", query.tag.as_ref())
            .with_query("older_than_seconds", query.older_than_seconds)
            .with_query("deleted", query.deleted.then_some(true))
            .with_query("limit", query.limit)
            .with_query("marker", query.marker.as_ref())
    }

    /// The versions of a secret, without their values.
    pub fn list_secret_versions(&self, name: &str) -> Bare<'_, ListSecretVersionsReply> {
        Call::route(self.transport(), Method::GET, path(name, "/versions"))
    }

    /// The pods that hold a version of a secret.
    pub fn list_secret_consumers(&self, name: &str) -> Bare<'_, SecretConsumersReply> {
        Call::route(self.transport(), Method::GET, path(name, "/consumers"))
    }

    /// Changes description, tags or the number of versions that are kept.
    pub fn update_secret<'a>(
        &'a self,
        name: &str,
        request: &'a UpdateSecretRequest,
    ) -> Call<'a, &'a UpdateSecretRequest, SecretView> {
        Call::route(self.transport(), Method::PATCH, path(name, "")).with_body(request)
    }

    /// Puts a version at a stage.
    pub fn place_stage(
        &self,
        name: &str,
        stage: &str,
        version: u32,
    ) -> Call<'_, PlaceStageRequest, SecretView> {
        let path = path(name, &format!("/stages/{}", escape(stage)));
        Call::route(self.transport(), Method::PUT, path).with_body(PlaceStageRequest { version })
    }

    /// Takes a stage away from the version that stands there.
    pub fn remove_stage(&self, name: &str, stage: &str) -> Bare<'_, SecretView> {
        let path = path(name, &format!("/stages/{}", escape(stage)));
        Call::route(self.transport(), Method::DELETE, path)
    }

    /// Deletes a secret; it can be restored for 7 to 366 days (default 30).
    pub fn delete_secret(
        &self,
        name: &str,
        window_days: Option<u32>,
    ) -> Call<'_, DeleteSecretRequest, SecretView> {
        Call::route(self.transport(), Method::DELETE, path(name, ""))
            .with_body(DeleteSecretRequest { window_days })
    }

    /// Restores a deleted secret.
    pub fn restore_secret(&self, name: &str) -> Bare<'_, SecretView> {
        Call::route(self.transport(), Method::POST, path(name, "/restore"))
    }

    /// Destroys a secret with all its versions, at once.
    pub fn destroy_secret(&self, name: &str) -> Bare<'_, Empty> {
        Call::route(self.transport(), Method::POST, path(name, "/destroy"))
    }

    /// Destroys the value of a version that is not current.
    pub fn destroy_secret_version(&self, name: &str, version: u32) -> Bare<'_, SecretView> {
        let path = path(name, &format!("/versions/{version}/destroy"));
        Call::route(self.transport(), Method::POST, path)
    }

    /// Copies the current value to another name; it stays in the server.
    pub fn copy_secret(&self, from: &str, to: &str) -> Call<'_, TransferSecretRequest, SecretView> {
        self.transfer(from, "/copy", to)
    }

    /// Moves a secret with all its versions to another name.
    pub fn move_secret(&self, from: &str, to: &str) -> Call<'_, TransferSecretRequest, SecretView> {
        self.transfer(from, "/move", to)
    }

    /// Waits until one of these secrets has another current version than the caller has seen, for
    /// at most 20 seconds. Give the call a longer limit than that ([`Call::within`]).
    pub fn watch_secrets<'a>(
        &'a self,
        request: &'a WatchSecretsRequest,
    ) -> Call<'a, &'a WatchSecretsRequest, WatchSecretsReply> {
        let path = "/v1/watch/secrets".to_owned();
        Call::route(self.transport(), Method::POST, path).with_body(request)
    }

    /// Asks whether what a scanner has seen are values of secrets; at most 64 at once, and 256
    /// without a pause.
    pub fn confirm_leaks<'a>(
        &'a self,
        request: &'a ConfirmLeaksRequest,
    ) -> Call<'a, &'a ConfirmLeaksRequest, ConfirmLeaksReply> {
        let path = "/v1/confirm/leaks".to_owned();
        Call::route(self.transport(), Method::POST, path).repeatable().with_body(request)
    }

    /// How a secret rotates, and how the last rotation ended.
    pub fn describe_secret_rotation(&self, name: &str) -> Bare<'_, SecretRotationView> {
        Call::route(self.transport(), Method::GET, path(name, "/rotation"))
    }

    /// Says how and when a secret rotates. Sent once: the answer may hold a key that is shown once.
    pub fn set_secret_rotation<'a>(
        &'a self,
        name: &str,
        request: &'a SetSecretRotationRequest,
    ) -> Call<'a, &'a SetSecretRotationRequest, SetSecretRotationReply> {
        let path = path(name, "/rotation");
        Call::route(self.transport(), Method::PUT, path).once().with_body(request)
    }

    /// Ends the rotation of a secret; versions stay as they are.
    pub fn remove_secret_rotation(&self, name: &str) -> Bare<'_, Empty> {
        Call::route(self.transport(), Method::DELETE, path(name, "/rotation"))
    }

    /// Rotates a secret now. Sent once.
    pub fn rotate_secret<'a>(
        &'a self,
        name: &str,
        request: &'a RotateSecretRequest,
    ) -> Call<'a, &'a RotateSecretRequest, SecretRotationView> {
        let path = path(name, "/rotate");
        Call::route(self.transport(), Method::POST, path).once().with_body(request)
    }

    fn transfer(
        &self,
        from: &str,
        how: &str,
        to: &str,
    ) -> Call<'_, TransferSecretRequest, SecretView> {
        let request = TransferSecretRequest { to: to.to_owned() };
        Call::route(self.transport(), Method::POST, path(from, how)).with_body(request)
    }
}
