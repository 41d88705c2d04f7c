//! Classes of `provider: alibabacloud`.
//!
//! Room      `node`.
//! Source    AliyunContainerService/secrets-store-csi-driver-provider-alibaba-cloud, README.

use std::collections::BTreeMap;

use super::super::plan::{Plan, Source};
use super::super::refusal::Refusal;
use super::aws::{push_object, translation, which};
use super::entry::{entries, list};
use super::others;

const PARAMETERS: [&str; 3] = ["objects", "pathTranslation", "role"];
const OF_OBJECT: [&str; 6] =
    ["objectName", "objectType", "objectAlias", "objectVersion", "objectVersionLabel", "jmesPath"];
const LABELS: [(&str, &str); 2] = [("ACSCurrent", "current"), ("ACSPrevious", "previous")];

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
            None | Some("kms" | "oos") => {}
            Some(_) => return Err(entry.refuse("objectType", "is neither kms nor oos")),
        }
        if entry.has("crossAccountRoleArn") {
            let problem = "asks for a secret of another account, which Lastkey does not have: \
                           import that secret and drop this line";
            return Err(entry.refuse("crossAccountRoleArn", problem));
        }
        let source = Source { name: secret_of(&name).to_owned(), which: which(&entry, &LABELS)? };
        push_object(&entry, (&name, source), (mode, slashes), &mut plan.files)?;
    }
    Ok(plan)
}

/// The secret of a name or ARN: what follows `:secret/` or `:secretparameter/`; without the slash
/// in front that parameters may have.
fn secret_of(name: &str) -> &str {
    let bare = name.strip_prefix("acs:").and_then(|arn| {
        let of = |kind| arn.split_once(kind).map(|(_, secret)| secret);
        of(":secret/").or_else(|| of(":secretparameter/"))
    });
    bare.unwrap_or(name).trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::super::Personality;
    use super::*;
    use crate::ports::Which;

    fn of(objects: &str) -> Result<Plan, Refusal> {
        let parameters = [
            ("objects".to_owned(), objects.to_owned()),
            ("kmsEndpoint".to_owned(), "evil.example".to_owned()),
        ];
        Personality::AlibabaCloud.plan(&parameters.into(), 0o644)
    }

    #[test]
    fn objects_are_understood_and_an_endpoint_is_not_heeded() {
        let plan = of("\
- objectName: test-kms
  objectType: kms
  objectVersionLabel: ACSCurrent
  kmsEndpoint: kms.cn-hangzhou.aliyuncs.com
  jmesPath:
  - {path: username, objectAlias: user}
")
        .unwrap();
        assert_eq!(plan.files.len(), 2);
        assert_eq!(plan.files[0].content.sources()[0].which, Which::Stage("current".to_owned()));
        assert!(plan.ignored.contains("kmsEndpoint"));
    }

    #[test]
    fn names_and_arns_become_secrets() {
        for (name, secret) in [
            ("test-kms", "test-kms"),
            ("/a/b", "a/b"),
            ("acs:kms:cn-hangzhou:123456789012:secret/prod/db", "prod/db"),
            ("acs:oos:cn-hangzhou:123456789012:secretparameter/test-oos", "test-oos"),
            ("acs:ram::123456789012:role/x", "acs:ram::123456789012:role/x"),
        ] {
            assert_eq!(secret_of(name), secret);
        }
    }

    #[test]
    fn secret_of_another_account_is_refused_by_name() {
        let said = of("- {objectName: a, crossAccountRoleArn: acs}").unwrap_err().to_string();
        assert!(said.contains("crossAccountRoleArn"), "{said}");
        assert!(of("- {objectName: a, objectType: s3}").is_err());
    }
}
