//! Rules as TOML.
//!
//! Room      `checks`, inside `scan`.
//! Source    the configuration file of gitleaks 8: `[extend]`, `[[rules]]`, `[[rules.allowlists]]`,
//!           `[[allowlists]]`, and their older forms `[allowlist]` and `[rules.allowlist]`.
//! Holds     A field that is not known is named to the caller, not passed over in silence.

use std::{collections::BTreeMap, sync::OnceLock};

use regex_automata::meta::Regex;
use serde::Deserialize;

use super::{
    compile,
    rules::{Allowlist, Assignment, Rule, RulesError, Target},
    structure::Check,
};
use crate::finding::Severity;

/// Whose rules a file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Ours,
    /// They mean what they mean where they come from: no filters of ours on top.
    Foreign,
}

/// A file, understood.
pub(super) struct RulesFile {
    pub(super) extend: Extend,
    pub(super) rules: Vec<Rule>,
    pub(super) allowlists: Vec<Allowlist>,
    pub(super) ignored: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    extend: Extend,
    #[serde(default)]
    rules: Vec<RuleEntry>,
    #[serde(default)]
    allowlists: Vec<AllowlistEntry>,
    allowlist: Option<AllowlistEntry>,
}

/// What a file stands on.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Extend {
    #[serde(default)]
    pub(super) use_default: bool,
    pub(super) path: Option<String>,
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) disabled_rules: Vec<String>,
}

