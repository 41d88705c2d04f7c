//! Classes of `provider: vault`.
//!
//! Room      `node`.
//! Source    hashicorp/vault-csi-provider, documentation of the SecretProviderClass.

use std::collections::BTreeMap;

use super::super::plan::{Content, Encoding, Format, Part, Plan, Source, Wanted};
use super::super::refusal::Refusal;
use super::entry::{entries, list};
use super::{Entry, others};
use crate::ports::Which;

const PARAMETERS: [&str; 3] = ["objects", "roleName", "audience"];
const OF_OBJECT: [&str; 7] =
    ["objectName", "secretPath", "secretKey", "method", "secretArgs", "filePermission", "encoding"];

pub(super) fn plan(parameters: &BTreeMap<String, String>, mode: u32) -> Result<Plan, Refusal> {
    let objects = list(parameters)?;
    let mut plan = Plan {
        role: parameters.get("roleName").cloned(),
        audience: parameters.get("audience").cloned(),
        ignored: others(parameters, &PARAMETERS),
        ..Plan::default()
    };
    for entry in entries(&objects, "objects") {
        let entry = entry?;
        entry.note_others(&OF_OBJECT, &mut plan.ignored);
        let path = entry.needed("objectName")?;
        let source = source_of(&entry)?;
        let whole = match source.which {
            Which::Account => Part::VaultLease,
            Which::Stage(_) | Which::Number(_) => Part::VaultReply,
        };
        let part = entry.text("secretKey")?.filter(|key| !key.is_empty());
        let part = part.map_or(whole, Part::Field);
        plan.files.push(Wanted {
            object: path.clone(),
            path,
            mode: entry.mode("filePermission")?.unwrap_or(mode),
            is_optional: false,
            content: Content::One { source, part, format: Format::Raw },
            encoding: encoding(&entry)?,
        });
    }
    Ok(plan)
}

/// A stored secret; or, of the path `database/creds/ROLE`, the account that the pod has by a role of
/// a database.
fn source_of(entry: &Entry<'_>) -> Result<Source, Refusal> {
    let (name, which) = (secret_of(entry)?, which(entry)?);
    match name.strip_prefix("database/creds/") {
        Some(_) if entry.has("secretArgs") => {
            Err(entry.refuse("secretArgs", "does not go with credentials of a database"))
        }
        Some(role) => Ok(Source { name: role.to_owned(), which: Which::Account }),
        None => Ok(Source { name, which }),
    }
}

/// The secret of a path: `MOUNT/data/NAME` of version 2 of the key-value store and `MOUNT/NAME` of
/// version 1 are `MOUNT/NAME` here.
fn secret_of(entry: &Entry<'_>) -> Result<String, Refusal> {
    if entry.text("method")?.is_some_and(|method| !method.eq_ignore_ascii_case("get")) {
        let problem = "other than GET makes something new at each read; only stored secrets are \
                       mounted";
        return Err(entry.refuse("method", problem));
    }
    let path = entry.needed("secretPath")?;
    let path = path.trim_matches('/');
    let path = path.strip_prefix("v1/").unwrap_or(path);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if !query.is_empty() {
        return Err(entry.refuse("secretPath", "has a query; write it as secretArgs"));
    }
    Ok(match path.split_once('/') {
        Some((mount, rest)) => {
            let rest = rest.strip_prefix("data/").unwrap_or(rest);
            format!("{mount}/{rest}")
        }
        None => path.to_owned(),
    })
}

fn which(entry: &Entry<'_>) -> Result<Which, Refusal> {
    let arguments = entry.node("secretArgs");
    if let Some((name, _)) = arguments.entries().iter().find(|(name, _)| **name != *"version") {
        return Err(entry.refuse("secretArgs", &format!("has `{name}`; only `version` is known")));
    }
    let version = arguments.get("version");
    match version.int() {
        Some(number) => match u32::try_from(number) {
            Ok(0) => Ok(Which::Stage("current".to_owned())),
            Ok(number) => Ok(Which::Number(number)),
            Err(_) => Err(entry.refuse("secretArgs", "has a `version` that is none")),
        },
        None if version.is_there() => {
            Err(entry.refuse("secretArgs", "has a `version` that is no number"))
        }
        None => Ok(Which::Stage("current".to_owned())),
    }
}

fn encoding(entry: &Entry<'_>) -> Result<Encoding, Refusal> {
    match entry.text("encoding")?.as_deref() {
        None | Some("" | "utf-8") => Ok(Encoding::Plain),
        Some("base64") => Ok(Encoding::Base64),
        Some("hex") => Ok(Encoding::Hex),
        Some(_) => Err(entry.refuse("encoding", "is none of utf-8, base64, hex")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Personality;
    use super::*;

    fn of(objects: &str) -> Result<Plan, Refusal> {
        let parameters = [
            ("objects".to_owned(), objects.to_owned()),
            ("roleName".to_owned(), "database".to_owned()),
            ("vaultAddress".to_owned(), "http://vault.default:8200".to_owned()),
            ("vaultSkipTLSVerify".to_owned(), "true".to_owned()),
        ];
        Personality::Vault.plan(&parameters.into(), 0o644)
    }

    #[test]
    fn class_of_the_documentation_is_understood_and_its_address_is_not_heeded() {
        let plan = of("\
- objectName: \"db-password\"
  secretPath: \"secret/data/db-pass\"
  secretKey: \"password\"
- objectName: whole
  secretPath: /v1/kv/app/config
  filePermission: 0400
  secretArgs: {version: 2}
")
        .unwrap();
        assert_eq!(plan.role.as_deref(), Some("database"));
        let of = |index: usize| (&plan.files[index], plan.files[index].content.sources()[0]);
        let (file, source) = of(0);
        assert_eq!((file.path.as_str(), source.name.as_str()), ("db-password", "secret/db-pass"));
        let (file, source) = of(1);
        assert_eq!((file.mode, source.name.as_str()), (0o400, "kv/app/config"));
        assert_eq!(source.which, Which::Number(2));
        assert!(
            plan.ignored.contains("vaultAddress") && plan.ignored.contains("vaultSkipTLSVerify")
        );
    }

    #[test]
    fn credentials_of_a_database_are_the_account_of_the_pod() {
        let plan = of("\
- {objectName: user, secretPath: database/creds/db-app, secretKey: username}
- {objectName: whole, secretPath: database/creds/db-app}
")
        .unwrap();
        let account = Source { name: "db-app".to_owned(), which: Which::Account };
        assert!(plan.files.iter().all(|file| file.content.sources() == [&account]));
        let Content::One { part, .. } = &plan.files[1].content else { panic!() };
        assert_eq!(part, &Part::VaultLease);
        let more = "- {objectName: a, secretPath: database/creds/x, secretArgs: {version: 1}}";
        assert!(of(more).unwrap_err().to_string().contains("secretArgs"));
    }

    #[test]
    fn what_cannot_mean_anything_here_is_refused_by_name() {
        for (more, name) in [
            ("method: PUT", "method"),
            ("secretArgs: {common_name: x}", "common_name"),
            ("encoding: utf-16", "encoding"),
        ] {
            let said = of(&format!("- {{objectName: a, secretPath: s/data/b, {more}}}"));
            let said = said.unwrap_err().to_string();
            assert!(said.contains(name), "{said}");
        }
    }
}
