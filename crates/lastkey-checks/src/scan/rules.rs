//! Rules: what to look for, and what looks like it but is none.
//!
//! Room      `checks`, inside `scan`. The built-in rules lie in `builtin/*.toml`, in the same
//!           form as imported ones.
//! Source    the configuration file of gitleaks 8 (MIT): its fields mean here what they mean
//!           there; ours on top are `severity`, `check`, `near`, `value` and `fix`.
//! Holds     A rule set in which a rule does not compile is not a rule set: it is refused.

use std::sync::OnceLock;

use regex_automata::meta::Regex;

use super::{
    compile::{self, Pattern},
    structure::Check,
    toml_rules,
};
use crate::finding::{Mapping, Severity};
use crate::report::RuleInfo;

/// Why a file of rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is no TOML, or has another shape.
    #[error("the rules cannot be read: {0}")]
    Toml(String),
    /// A rule lacks something.
    #[error("rule `{rule}`: {fault}")]
    Rule {
        /// Its id, or its place in the file.
        rule: String,
        /// What is wrong.
        fault: String,
    },
    /// A regular expression does not compile.
    #[error("rule `{rule}`: {what} does not compile: {fault}")]
    Regex {
        /// Its id; `allowlist` for a global one.
        rule: String,
        /// Which of its expressions.
        what: &'static str,
        /// What the compiler says.
        fault: String,
    },
    /// The file extends another one that cannot be had.
    #[error("`extend`: {0}")]
    Extend(String),
}

/// A set of rules, in order.
#[derive(Debug)]
pub struct Rules {
    pub(super) rules: Vec<Rule>,
    /// For all rules, or for those that they name.
    pub(super) allowlists: Vec<Allowlist>,
    /// Parts of an imported file that are not applied, each with why.
    pub(super) ignored: Vec<String>,
}

/// What one rule looks for.
#[derive(Debug)]
pub struct Rule {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) severity: Severity,
    pub(super) fix: Option<String>,
    /// None: the rule is about paths alone, or about assignments.
    pub(super) regex: Option<String>,
    pub(super) compiled: OnceLock<Option<Pattern>>,
    pub(super) path: Option<Regex>,
    /// 0: the first group that took part, or else the whole match.
    pub(super) secret_group: usize,
    /// Shannon entropy that a secret must exceed, in bits a character; 0 asks for none.
    pub(super) min_entropy: f64,
    /// In lower case; one of them is in the text that the rule is tried on.
    pub(super) keywords: Vec<String>,
    pub(super) allowlists: Vec<Allowlist>,
    pub(super) check: Option<Check>,
    /// Looks at names and values of assignments, not by its own expression.
    pub(super) assignment: Option<Assignment>,
    /// Gives way to any other rule at the same place.
    pub(super) is_generic: bool,
    /// Placeholders such as `your-key-here` are none of its findings.
    pub(super) drops_placeholders: bool,
}

/// Which values of which names the scanner for assignments reports under a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assignment {
    /// Passwords and passphrases.
    Password,
    /// Tokens, keys and other secrets that machines make.
    Secret,
}

/// What is none, though a rule matches.
#[derive(Debug, Default)]
pub struct Allowlist {
    /// Rules that it is for; empty: all.
    pub(super) target_rules: Vec<String>,
    /// All conditions must hold, not any of them.
    pub(super) needs_all: bool,
    pub(super) paths: Vec<Regex>,
    pub(super) regexes: Vec<Regex>,
    pub(super) target: Target,
    /// In lower case.
    pub(super) stopwords: Vec<String>,
    /// Ids of commits, in lower case.
    pub(super) commits: Vec<String>,
}

/// What the expressions of an allowlist look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Target {
    /// The secret.
    #[default]
    Secret,
    /// The whole match.
    Match,
    /// The line on which the match begins.
    Line,
}

/// One candidate, as allowlists see it.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'h> {
    pub(super) path: &'h str,
    pub(super) commit: Option<&'h str>,
    pub(super) secret: &'h [u8],
    pub(super) matched: &'h [u8],
    pub(super) line: &'h [u8],
}

impl Rules {
    /// Our own rules.
    ///
    /// # Errors
    /// Never with the files that are built in: a test compiles all of them.
    pub fn builtin() -> Result<Self, RulesError> {
        let mut rules = Self { rules: Vec::new(), allowlists: Vec::new(), ignored: Vec::new() };
        for text in BUILTIN {
            rules.add(toml_rules::parse(text, toml_rules::Origin::Ours)?);
        }
        Ok(rules)
    }

    /// Rules of a file in the form of gitleaks. `read` gives the text of a file that it extends.
    ///
    /// With `useDefault = true` in `[extend]` the built-in rules stay; otherwise the file
    /// replaces them, as it does there.
    ///
    /// # Errors
    /// [`RulesError`]; every expression is compiled here, so none fails later.
    pub fn import(
        text: &str,
        read: &mut dyn FnMut(&str) -> Result<String, String>,
    ) -> Result<Self, RulesError> {
        let rules = Self::import_nested(text, read, 0)?;
        for rule in &rules.rules {
            rule.compile()?;
        }
        Ok(rules)
    }

