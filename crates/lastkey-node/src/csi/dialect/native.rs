//! Classes of `provider: lastkey`.
//!
//! Room      `node`.
//! Source    docs/kubernetes/secrets.md.

use std::collections::BTreeMap;

use super::super::plan::{Content, Encoding, Format, Part, Plan, Source, Wanted, current};
use super::super::refusal::Refusal;
use super::entry::{entries, list};
use super::{Entry, others};
use crate::ports::Which;

const PARAMETERS: [&str; 3] = ["objects", "role", "audience"];
const OF_OBJECT: [&str; 17] = [
    "secret",
    "database",
    "databases",
    "path",
    "field",
    "query",
    "fields",
    "prefix",
    "format",
    "stage",
    "version",
    "previous",
    "encoding",
    "mode",
    "optional",
    "template",
    "secrets",
];

pub(super) fn plan(parameters: &BTreeMap<String, String>, mode: u32) -> Result<Plan, Refusal> {
    let objects = list(parameters)?;
    let mut plan = Plan {
        role: parameters.get("role").cloned(),
        audience: parameters.get("audience").cloned(),
        ignored: others(parameters, &PARAMETERS),
        ..Plan::default()
    };
    for entry in entries(&objects, "objects") {
        let entry = entry?;
        entry.note_others(&OF_OBJECT, &mut plan.ignored);
        if entry.has("template") {
            plan.files.push(template(&entry, mode)?);
        } else {
            object(&entry, mode, &mut plan.files)?;
        }
    }
    Ok(plan)
}

fn object(entry: &Entry<'_>, mode: u32, files: &mut Vec<Wanted>) -> Result<(), Refusal> {
    let source = match entry.text("database")? {
        Some(role) => account(entry, role)?,
        None => Source { name: entry.needed("secret")?, which: which(entry)? },
    };
    let name = source.name.clone();
    let content = content(entry, source)?;
    let is_each = matches!(content, Content::Each { .. });
    let path = match entry.text(if is_each { "prefix" } else { "path" })? {
        Some(path) => path,
        None if is_each => String::new(),
        None => name.rsplit('/').next().unwrap_or(&name).to_owned(),
    };
    let wanted = Wanted {
        object: name.clone(),
        path,
        mode: entry.mode("mode")?.unwrap_or(mode),
        is_optional: entry.flag("optional")?,
        content,
        encoding: encoding(entry)?,
    };
    if entry.flag("previous")? {
        files.push(previous(entry, &wanted)?);
    }
    files.push(wanted);
    Ok(())
}

/// The account that the pod has by a role of a database.
fn account(entry: &Entry<'_>, role: String) -> Result<Source, Refusal> {
    for name in ["secret", "stage", "version", "previous"] {
        if entry.has(name) {
            return Err(entry.refuse(name, "does not go with `database`"));
        }
    }
    Ok(Source { name: role, which: Which::Account })
}

fn which(entry: &Entry<'_>) -> Result<Which, Refusal> {
    match (entry.version("version")?, entry.text("stage")?) {
        (Some(_), Some(_)) => Err(entry.refuse("stage", "is given beside `version`: give one")),
        (Some(number), None) => Ok(Which::Number(number)),
        (None, Some(stage)) => Ok(Which::Stage(stage)),
        (None, None) => Ok(Which::Stage("current".to_owned())),
    }
}

fn content(entry: &Entry<'_>, source: Source) -> Result<Content, Refusal> {
    let part = match (entry.text("field")?, entry.text("query")?, entry.text("fields")?) {
        (None, None, None) => Part::Whole,
        (Some(field), None, None) => Part::Field(field),
        (None, Some(query), None) => Part::Query(query),
        (None, None, Some(all)) if all == "all" => return Ok(Content::Each { source }),
        (None, None, Some(_)) => return Err(entry.refuse("fields", "can only be `all`")),
        (_, _, _) => {
            return Err(entry.refuse("field", "is one of `field`, `query` and `fields`: give one"));
        }
    };
    let format = format(entry)?;
    if format == Format::Pkcs12 && part != Part::Whole {
        return Err(entry.refuse("format", "pkcs12 goes neither with `field` nor with `query`"));
    }
    Ok(Content::One { source, part, format })
}

