//! Classes of `provider: aws`.
//!
//! Room      `node`.
//! Source    aws/secrets-store-csi-driver-provider-aws, README.

use std::collections::BTreeMap;

use super::super::plan::{Content, Encoding, Format, Part, Plan, Source, Wanted};
use super::super::refusal::Refusal;
use super::entry::{entries, list};
use super::{Entry, others};
use crate::ports::Which;

const PARAMETERS: [&str; 3] = ["objects", "pathTranslation", "role"];
const OF_OBJECT: [&str; 7] = [
    "objectName",
    "objectType",
    "objectAlias",
    "objectVersion",
    "objectVersionLabel",
    "jmesPath",
    "filePermission",
];
const LABELS: [(&str, &str); 3] =
    [("AWSCURRENT", "current"), ("AWSPREVIOUS", "previous"), ("AWSPENDING", "pending")];

pub(super) fn plan(parameters: &BTreeMap<String, String>, mode: u32) -> Result<Plan, Refusal> {
    let objects = list(parameters)?;
    let mut plan = Plan {
        role: parameters.get("role").cloned(),
        ignored: others(parameters, &PARAMETERS),
        ..Plan::default()
    };
    let slashes = translation(parameters)?;
    for entry in entries(&objects, "objects") {
        let entry = entry?;
        entry.note_others(&OF_OBJECT, &mut plan.ignored);
        let name = entry.needed("objectName")?;
        match entry.text("objectType")?.as_deref() {
            Some("secretsmanager" | "ssmparameter") => {}
            None if name.starts_with("arn:") => {}
            Some(_) | None => {
                let problem = "is neither secretsmanager nor ssmparameter";
                return Err(entry.refuse("objectType", problem));
            }
        }
        if entry.has("objectTemplate") {
            let problem = "is a template of Go, which is not made here: a class of `provider: \
                           lastkey` makes files by `template`";
            return Err(entry.refuse("objectTemplate", problem));
        }
        let source = Source { name: secret_of(&name), which: which(&entry, &LABELS)? };
        let mode = entry.mode("filePermission")?.unwrap_or(mode);
        push_object(&entry, (&name, source), (mode, slashes), &mut plan.files)?;
    }
    Ok(plan)
}

/// What stands in the place of `/` in names of files; nothing leaves them as they are.
pub(super) fn translation(parameters: &BTreeMap<String, String>) -> Result<Option<char>, Refusal> {
    let Some(text) = parameters.get("pathTranslation") else { return Ok(Some('_')) };
    let mut chars = text.chars();
    match (text.as_str(), chars.next(), chars.next()) {
        ("False", _, _) => Ok(None),
        (_, Some(one), None) if one != '/' => Ok(Some(one)),
        (_, _, _) => {
            let problem = "pathTranslation is neither `False` nor one character other than `/`";
            Err(Refusal::Invalid(problem.to_owned()))
        }
    }
}

/// The version that an object names.
pub(super) fn which(entry: &Entry<'_>, labels: &[(&str, &str)]) -> Result<Which, Refusal> {
    let label = entry.text("objectVersionLabel")?.filter(|label| !label.is_empty());
    match (entry.version("objectVersion")?, label) {
        (Some(_), Some(_)) => {
            Err(entry.refuse("objectVersionLabel", "is given beside objectVersion: give one"))
        }
        (Some(number), None) => Ok(Which::Number(number)),
        (None, None) => Ok(Which::Stage("current".to_owned())),
        (None, Some(label)) => {
            let known = labels.iter().find(|(theirs, _)| *theirs == label);
            let stage = known.map_or(label.as_str(), |(_, ours)| *ours);
            Ok(Which::Stage(stage.to_owned()))
        }
    }
}