    fn import_nested(
        text: &str,
        read: &mut dyn FnMut(&str) -> Result<String, String>,
        depth: usize,
    ) -> Result<Self, RulesError> {
        /// As gitleaks: more is taken for a circle.
        const MAX_DEPTH: usize = 2;
        let file = toml_rules::parse(text, toml_rules::Origin::Foreign)?;
        let extend = &file.extend;
        if extend.use_default && extend.path.is_some() {
            return Err(RulesError::Extend("`path` and `useDefault` exclude each other".into()));
        }
        if extend.url.is_some() {
            return Err(RulesError::Extend(
                "`url` is not fetched: no scan uses the network".into(),
            ));
        }
        let mut base = match &extend.path {
            Some(_) if depth >= MAX_DEPTH => {
                return Err(RulesError::Extend("too many files extend each other".into()));
            }
            Some(path) => {
                let text =
                    read(path).map_err(|why| RulesError::Extend(format!("{path}: {why}")))?;
                Self::import_nested(&text, read, depth + 1)?
            }
            None if extend.use_default => Self::builtin()?,
            None => Self { rules: Vec::new(), allowlists: Vec::new(), ignored: Vec::new() },
        };
        base.rules.retain(|rule| !extend.disabled_rules.contains(&rule.id));
        base.add(file);
        Ok(base)
    }

    /// How many rules there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What of an imported file is not applied: one sentence each.
    #[must_use]
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The rules as reports explain them.
    #[must_use]
    pub fn infos(&self) -> Vec<RuleInfo> {
        self.rules.iter().map(Rule::info).collect()
    }

    /// Whether no rule looks into this file.
    #[must_use]
    pub fn skips(&self, path: &str) -> bool {
        self.allowlists.iter().any(|list| list.excludes_file(path))
    }

    fn add(&mut self, file: toml_rules::RulesFile) {
        for rule in file.rules {
            match self.rules.iter_mut().find(|known| known.id == rule.id) {
                Some(known) => known.extend_by(rule),
                None => self.rules.push(rule),
            }
        }
        self.allowlists.extend(file.allowlists);
        self.ignored.extend(file.ignored);
    }
}

/// The files of our own rules.
const BUILTIN: [&str; 6] = [
    include_str!("builtin/allowlist.toml"),
    include_str!("builtin/cloud.toml"),
    include_str!("builtin/china.toml"),
    include_str!("builtin/code.toml"),
    include_str!("builtin/services.toml"),
    include_str!("builtin/generic.toml"),
];

const WHY: &str = "whoever can read this place, or a copy of it, can use the credential; removing \
                   it later does not take it out of history and backups";

impl Rule {
    fn info(&self) -> RuleInfo {
        RuleInfo {
            id: self.id.clone(),
            title: self.title.clone(),
            severity: self.severity,
            why: WHY.to_owned(),
            fix: self.fix(),
            mappings: self.mappings(),
        }
    }

    pub(super) fn why() -> String {
        WHY.to_owned()
    }

    pub(super) fn fix(&self) -> String {
        let revoke = "revoke it where it was issued and make a new one";
        let first = self.fix.as_deref().unwrap_or(revoke);
        format!("{first}; then let the program read it from a secret store, not from this file")
    }

    #[expect(clippy::unused_self, reason = "rules may get lists of their own; callers stay")]
    pub(super) fn mappings(&self) -> Vec<Mapping> {
        vec![Mapping::new("CWE", "798")]
    }

    /// Its compiled expression; none when it has none.
    pub(super) fn pattern(&self) -> Option<&Pattern> {
        let compiled = self.compiled.get_or_init(|| self.compile().ok().flatten());
        compiled.as_ref()
    }

    pub(super) fn compile(&self) -> Result<Option<Pattern>, RulesError> {
        let Some(regex) = &self.regex else { return Ok(None) };
        compile::pattern(regex, &self.keywords).map(Some).map_err(|fault| RulesError::Regex {
            rule: self.id.clone(),
            what: "regex",
            fault,
        })
    }

    /// A rule of the same id in a file that extends: what it says wins, lists are joined.
    fn extend_by(&mut self, other: Self) {
        if !other.title.is_empty() {
            self.title = other.title;
        }
        if other.regex.is_some() {
            self.regex = other.regex;
            self.compiled = OnceLock::new();
            self.secret_group = other.secret_group;
        }
        if other.min_entropy > 0.0 {
            self.min_entropy = other.min_entropy;
        }
        if other.path.is_some() {
            self.path = other.path;
        }
        self.keywords.extend(other.keywords);
        self.allowlists.extend(other.allowlists);
    }

    /// Whether the path of a file lets the rule look at it.
    pub(super) fn wants(&self, path: &str) -> bool {
        self.path.as_ref().is_none_or(|regex| regex.is_match(path))
    }
}

impl Allowlist {
    /// Whether it takes a file out of the whole scan: a global list of paths.
    fn excludes_file(&self, path: &str) -> bool {
        let needs_more = self.needs_all && !(self.regexes.is_empty() && self.stopwords.is_empty());
        self.target_rules.is_empty() && !needs_more && self.has_path(path)
    }

