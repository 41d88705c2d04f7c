//! Use cases: change the description, deletion protection and tags of a key.
//!
//! Room      `service`.

use std::sync::Arc;

use lastkey_core::ids::KeyRef;
use lastkey_core::key::Description;
use lastkey_core::permit::{TagKey, UpdateKey};

use crate::call::Call;
use crate::change::Plan;
use crate::engine::Engine;
use crate::error::Error;
use crate::view::KeyView;

impl Engine {
    /// Changes what is given and leaves the rest.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn update_key(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        description: Option<Description>,
        deletion_protection: Option<bool>,
    ) -> Result<KeyView, Error> {
        let plan = Plan::Update { description, deletion_protection };
        self.change::<UpdateKey>(call, key, plan).await
    }

    /// Sets tags; those of the same name are replaced.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::LimitExceeded`], and those of [`Engine::update_key`].
    pub async fn tag_key(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        tags: Vec<(String, String)>,
    ) -> Result<KeyView, Error> {
        self.change::<TagKey>(call, key, Plan::Tag(tags)).await
    }

    /// Removes tags.
    ///
    /// # Errors
    /// Those of [`Engine::update_key`].
    pub async fn untag_key(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        names: Vec<String>,
    ) -> Result<KeyView, Error> {
        self.change::<TagKey>(call, key, Plan::Untag(names)).await
    }
}
