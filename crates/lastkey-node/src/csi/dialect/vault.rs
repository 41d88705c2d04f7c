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
    if let Some(namespace) = parameters.get("vaultNamespace").filter(|name| !name.is_empty()) {
        return Err(Refusal::Invalid(format!(
            "vaultNamespace asks for secrets of the namespace {namespace:?}, and there are none \
             here: write it in front of each secretPath, and drop this line"
        )));
    }
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
    let path = entry.needed("secretPath")?;
    let (path, query) = path.split_once('?').unwrap_or((path.as_str(), ""));
    let (name, which) = (secret_of(entry, path)?, which(entry, query)?);
    match name.strip_prefix("database/creds/") {
        Some(_) if entry.has("secretArgs") || !query.is_empty() => {
            let place = if query.is_empty() { "secretArgs" } else { "secretPath" };
            Err(entry.refuse(place, "has arguments, which credentials of a database do not take"))
        }
        Some(role) => Ok(Source { name: role.to_owned(), which: Which::Account }),
        None => Ok(Source { name, which }),
    }
}

/// The secret of a path: `MOUNT/data/NAME` of version 2 of the key-value store and `MOUNT/NAME` of
/// version 1 are `MOUNT/NAME` here.
fn secret_of(entry: &Entry<'_>, path: &str) -> Result<String, Refusal> {
    if entry.text("method")?.is_some_and(|method| !method.eq_ignore_ascii_case("get")) {
        let problem = "other than GET makes something new at each read; only stored secrets are \
                       mounted";
        return Err(entry.refuse("method", problem));
    }
    let path = path.trim_matches('/');
    let path = path.strip_prefix("v1/").unwrap_or(path);
    Ok(match path.split_once('/') {
        Some((mount, rest)) => {
            let rest = rest.strip_prefix("data/").unwrap_or(rest);
            format!("{mount}/{rest}")
        }
        None => path.to_owned(),
    })
}

/// The version that the arguments name, or what stands behind the path.
fn which(entry: &Entry<'_>, query: &str) -> Result<Which, Refusal> {
    let arguments = entry.node("secretArgs");
    if let Some((name, _)) = arguments.entries().iter().find(|(name, _)| **name != *"version") {
        return Err(entry.refuse("secretArgs", &format!("has `{name}`; only `version` is known")));
    }
    let asked = arguments.get("version");
    let number = match (asked.int(), query.split_once('=')) {
        (Some(number), _) => number,
        (None, _) if asked.is_there() => {
            return Err(entry.refuse("secretArgs", "has a `version` that is no number"));
        }
        (None, Some(("version", text))) => text
            .parse()
            .map_err(|_| entry.refuse("secretPath", "has a `version` that is no number"))?,
        (None, None) if query.is_empty() => 0,
        (None, _) => {
            let problem = format!("has `?{query}`; only `?version=N` is known");
            return Err(entry.refuse("secretPath", &problem));
        }
    };
    match u32::try_from(number) {
        Ok(0) => Ok(Which::Stage("current".to_owned())),
        Ok(number) => Ok(Which::Number(number)),
        Err(_) => Err(entry.refuse("secretArgs", "has a `version` that is none")),
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
    fn version_may_stand_behind_the_path() {
        let which = |path: &str| {
            let plan = of(&format!("- {{objectName: a, secretPath: '{path}'}}")).unwrap();
            let source = plan.files[0].content.sources()[0].clone();
            (source.name, source.which)
        };
        let third = ("kv/app".to_owned(), Which::Number(3));
        assert_eq!(which("kv/data/app?version=3"), third);
        assert_eq!(which("/v1/kv/data/app/?version=3"), third);
        let current = ("kv/app".to_owned(), Which::Stage("current".to_owned()));
        assert_eq!(which("kv/data/app?version=0"), current);
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
            ("'s/data/b', method: PUT", "method"),
            ("'s/data/b', secretArgs: {common_name: x}", "common_name"),
            ("'s/data/b', encoding: utf-16", "encoding"),
            ("'pki/issue/a?ttl=24h'", "?ttl=24h"),
            ("'s/data/b?version=x'", "no number"),
            ("'s/data/b?version=-1'", "version"),
            ("'database/creds/a?version=1'", "secretPath"),
        ] {
            let said = of(&format!("- {{objectName: a, secretPath: {more}}}"));
            let said = said.unwrap_err().to_string();
            assert!(said.contains(name), "{said}");
        }
        // Of two namespaces with one path each the wrong secret would be mounted.
        let namespaced = [("objects", "[]"), ("vaultNamespace", "team-a")];
        let namespaced = namespaced.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let said = Personality::Vault.plan(&namespaced.into(), 0o644).unwrap_err().to_string();
        assert!(said.contains("vaultNamespace") && said.contains("team-a"), "{said}");
    }
}
