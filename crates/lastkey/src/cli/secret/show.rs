//! Secrets as tables for people. Values are never in one, but in that of `secret diff`.
//!
//! Room      `lastkey`.

use lastkey_wire::native::secrets::{
    ListSecretVersionsReply, ListSecretsReply, SecretConsumersReply, SecretView,
};

use crate::cli::{
    key::paging::Page,
    table::{Fields, Show, grid},
};

fn stages(view: &SecretView) -> String {
    let each = view.stages.iter().map(|(stage, version)| format!("{stage}={version}"));
    each.collect::<Vec<_>>().join(", ")
}

fn tags(view: &SecretView) -> String {
    let each = view.tags.0.iter().map(|(name, value)| format!("{name}={value}"));
    each.collect::<Vec<_>>().join(", ")
}

fn not_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

impl Show for SecretView {
    fn table(&self) -> String {
        Fields::new()
            .with("Secret", &self.name)
            .with("Key", &self.key)
            .with_some("Description", not_empty(&self.description))
            .with_some("Tags", not_empty(&tags(self)))
            .with("Newest version", self.newest_version)
            .with("Stages", stages(self))
            .with("Versions kept", self.keep_versions)
            .with("Created", &self.created_at)
            .with("Written", &self.written_at)
            .with_some("Deleted; destroyed at", self.destroyed_at.as_ref())
            .table()
    }
}

impl Show for ListSecretsReply {
    fn table(&self) -> String {
        let paths = self.paths.iter().map(|path| {
            let dash = || "-".to_owned();
            (path.as_str(), vec![path.clone(), dash(), dash(), dash()])
        });
        let secrets = self.secrets.iter().map(|view| {
            let row = vec![view.name.clone(), stages(view), view.written_at.clone(), tags(view)];
            (view.name.as_str(), row)
        });
        let mut rows: Vec<_> = paths.chain(secrets).collect();
        rows.sort_by_key(|(name, _)| *name);
        let rows = rows.into_iter().map(|(_, row)| row);
        grid(&["SECRET", "STAGES", "WRITTEN", "TAGS"], rows)
    }
}

impl Page for ListSecretsReply {
    fn next_marker(&mut self) -> &mut Option<String> {
        &mut self.next_marker
    }

    fn append(&mut self, later: Self) {
        self.secrets.extend(later.secrets);
        self.paths.extend(later.paths);
    }
}

impl Show for ListSecretVersionsReply {
    fn table(&self) -> String {
        let rows = self.versions.iter().map(|version| {
            let kind = if version.has_fields { "fields" } else { "bytes" };
            let destroyed = version.destroyed_at.as_ref().map(|at| format!("destroyed {at}"));
            vec![
                version.version.to_string(),
                destroyed.unwrap_or_else(|| version.stages.join(", ")),
                kind.to_owned(),
                version.length.to_string(),
                version.created_at.clone(),
                version.created_by.clone(),
            ]
        });
        grid(&["VERSION", "STAGES", "KIND", "LENGTH", "WRITTEN", "BY"], rows)
    }
}

impl Show for SecretConsumersReply {
    fn table(&self) -> String {
        let rows = self.consumers.iter().map(|one| {
            let cluster = one.cluster.as_deref().unwrap_or("-");
            vec![
                one.version.to_string(),
                format!("{}/{}", one.namespace, one.pod),
                one.service_account.clone(),
                format!("{cluster}/{}", one.node),
                one.since.clone(),
                one.heard_at.clone(),
            ]
        });
        let table = grid(&["VERSION", "POD", "ACCOUNT", "NODE", "SINCE", "NODE HEARD"], rows);
        format!("{table}Nodes are listened to since {}.\n", self.heard_since)
    }
}
