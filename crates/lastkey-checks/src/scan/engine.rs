//! The three stages: keywords, expressions around them, and what a secret must be beyond that.
//!
//! Room      `checks`, inside `scan`.
//! Holds     A rule is tried where one of its keywords stands and nowhere else; text without
//!           keywords costs one step of an automaton a byte.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex_automata::{Anchored, Input, meta::Regex, util::captures::Captures};

use super::{
    assignment::{self, WORDS},
    compile::LONGEST_MATCH,
    entropy::shannon,
    placeholder::is_placeholder,
    rules::{Assignment, Candidate, Rule, Rules, RulesError},
};

/// A text in memory, and which part of it is ours to report.
#[derive(Clone, Copy)]
pub(super) struct View<'h> {
    pub(super) text: &'h [u8],
    /// Secrets that begin from here on...
    pub(super) from: usize,
    /// ...and before here.
    pub(super) to: usize,
    pub(super) path: &'h str,
    pub(super) commit: Option<&'h str>,
}

/// A secret: where it lies in the text, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) rule: usize,
    pub(super) span: Range<usize>,
}

/// Rules, ready to be applied by many threads.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) rules: Rules,
    automaton: AhoCorasick,
    /// What each keyword of the automaton is for.
    targets: Vec<Vec<Target>>,
    /// Rules that are tried on every text.
    without_keywords: Vec<usize>,
    password_rule: Option<usize>,
    secret_rule: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Rule(usize),
    Assignment,
}

/// Memory that one thread uses again and again.
#[derive(Default)]
pub(super) struct Scratch {
    /// For each rule where it is still to be tried.
    pending: Vec<Option<Range<usize>>>,
    touched: Vec<usize>,
    /// For each rule whose matches begin with a keyword, where its last one ended.
    ended: Vec<usize>,
}