/// The same object as it was before the last change, in a file beside it. A secret that was never
/// changed has none.
fn previous(entry: &Entry<'_>, wanted: &Wanted) -> Result<Wanted, Refusal> {
    let mut before = wanted.clone();
    match &mut before.content {
        Content::One { source, .. } if source.which == Which::Stage("current".to_owned()) => {
            source.which = Which::Stage("previous".to_owned());
        }
        Content::One { .. } | Content::Each { .. } | Content::Template { .. } => {
            let problem = "needs an object of one file at the stage current";
            return Err(entry.refuse("previous", problem));
        }
    }
    before.path.push_str(".previous");
    before.is_optional = true;
    Ok(before)
}

fn template(entry: &Entry<'_>, mode: u32) -> Result<Wanted, Refusal> {
    let path = entry.needed("path")?;
    for name in ["secret", "database", "field", "query", "fields", "format", "previous", "encoding"]
    {
        if entry.has(name) {
            return Err(entry.refuse(name, "does not go with `template`"));
        }
    }
    let mut sources = aliases(entry, "secrets", current)?;
    let account = |role: &str| Source { name: role.to_owned(), which: Which::Account };
    sources.extend(aliases(entry, "databases", account)?);
    let text = entry.long_text("template")?.filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| entry.refuse("template", "is missing"))?;
    Ok(Wanted {
        object: path.clone(),
        path,
        mode: entry.mode("mode")?.unwrap_or(mode),
        is_optional: entry.flag("optional")?,
        content: Content::Template { text, sources },
        encoding: Encoding::Plain,
    })
}

/// The names under which a template knows what it is made of.
fn aliases(
    entry: &Entry<'_>,
    parameter: &str,
    source: impl Fn(&str) -> Source,
) -> Result<Vec<(String, Source)>, Refusal> {
    let mut sources = Vec::new();
    for (alias, node) in entry.node(parameter).entries() {
        let name = node.text().ok_or_else(|| {
            let problem = format!("has no name for `{alias}`");
            entry.refuse(parameter, &problem)
        })?;
        sources.push((alias.to_string(), source(name)));
    }
    Ok(sources)
}

fn format(entry: &Entry<'_>) -> Result<Format, Refusal> {
    match entry.text("format")?.as_deref() {
        None | Some("raw") => Ok(Format::Raw),
        Some("json") => Ok(Format::Json),
        Some("yaml") => Ok(Format::Yaml),
        Some("dotenv") => Ok(Format::Dotenv),
        Some("properties") => Ok(Format::Properties),
        Some("pkcs12") => Ok(Format::Pkcs12),
        Some("jks") => Err(entry.refuse(
            "format",
            "jks is not made here; Java reads pkcs12 as well, or put the key store into the secret \
             as bytes and mount it raw",
        )),
        Some(_) => {
            Err(entry.refuse("format", "is none of raw, json, yaml, dotenv, properties, pkcs12"))
        }
    }
}