/// The whole value as a file, and one for each entry of `jmesPath`.
pub(super) fn push_object(
    entry: &Entry<'_>,
    (name, source): (&str, Source),
    (mode, slashes): (u32, Option<char>),
    files: &mut Vec<Wanted>,
) -> Result<(), Refusal> {
    let wanted = |alias: String, mode: u32, part: Part| Wanted {
        object: name.to_owned(),
        path: file_name(&alias, slashes),
        mode,
        is_optional: false,
        content: Content::One { source: source.clone(), part, format: Format::Raw },
        encoding: Encoding::Plain,
    };
    let alias = entry.text("objectAlias")?.filter(|alias| !alias.is_empty());
    files.push(wanted(alias.unwrap_or_else(|| name.to_owned()), mode, Part::Whole));
    for part in entries(entry.node("jmesPath"), "jmesPath") {
        let part = part?;
        let own = part.mode("filePermission")?.unwrap_or(mode);
        let query = Part::Query(part.needed("path")?);
        files.push(wanted(part.needed("objectAlias")?, own, query));
    }
    Ok(())
}

fn file_name(alias: &str, slashes: Option<char>) -> String {
    match slashes {
        Some(other) => alias.replace('/', &other.to_string()),
        None => alias.trim_start_matches('/').to_owned(),
    }
}

/// The secret of a name or ARN: what follows `:secret:` without the six random characters, or
/// `:parameter`; without the slash in front that parameters have.
fn secret_of(name: &str) -> String {
    let bare = match name.strip_prefix("arn:") {
        None => name,
        Some(arn) => match (arn.split_once(":secret:"), arn.split_once(":parameter")) {
            (Some((_, secret)), _) => without_suffix(secret),
            (None, Some((_, parameter))) => parameter,
            (None, None) => name,
        },
    };
    bare.trim_start_matches('/').to_owned()
}

fn without_suffix(secret: &str) -> &str {
    match secret.rsplit_once('-') {
        Some((name, end)) if end.len() == 6 && end.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            name
        }
        Some(_) | None => secret,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Personality;
    use super::*;

    fn of(objects: &str) -> Result<Plan, Refusal> {
        let parameters = [("objects".to_owned(), objects.to_owned())].into();
        Personality::Aws.plan(&parameters, 0o644)
    }

    fn secrets(plan: &Plan) -> Vec<(&str, &str)> {
        let files = plan.files.iter();
        files.map(|file| (&*file.path, &*file.content.sources()[0].name)).collect()
    }

    #[test]
    fn names_and_arns_become_secrets_and_slashes_in_files_are_translated() {
        let plan = of("\
- objectName: MySecret
  objectType: secretsmanager
- objectName: arn:aws:secretsmanager:us-east-2:111122223333:secret:prod/db-AbCd12
  objectAlias: db
- objectName: /prod/key
  objectType: ssmparameter
")
        .unwrap();
        let expected = [("MySecret", "MySecret"), ("db", "prod/db"), ("_prod_key", "prod/key")];
        assert_eq!(secrets(&plan), expected);
    }

    #[test]
    fn json_paths_make_files_of_their_own() {
        let plan = of("\
- objectName: MySecret
  objectType: secretsmanager
  filePermission: \"0600\"
  jmesPath:
  - {path: username, objectAlias: user}
  - {path: a.b, objectAlias: b, filePermission: \"0400\"}
")
        .unwrap();
        let modes: Vec<_> = plan.files.iter().map(|f| (f.path.as_str(), f.mode)).collect();
        assert_eq!(modes, [("MySecret", 0o600), ("user", 0o600), ("b", 0o400)]);
    }

    #[test]
    fn labels_are_stages_and_versions_of_others_are_refused_by_name() {
        let plan =
            of("- {objectName: a, objectType: secretsmanager, objectVersionLabel: AWSPREVIOUS}");
        let plan = plan.unwrap();
        assert_eq!(plan.files[0].content.sources()[0].which, Which::Stage("previous".to_owned()));
        let version = "- {objectName: a, objectType: secretsmanager, objectVersion: 9b0f-1}";
        let said = of(version).unwrap_err().to_string();
        assert!(said.contains("objectVersion") && said.contains("9b0f-1"), "{said}");
        for (more, name) in
            [("s3", "objectType"), ("secretsmanager, objectTemplate: x", "objectTemplate")]
        {
            let said = of(&format!("- {{objectName: a, objectType: {more}}}")).unwrap_err();
            assert!(said.to_string().contains(name), "{said}");
        }
    }
}