impl Engine {
    /// Joins the keywords of all rules.
    pub(super) fn new(rules: Rules) -> Result<Self, RulesError> {
        let mut words: Vec<String> = Vec::new();
        let mut targets: Vec<Vec<Target>> = Vec::new();
        let mut add = |word: &str, target| match words.iter().position(|known| known == word) {
            Some(at) => targets.get_mut(at).into_iter().for_each(|list| list.push(target)),
            None => {
                words.push(word.to_owned());
                targets.push(vec![target]);
            }
        };
        for (index, rule) in rules.rules.iter().enumerate() {
            for word in &rule.keywords {
                add(word, Target::Rule(index));
            }
        }
        let place = |kind| rules.rules.iter().position(|rule| rule.assignment == Some(kind));
        let (password_rule, secret_rule) = (place(Assignment::Password), place(Assignment::Secret));
        if password_rule.is_some() || secret_rule.is_some() {
            WORDS.iter().for_each(|word| add(word, Target::Assignment));
        }
        let is_unkeyed = |rule: &Rule| rule.keywords.is_empty() && rule.regex.is_some();
        let without_keywords = (0..)
            .zip(&rules.rules)
            .filter(|(_, rule)| is_unkeyed(rule))
            .map(|(at, _)| at)
            .collect();
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&words)
            .map_err(|error| RulesError::Toml(format!("too many keywords: {error}")))?;
        Ok(Self { rules, automaton, targets, without_keywords, password_rule, secret_rule })
    }

    /// The secrets in a text, in order of their beginning.
    pub(super) fn search(&self, view: &View<'_>, scratch: &mut Scratch) -> Vec<Hit> {
        let mut hits = Vec::new();
        scratch.pending.resize(self.rules.rules.len(), None);
        scratch.ended.clear();
        scratch.ended.resize(self.rules.rules.len(), 0);
        for found in self.automaton.find_overlapping_iter(view.text) {
            let targets = self.targets.get(found.pattern().as_usize());
            for target in targets.into_iter().flatten() {
                match *target {
                    Target::Rule(rule) => {
                        self.keyword(rule, found.start()..found.end(), view, scratch, &mut hits);
                    }
                    Target::Assignment => {
                        self.assigned(found.start()..found.end(), view, &mut hits)
                    }
                }
            }
        }
        for rule in &self.without_keywords {
            self.try_rule(*rule, 0..view.text.len(), view, &mut hits);
        }
        for rule in std::mem::take(&mut scratch.touched) {
            if let Some(span) = scratch.pending.get_mut(rule).and_then(Option::take) {
                self.try_rule(rule, span, view, &mut hits);
            }
        }
        settle(&self.rules, hits)
    }

    /// Notes where a rule is to be tried; tries it where it was, when that is far from here.
    fn keyword(
        &self,
        index: usize,
        word: Range<usize>,
        view: &View<'_>,
        scratch: &mut Scratch,
        hits: &mut Vec<Hit>,
    ) {
        let Some(rule) = self.rules.rules.get(index) else { return };
        let Some(pattern) = rule.pattern() else { return };
        if pattern.begins_with_keyword {
            self.try_rule_at(index, word.start, view, scratch, hits);
            return;
        }
        let len = view.text.len();
        let span = match pattern.reach {
            Some(reach) => {
                // A match may reach this far in all, so this far from the word on each side.
                word.end.saturating_sub(reach)..word.start.saturating_add(reach).min(len)
            }
            None => 0..len,
        };
        let Some(slot) = scratch.pending.get_mut(index) else { return };
        match slot {
            Some(before) if span.start <= before.end => before.end = before.end.max(span.end),
            Some(before) => {
                let done = std::mem::replace(before, span);
                self.try_rule(index, done, view, hits);
            }
            None => {
                *slot = Some(span);
                scratch.touched.push(index);
            }
        }
    }

    /// Tries a rule where a keyword stands with which its matches begin.
    fn try_rule_at(
        &self,
        index: usize,
        start: usize,
        view: &View<'_>,
        scratch: &mut Scratch,
        hits: &mut Vec<Hit>,
    ) {
        let (Some(rule), Some(ended)) = (self.rules.rules.get(index), scratch.ended.get_mut(index))
        else {
            return;
        };
        let Some(pattern) = rule.pattern() else { return };
        // The last match has this keyword in it.
        if start < *ended {
            return;
        }
        let reach = pattern.reach.unwrap_or(LONGEST_MATCH);
        let span = start..start.saturating_add(reach).min(view.text.len());
        let input = Input::new(view.text).span(span).anchored(Anchored::Yes);
        let Some(found) = pattern.regex.search_half(&input) else { return };
        *ended = found.offset();
        if !rule.wants(view.path) {
            return;
        }
        let mut groups = pattern.regex.create_captures();
        pattern.regex.search_captures(&input, &mut groups);
        self.note(index, &groups, view, hits);
    }

    /// Keeps a match, if it is a secret.
    fn note(&self, index: usize, groups: &Captures, view: &View<'_>, hits: &mut Vec<Hit>) {
        let (Some(rule), Some(matched)) = (self.rules.rules.get(index), groups.get_match()) else {
            return;
        };
        let secret = rule
            .pattern()
            .and_then(|pattern| secret_span(groups, rule.secret_group, &pattern.regex));
        let secret = secret.unwrap_or_else(|| matched.range());
        if self.is_secret(rule, &secret, &matched.range(), view) {
            hits.push(Hit { rule: index, span: secret });
        }
    }

    fn try_rule(&self, index: usize, span: Range<usize>, view: &View<'_>, hits: &mut Vec<Hit>) {
        let Some(rule) = self.rules.rules.get(index) else { return };
        if !rule.wants(view.path) {
            return;
        }
        let Some(pattern) = rule.pattern() else { return };
        let input = Input::new(view.text).span(span);
        if pattern.regex.search_half(&input).is_none() {
            return;
        }
        for groups in pattern.regex.captures_iter(input) {
            self.note(index, &groups, view, hits);
        }
    }

    fn assigned(&self, word: Range<usize>, view: &View<'_>, hits: &mut Vec<Hit>) {
        let Some(found) = assignment::find(view.text, word.start, word.end) else { return };
        let index = match found.kind {
            Assignment::Password => self.password_rule,
            Assignment::Secret => self.secret_rule,
        };
        let Some((index, rule)) = index.and_then(|at| Some((at, self.rules.rules.get(at)?))) else {
            return;
        };
        let secret = found.start..found.end;
        let is_sealed = || memchr::memmem::find(view.text, b"kind: SealedSecret").is_some();
        if self.is_secret(rule, &secret, &(word.start..found.end), view) && !is_sealed() {
            hits.push(Hit { rule: index, span: secret });
        }
    }

    /// Whether what an expression found is a secret.
    fn is_secret(
        &self,
        rule: &Rule,
        secret: &Range<usize>,
        matched: &Range<usize>,
        view: &View<'_>,
    ) -> bool {
        let is_ours = (view.from..view.to).contains(&secret.start);
        let (Some(text), Some(whole), true) =
            (view.text.get(secret.clone()), view.text.get(matched.clone()), is_ours)
        else {
            return false;
        };
        if text.is_empty() || (rule.min_entropy > 0.0 && shannon(text) <= rule.min_entropy) {
            return false;
        }
        // As gitleaks: what its generic rules find has a digit.
        let is_imported = !rule.drops_placeholders;
        if rule.is_generic && is_imported && !text.iter().any(u8::is_ascii_digit) {
            return false;
        }
        if rule.drops_placeholders && rule.assignment.is_none() && is_placeholder(text) {
            let is_proven = rule.check.is_some_and(|check| check.holds(text));
            if !is_proven || !is_long(text) {
                return false;
            }
        }
        if rule.check.is_some_and(|check| !check.holds(text)) {
            return false;
        }
        let candidate = Candidate {
            path: view.path,
            commit: view.commit,
            secret: text,
            matched: whole,
            line: line_around(view.text, matched.start),
        };
        let lists = rule.allowlists.iter().chain(&self.rules.allowlists);
        !lists.into_iter().any(|list| list.excuses(&rule.id, &candidate))
    }
}