    pub(super) fn has_path(&self, path: &str) -> bool {
        self.paths.iter().any(|regex| regex.is_match(path))
    }

    /// Whether a candidate is none.
    pub(super) fn excuses(&self, rule: &str, candidate: &Candidate<'_>) -> bool {
        if !self.target_rules.is_empty() && !self.target_rules.iter().any(|id| id == rule) {
            return false;
        }
        let target = match self.target {
            Target::Secret => candidate.secret,
            Target::Match => candidate.matched,
            Target::Line => candidate.line,
        };
        let commit = candidate.commit.map(str::to_ascii_lowercase);
        let conditions = [
            (!self.commits.is_empty())
                .then(|| commit.is_some_and(|commit| self.commits.contains(&commit))),
            (!self.paths.is_empty()).then(|| self.has_path(candidate.path)),
            (!self.regexes.is_empty())
                .then(|| self.regexes.iter().any(|regex| regex.is_match(target))),
            (!self.stopwords.is_empty()).then(|| self.has_stopword(candidate.secret)),
        ];
        let mut held = conditions.into_iter().flatten().peekable();
        if self.needs_all {
            held.peek().is_some() && held.all(|holds| holds)
        } else {
            held.any(|holds| holds)
        }
    }

    fn has_stopword(&self, secret: &[u8]) -> bool {
        let lower = secret.to_ascii_lowercase();
        self.stopwords.iter().any(|word| memchr::memmem::find(&lower, word.as_bytes()).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Rules, RulesError};

    fn import(text: &str) -> Result<Rules, RulesError> {
        Rules::import(text, &mut |path| Err(format!("no {path}")))
    }

    #[test]
    fn builtin_rules_compile_and_have_keywords() {
        let rules = Rules::builtin().unwrap();
        let mut ids = BTreeSet::new();
        let mut far = Vec::new();
        for rule in &rules.rules {
            rule.compile().unwrap();
            assert!(ids.insert(&rule.id), "{} stands twice", rule.id);
            assert!(!rule.title.is_empty(), "{}", rule.id);
            let is_near = rule.regex.is_none() || rule.pattern().unwrap().is_local();
            far.extend((!is_near).then_some(&rule.id));
        }
        assert!(far.is_empty(), "a match may lie far from each keyword: {far:?}");
        assert!(rules.len() >= 150, "{}", rules.len());
        assert!(rules.ignored().is_empty(), "{:?}", rules.ignored());
    }

    #[test]
    fn import_replaces_the_builtin_rules_unless_it_extends_them() {
        let rule = "[[rules]]\nid = 'a'\nregex = 'abc[0-9]{3}'\nkeywords = ['abc']\n";
        assert_eq!(import(rule).unwrap().len(), 1);
        let builtin = Rules::builtin().unwrap();
        let first = builtin.rules[0].id.clone();
        let extended = format!("[extend]\nuseDefault = true\ndisabledRules = ['{first}']\n{rule}");
        assert_eq!(import(&extended).unwrap().len(), builtin.len());
    }

    #[test]
    fn import_reads_the_file_that_is_extended() {
        let base = "[[rules]]\nid = 'base'\nregex = 'x1'\nkeywords = ['x1']\n";
        let text = "[extend]\npath = 'base.toml'\n[[rules]]\nid = 'base'\nentropy = 3.0\n";
        let rules = Rules::import(text, &mut |path| {
            assert_eq!(path, "base.toml");
            Ok(base.to_owned())
        });
        let rules = rules.unwrap();
        assert_eq!(rules.len(), 1);
        assert!(rules.rules[0].min_entropy > 2.9);
        assert!(rules.rules[0].regex.is_some());
    }

    #[test]
    fn import_refuses_what_it_cannot_apply() {
        for (text, part) in [
            (
                "[[rules]]\nid = 'a'\nregex = '('",
                "rule `a`: regex does not compile: unclosed group",
            ),
            ("[[rules]]\nregex = 'a'", "rule `1`"),
            ("[[rules]]\nid = 'a'", "neither"),
            ("[[rules]]\nid = 'a'\nregex = 'a'\nsecretGroup = 2", "secretGroup"),
            ("[extend]\nurl = 'https://x'", "network"),
            ("[extend]\npath = 'gone.toml'", "gone.toml: no gone.toml"),
            ("[extend]\npath = 'x'\nuseDefault = true", "exclude each other"),
            ("rules = 3", "cannot be read"),
            ("[[rules]]\nid='a'\nregex='a'\n[[rules.allowlists]]\nregexes=['[']", "allowlist"),
            ("[allowlist]\npaths=['*']", "allowlist"),
        ] {
            let error = import(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn import_says_what_it_does_not_apply() {
        let text = "[[rules]]\nid = 'a'\nregex = 'a'\nfilter = 'x > 3'\n";
        let rules = import(text).unwrap();
        assert_eq!(rules.ignored().len(), 1);
        assert!(rules.ignored()[0].contains("rule `a`"), "{:?}", rules.ignored());
    }
}