#[derive(Deserialize)]
struct RuleEntry {
    id: Option<String>,
    #[serde(default)]
    description: String,
    regex: Option<String>,
    path: Option<String>,
    #[serde(default, rename = "secretGroup")]
    secret_group: usize,
    #[serde(default)]
    entropy: f64,
    #[serde(default)]
    keywords: Vec<String>,
    #[serde(default)]
    allowlists: Vec<AllowlistEntry>,
    allowlist: Option<AllowlistEntry>,
    severity: Option<Severity>,
    fix: Option<String>,
    check: Option<Check>,
    /// Words near which a `value` is assigned to a secret name.
    #[serde(default)]
    near: Vec<String>,
    /// What the name itself may be, as an expression; any secret name when it is left out.
    name: Option<String>,
    /// The value, as an expression without groups.
    value: Option<String>,
    assignment: Option<String>,
    #[serde(default)]
    generic: bool,
    #[serde(flatten)]
    others: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AllowlistEntry {
    #[serde(default)]
    target_rules: Vec<String>,
    #[serde(default)]
    condition: String,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    regexes: Vec<String>,
    #[serde(default)]
    regex_target: String,
    #[serde(default)]
    stopwords: Vec<String>,
    #[serde(default)]
    commits: Vec<String>,
}

/// Fields that say something to people only.
const WITHOUT_EFFECT: [&str; 2] = ["tags", "skipReport"];

/// Reads a file of rules. The expressions of rules are not compiled yet, those of allowlists are.
pub(super) fn parse(text: &str, origin: Origin) -> Result<RulesFile, RulesError> {
    let file: File = toml::from_str(text).map_err(|error| RulesError::Toml(error.to_string()))?;
    let mut ignored = Vec::new();
    let mut rules = Vec::with_capacity(file.rules.len());
    let extends = file.extend.use_default || file.extend.path.is_some();
    for (number, entry) in (1..).zip(file.rules) {
        let id = entry.id.clone().ok_or_else(|| RulesError::Rule {
            rule: format!("{number}"),
            fault: "it has no `id`".to_owned(),
        })?;
        for field in entry.others.keys().filter(|field| !WITHOUT_EFFECT.contains(&field.as_str())) {
            ignored.push(format!("rule `{id}`: the field `{field}` is not known here"));
        }
        rules.push(rule(id, entry, origin, extends)?);
    }
    let global = file.allowlists.into_iter().chain(file.allowlist);
    let allowlists = global.map(|entry| allowlist("allowlist", entry)).collect::<Result<_, _>>()?;
    Ok(RulesFile { extend: file.extend, rules, allowlists, ignored })
}

fn rule(id: String, entry: RuleEntry, origin: Origin, extends: bool) -> Result<Rule, RulesError> {
    let refused = |fault: &str| RulesError::Rule { rule: id.clone(), fault: fault.to_owned() };
    let assignment = match entry.assignment.as_deref() {
        None => None,
        Some("password") => Some(Assignment::Password),
        Some("secret") => Some(Assignment::Secret),
        Some(_) => return Err(refused("`assignment` is `password` or `secret`")),
    };
    let path = entry.path.as_deref().map(|regex| compiled(&id, "path", regex)).transpose()?;
    let from_value = entry.value.map(|value| near(&entry.near, entry.name.as_deref(), &value));
    let regex = entry.regex.or(from_value);
    if regex.is_none() && path.is_none() && assignment.is_none() && !extends {
        return Err(refused("it has neither `regex` nor `path`"));
    }
    if let Some(regex) = &regex {
        check_group(&id, regex, entry.secret_group)?;
    }
    let keywords = entry.keywords.into_iter().chain(entry.near);
    let lists = entry.allowlists.into_iter().chain(entry.allowlist);
    Ok(Rule {
        title: entry.description,
        severity: entry.severity.unwrap_or(Severity::High),
        fix: entry.fix,
        regex,
        compiled: OnceLock::new(),
        path,
        secret_group: entry.secret_group,
        min_entropy: entry.entropy,
        keywords: keywords.map(|word| word.to_ascii_lowercase()).collect(),
        allowlists: lists.map(|entry| allowlist(&id, entry)).collect::<Result<_, _>>()?,
        check: entry.check,
        assignment,
        is_generic: entry.generic || id.starts_with("generic-"),
        drops_placeholders: origin == Origin::Ours,
        id,
    })
}

/// The expression for a value that is assigned to a secret name near one of some words.
fn near(words: &[String], name: Option<&str>, value: &str) -> String {
    const NAMES: &str = r"(?:key|token|secret|passw(?:or)?d|pwd|auth|credential|sk)";
    let words: Vec<String> = words.iter().map(|word| regex_syntax::escape(word)).collect();
    let words = words.join("|");
    let name = name.unwrap_or(NAMES);
    format!(
        r#"(?i:{words})(?s-u:.{{0,120}}?)(?i:{name})(?-u:[\w.\-]{{0,24}}["'\]\)]{{0,2}}[ \t]{{0,8}}(?:=>|:=|={{1,2}}|:|>|,|\()[ \t]{{0,8}}["'`(]{{0,2}})({value})(?-u:[^\w+/=\-]|\z)"#
    )
}

fn check_group(id: &str, regex: &str, group: usize) -> Result<(), RulesError> {
    let groups = compile::group_count(regex).map_err(|fault| RulesError::Regex {
        rule: id.to_owned(),
        what: "regex",
        fault,
    })?;
    if group > groups {
        let fault = format!("`secretGroup` is {group}, the expression has {groups} groups");
        return Err(RulesError::Rule { rule: id.to_owned(), fault });
    }
    Ok(())
}

fn allowlist(rule: &str, entry: AllowlistEntry) -> Result<Allowlist, RulesError> {
    let all = |what, list: Vec<String>| -> Result<Vec<Regex>, RulesError> {
        list.iter().map(|regex| compiled(rule, what, regex)).collect()
    };
    let refused = |fault: &str| RulesError::Rule { rule: rule.to_owned(), fault: fault.to_owned() };
    let needs_all = match entry.condition.to_ascii_uppercase().as_str() {
        "" | "OR" | "||" => false,
        "AND" | "&&" => true,
        _ => return Err(refused("`condition` of an allowlist is `OR` or `AND`")),
    };
    let target = match entry.regex_target.as_str() {
        "" | "secret" => Target::Secret,
        "match" => Target::Match,
        "line" => Target::Line,
        _ => return Err(refused("`regexTarget` is `secret`, `match` or `line`")),
    };
    let lower = |list: Vec<String>| list.iter().map(|text| text.to_ascii_lowercase()).collect();
    Ok(Allowlist {
        target_rules: entry.target_rules,
        needs_all,
        paths: all("a path of an allowlist", entry.paths)?,
        regexes: all("an expression of an allowlist", entry.regexes)?,
        target,
        stopwords: lower(entry.stopwords),
        commits: lower(entry.commits),
    })
}

fn compiled(rule: &str, what: &'static str, regex: &str) -> Result<Regex, RulesError> {
    let refused = |fault| RulesError::Regex { rule: rule.to_owned(), what, fault };
    compile::regex(regex).map_err(refused)
}