/// Long texts have everything in them by chance, what marks short ones as placeholders too.
const fn is_long(secret: &[u8]) -> bool {
    secret.len() > 200
}

/// The group that is the secret: the one that is asked for, or the first that took part.
fn secret_span(groups: &Captures, wanted: usize, regex: &Regex) -> Option<Range<usize>> {
    let span = |group: usize| groups.get_group(group).filter(|span| !span.is_empty());
    let found = if wanted > 0 { span(wanted) } else { (1..regex.captures_len()).find_map(span) };
    found.map(|span| span.range())
}

/// The line on which a place lies, as far as it is near.
pub(super) fn line_around(text: &[u8], at: usize) -> &[u8] {
    const NEAR: usize = 2_048;
    let start = at.saturating_sub(NEAR);
    let before = text.get(start..at).unwrap_or_default();
    let first = memchr::memrchr(b'\n', before).map_or(start, |found| start + found + 1);
    let after = text.get(at..text.len().min(at + NEAR)).unwrap_or_default();
    let end = memchr::memchr(b'\n', after).map_or(at + after.len(), |found| at + found);
    text.get(first..end).unwrap_or_default()
}

/// Drops what a better rule says as well: of hits that overlap the most specific one stays.
fn settle(rules: &Rules, mut hits: Vec<Hit>) -> Vec<Hit> {
    let rank = |hit: &Hit| {
        let rule = rules.rules.get(hit.rule);
        let is_generic = rule.is_some_and(|rule| rule.is_generic);
        let is_checked = rule.is_some_and(|rule| rule.check.is_some());
        (is_generic, !is_checked, usize::MAX - hit.span.len(), hit.rule)
    };
    hits.sort_by(|a, b| a.span.start.cmp(&b.span.start).then_with(|| rank(a).cmp(&rank(b))));
    let mut kept: Vec<Hit> = Vec::with_capacity(hits.len());
    for hit in hits {
        match kept.last_mut() {
            Some(last) if hit.span.start < last.span.end => {
                if rank(&hit) < rank(last) {
                    *last = hit;
                }
            }
            _ => kept.push(hit),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{Engine, Hit, Scratch, View};
    use crate::scan::Rules;

    fn engine(rules: &str) -> Engine {
        Engine::new(Rules::import(rules, &mut |_| Err(String::new())).unwrap()).unwrap()
    }

    fn search(engine: &Engine, text: &str) -> Vec<String> {
        let view = View {
            text: text.as_bytes(),
            from: 0,
            to: text.len(),
            path: "src/a.py",
            commit: Some("00aa"),
        };
        let hits = engine.search(&view, &mut Scratch::default());
        hits.iter()
            .filter_map(|Hit { span, .. }| text.get(span.clone()).map(str::to_owned))
            .collect()
    }

    const RULE: &str =
        "[[rules]]\nid = 'r'\nregex = '''\\bkey_([a-z0-9]{4})\\b'''\nkeywords = ['key_']\n";

    #[test]
    fn search_finds_every_match_near_its_keyword() {
        let engine = engine(RULE);
        let far = " ".repeat(10_000);
        let text = format!("key_ab12,key_cd34{far}KEY_ zkey_ef56 key_gh78{far}key_ij90x");
        assert_eq!(search(&engine, &text), ["ab12", "cd34", "gh78"]);
    }

    #[test]
    fn search_takes_what_lies_outside_of_the_window_for_boundaries() {
        // The window around the keyword ends within the word; `\b` must see what follows.
        let engine = engine("[[rules]]\nid='r'\nregex='''a{1,3}b\\b'''\nkeywords=['b']\n");
        assert_eq!(search(&engine, "aabc aab"), ["aab"]);
    }

    #[test]
    fn search_reports_only_its_part() {
        let engine = engine(RULE);
        let text = b"key_ab12 key_cd34 key_ef56";
        let view = View { text, from: 10, to: 20, path: "", commit: None };
        let hits = engine.search(&view, &mut Scratch::default());
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].span, 13..17);
    }

    #[test]
    fn entropy_paths_groups_and_stopwords_decide_as_in_gitleaks() {
        let base =
            "[[rules]]\nid = 'r'\nregex = '''tok_((a)?[a-z0-9]{7,8})'''\nkeywords = ['tok_']\n";
        let text = "x = tok_ab3d5f7h # note";
        assert_eq!(search(&engine(base), text), ["ab3d5f7h"]);
        assert_eq!(search(&engine(&format!("{base}secretGroup = 2\n")), text), ["a"]);
        assert_eq!(search(&engine(&format!("{base}entropy = 2.9\n")), text), ["ab3d5f7h"]);
        for excuse in [
            "entropy = 3.0\n",
            "path = '\\.go$'\n",
            "[[rules.allowlists]]\nstopwords = ['3D5F']\n",
            "[[rules.allowlists]]\npaths = ['^src/']\n",
            "[[rules.allowlists]]\nregexTarget = 'line'\nregexes = ['# note$']\n",
            "[[rules.allowlists]]\nregexTarget = 'match'\nregexes = ['^tok_']\n",
            "[[rules.allowlists]]\ncommits = ['00AA']\n",
            "[[rules.allowlists]]\ncondition = 'AND'\nregexes = ['^ab']\npaths = ['a.py$']\n",
            "[[allowlists]]\ntargetRules = ['r']\nregexes = ['^ab']\n",
            "[allowlist]\nregexes = ['^ab']\n",
        ] {
            assert!(search(&engine(&format!("{base}{excuse}")), text).is_empty(), "{excuse}");
        }
        for no_excuse in [
            "[[rules.allowlists]]\ncondition = 'AND'\nregexes = ['^ab']\npaths = ['b.py$']\n",
            "[[allowlists]]\ntargetRules = ['q']\nregexes = ['^ab']\n",
            "[[rules.allowlists]]\nregexes = ['^tok']\n",
        ] {
            assert_eq!(
                search(&engine(&format!("{base}{no_excuse}")), text).len(),
                1,
                "{no_excuse}"
            );
        }
    }

    #[test]
    fn generic_rule_gives_way_to_a_specific_one() {
        let rules = "[[rules]]\nid = 'generic-x'\nregex = '''secret=([a-z0-9]{8,})'''\nkeywords = ['secret']\n\
                     [[rules]]\nid = 'fine'\nregex = '''tok_[a-z0-9]{4}'''\nkeywords = ['tok_']\n";
        let engine = engine(&rules.replace("8,", "2,").replace("[a-z0-9]{2,}", "[a-z0-9_]{2,}"));
        let view = View { text: b"secret=tok_ab12", from: 0, to: 15, path: "", commit: None };
        let hits = engine.search(&view, &mut Scratch::default());
        assert_eq!(hits, [Hit { rule: 1, span: 7..15 }]);
    }
}