fn encoding(entry: &Entry<'_>) -> Result<Encoding, Refusal> {
    match entry.text("encoding")?.as_deref() {
        None | Some("plain") => Ok(Encoding::Plain),
        Some("base64") => Ok(Encoding::Base64),
        Some("hex") => Ok(Encoding::Hex),
        Some(_) => Err(entry.refuse("encoding", "is none of plain, base64, hex")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Personality;
    use super::*;

    fn of(objects: &str) -> Result<Plan, Refusal> {
        let parameters = [("objects".to_owned(), objects.to_owned())].into();
        Personality::Lastkey.plan(&parameters, 0o644)
    }

    #[test]
    fn objects_say_file_part_format_and_mode() {
        let plan = of("\
- secret: prod/db
- {secret: prod/db, path: conf/pw, field: password, mode: '0400', optional: true}
- {secret: prod/api, query: 'a.b', path: q, version: 3, previous: false}
- {secret: prod/all, fields: all, prefix: all/}
- {secret: prod/env, format: dotenv, stage: green, mode: 0440, encoding: base64}
")
        .unwrap();
        let shown: Vec<_> = plan.files.iter().map(|f| (f.path.as_str(), f.mode)).collect();
        let modes =
            [("db", 0o644), ("conf/pw", 0o400), ("q", 0o644), ("all/", 0o644), ("env", 0o440)];
        assert_eq!(shown, modes);
        let Content::One { source, part, .. } = &plan.files[2].content else { panic!() };
        assert_eq!((&source.which, part), (&Which::Number(3), &Part::Query("a.b".to_owned())));
        assert!(plan.files[1].is_optional && !plan.files[0].is_optional);
    }

    #[test]
    fn account_of_a_database_is_an_object_and_goes_into_templates() {
        let plan = of("\
- {database: shop-app, path: db/password, field: password}
- {path: url, template: '{{ db.username }}', databases: {db: shop-app}}
")
        .unwrap();
        let account = Source { name: "shop-app".to_owned(), which: Which::Account };
        assert!(plan.files.iter().all(|file| file.content.sources() == [&account]));
        for bad in ["secret: a", "stage: current", "version: 1", "previous: true"] {
            let said = of(&format!("- {{database: shop-app, {bad}}}")).unwrap_err().to_string();
            assert!(said.contains("does not go with `database`"), "{said}");
        }
    }

    #[test]
    fn previous_adds_a_file_that_may_be_missing() {
        let plan = of("- {secret: a/b, previous: true}").unwrap();
        let paths: Vec<_> = plan.files.iter().map(|f| (f.path.as_str(), f.is_optional)).collect();
        assert_eq!(paths, [("b.previous", true), ("b", false)]);
        assert!(of("- {secret: a/b, version: 1, previous: true}").is_err());
    }

    #[test]
    fn mistakes_are_refused_by_place_and_name() {
        let long = "x".repeat(4_097);
        let names: Vec<_> = (0..513).map(|one| format!("s{one}: a/{one}")).collect();
        let many = format!("- {{path: t, template: t, secrets: {{{}}}}}", names.join(", "));
        let aliased = format!("- {{path: t, template: &t {long}}}\n{}", "- *t\n".repeat(500));
        for (objects, part) in [
            ("- {path: a}", "objects[0].secret is missing"),
            ("- {secret: a}\n- {secret: b/a}", "both want the file a"),
            ("- {secret: a, path: ../x}", "no path for a file"),
            ("- {secret: a, mode: '0999'}", "objects[0].mode"),
            ("- {secret: a, field: x, query: y}", "give one"),
            ("- {secret: a, version: 1, stage: x}", "give one"),
            ("- {secret: a, format: jks}", "pkcs12"),
            ("- {secret: a, optional: maybe}", "neither true nor false"),
            ("- {template: x}", "objects[0].path is missing"),
            ("- x", "objects[0] is no object"),
            (&many, "more than 512 secrets"),
            (&format!("- {{secret: a, fields: all, prefix: {long}}}"), "longer than 4096 bytes"),
            (&aliased, "too many values"),
            ("a: b", "no list"),
            ("- [", "no YAML"),
        ] {
            let said = of(objects).unwrap_err().to_string();
            assert!(said.contains(part), "{objects}: {said}");
        }
        let said = Personality::Lastkey.plan(&BTreeMap::new(), 0o644).unwrap_err().to_string();
        assert!(said.contains("`objects`"), "{said}");
    }

    #[test]
    fn unknown_names_are_noted_and_do_no_harm() {
        let plan = of("- {secret: a, optinal: true}").unwrap();
        assert!(plan.ignored.contains("optinal"));
    }
}
