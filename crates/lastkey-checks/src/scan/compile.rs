//! Compiled expressions, and how far around a keyword one has to be tried.
//!
//! Room      `checks`, inside `scan`.
//! Holds     An expression that is tried only near its keywords finds there all that it would
//!           find in the whole text, up to matches of [`LONGEST_MATCH`] bytes.

use regex_automata::{meta::Regex, util::syntax};
use regex_syntax::hir::{Capture, Class, ClassUnicodeRange, Hir, HirKind};

/// Longest match that is found whole, in bytes.
pub(super) const LONGEST_MATCH: usize = 16 << 10;

/// Memory of one compiled expression, in bytes.
const SIZE_LIMIT: usize = 8 << 20;

/// A compiled expression of a rule.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) regex: Regex,
    /// How far a match may reach from any keyword in it, in bytes; none: anywhere.
    pub(super) reach: Option<usize>,
    /// Each match begins with a keyword.
    pub(super) begins_with_keyword: bool,
}

impl Pattern {
    /// Whether trying it around its keywords is enough.
    #[cfg(test)]
    pub(super) const fn is_local(&self) -> bool {
        self.reach.is_some()
    }
}

/// Compiles the expression of a rule.
pub(super) fn pattern(regex: &str, keywords: &[String]) -> Result<Pattern, String> {
    let hir = parse(regex)?;
    let is_near = !keywords.is_empty() && must_contain(&hir, keywords);
    let longest = hir.properties().maximum_len().unwrap_or(LONGEST_MATCH).min(LONGEST_MATCH);
    let begins_with_keyword = is_near && begins_with(&hir, keywords);
    Ok(Pattern { regex: build(&hir)?, reach: is_near.then_some(longest), begins_with_keyword })
}

/// Compiles any other expression.
pub(super) fn regex(regex: &str) -> Result<Regex, String> {
    build(&parse(regex)?)
}

/// How many groups an expression has.
pub(super) fn group_count(regex: &str) -> Result<usize, String> {
    parse(regex).map(|hir| hir.properties().explicit_captures_len())
}

/// Bytes, not characters: `\w`, `\b` and `(?i)` are ASCII, as in the tools that rules come from.
fn parse(regex: &str) -> Result<Hir, String> {
    let config = syntax::Config::new().unicode(false).utf8(false);
    let parsed = syntax::parse_with(regex, &config).map_err(|error| reason(&error.to_string()));
    parsed.or_else(|fault| syntax::parse_with(&literal_braces(regex), &config).map_err(|_| fault))
}

/// What a fault is, in one line: the parser draws a picture of the expression above it.
fn reason(picture: &str) -> String {
    let last = picture.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// RE2 takes a brace that begins no count for itself; here it has to be escaped.
fn literal_braces(regex: &str) -> String {
    let mut out = String::with_capacity(regex.len() + 16);
    let mut rest = regex.chars();
    while let Some(letter) = rest.next() {
        if letter == '{' && !begins_count(rest.as_str()) {
            out.push('\\');
        }
        out.push(letter);
        if letter == '\\' {
            let escaped = rest.next();
            out.extend(escaped);
            // `\x{..}` and `\p{..}` keep their brace.
            if matches!(escaped, Some('x' | 'p' | 'P')) && rest.as_str().starts_with('{') {
                out.extend(rest.next());
            }
        }
    }
    out
}

fn begins_count(rest: &str) -> bool {
    rest.split_once('}').is_some_and(|(count, _)| {
        let (least, most) = count.split_once(',').unwrap_or((count, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        !least.is_empty() && is_number(least) && is_number(most)
    })
}

fn build(hir: &Hir) -> Result<Regex, String> {
    let config = Regex::config()
        .utf8_empty(false)
        .nfa_size_limit(Some(SIZE_LIMIT))
        .hybrid_cache_capacity(1 << 20);
    let built = Regex::builder().configure(config).build_from_hir(hir);
    built.map_err(|error| error.to_string())
}

/// Whether each match has one of the keywords (lower case) in it, in any case of letters.
fn must_contain(hir: &Hir, keywords: &[String]) -> bool {
    let mut runs = Runs::default();
    flatten(hir, keywords, &mut runs);
    runs.end();
    runs.certain || runs.done.iter().any(|run| each_contains(run, keywords))
}

/// Whether each match begins with one of the keywords (lower case), in any case of letters.
fn begins_with(hir: &Hir, keywords: &[String]) -> bool {
    let mut runs = Runs::default();
    flatten(hir, keywords, &mut runs);
    runs.end();
    let begins = |text: &Vec<u8>| keywords.iter().any(|word| text.starts_with(word.as_bytes()));
    runs.done.first().is_some_and(|texts| !texts.is_empty() && texts.iter().all(begins))
}

fn each_contains(texts: &[Vec<u8>], keywords: &[String]) -> bool {
    let contains = |text: &Vec<u8>| {
        keywords.iter().any(|word| memchr::memmem::find(text, word.as_bytes()).is_some())
    };
    !texts.is_empty() && texts.iter().all(contains)
}

/// Stretches of a concatenation that can spell only a few texts, each with all of them.
#[derive(Default)]
struct Runs {
    done: Vec<Vec<Vec<u8>>>,
    current: Vec<Vec<u8>>,
    /// Some part contains a keyword in each of its ways.
    certain: bool,
}

/// More ways to spell a stretch than this are not followed.
const MAX_TEXTS: usize = 128;

impl Runs {
    fn push(&mut self, texts: Vec<Vec<u8>>) {
        if self.current.is_empty() {
            self.current = texts;
            return;
        }
        if self.current.len() * texts.len() > MAX_TEXTS {
            self.end();
            self.current = texts;
            return;
        }
        self.current = self
            .current
            .iter()
            .flat_map(|head| texts.iter().map(|tail| [head.as_slice(), tail].concat()))
            .collect();
    }

    fn end(&mut self) {
        self.done.push(std::mem::take(&mut self.current));
    }
}

fn flatten(hir: &Hir, keywords: &[String], runs: &mut Runs) {
    if let Some(texts) = spellings(hir) {
        runs.push(texts);
        return;
    }
    match hir.kind() {
        HirKind::Concat(parts) => {
            for part in parts {
                flatten(part, keywords, runs);
            }
        }
        HirKind::Capture(Capture { sub, .. }) => flatten(sub, keywords, runs),
        HirKind::Alternation(ways) => {
            runs.end();
            runs.certain |= ways.iter().all(|way| must_contain(way, keywords));
        }
        HirKind::Repetition(repetition) => {
            runs.end();
            runs.certain |= repetition.min > 0 && must_contain(&repetition.sub, keywords);
        }
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => runs.end(),
    }
}

/// All texts that an expression can match, in lower case, if they are few.
fn spellings(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(vec![Vec::new()]),
        HirKind::Literal(literal) => Some(vec![literal.0.to_ascii_lowercase()]),
        HirKind::Class(class) => letters(class),
        HirKind::Capture(Capture { sub, .. }) => spellings(sub),
        HirKind::Repetition(repetition) => match (repetition.min, repetition.max) {
            (1, Some(1)) => spellings(&repetition.sub),
            (0, Some(1)) => {
                let mut texts = spellings(&repetition.sub)?;
                texts.push(Vec::new());
                Some(texts)
            }
            _ => None,
        },
        HirKind::Concat(parts) => {
            let mut texts = vec![Vec::new()];
            for part in parts {
                let tails = spellings(part)?;
                if texts.len() * tails.len() > MAX_TEXTS {
                    return None;
                }
                let joined = |head: &Vec<u8>| -> Vec<Vec<u8>> {
                    tails.iter().map(|tail| [head.as_slice(), tail].concat()).collect()
                };
                texts = texts.iter().flat_map(joined).collect();
            }
            Some(texts)
        }
        HirKind::Alternation(ways) => {
            let mut texts = Vec::new();
            for way in ways {
                texts.extend(spellings(way)?);
            }
            (texts.len() <= MAX_TEXTS).then_some(texts)
        }
    }
}

fn letters(class: &Class) -> Option<Vec<Vec<u8>>> {
    /// More letters than this at one place are not followed.
    const FEW: usize = 12;
    let ranges: Vec<(u8, u8)> = match class {
        Class::Bytes(class) => class.iter().map(|range| (range.start(), range.end())).collect(),
        Class::Unicode(class) => {
            let narrow = |letter: char| u8::try_from(letter).ok().filter(u8::is_ascii);
            let range =
                |range: &ClassUnicodeRange| Some((narrow(range.start())?, narrow(range.end())?));
            class.iter().map(range).collect::<Option<_>>()?
        }
    };
    let mut letters = Vec::new();
    for (first, last) in ranges {
        if usize::from(last - first) >= FEW {
            return None;
        }
        letters.extend((first..=last).map(|byte| byte.to_ascii_lowercase()));
    }
    letters.sort_unstable();
    letters.dedup();
    (letters.len() <= FEW).then(|| letters.into_iter().map(|letter| vec![letter]).collect())
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_MATCH, pattern};

    fn reach(regex: &str, keywords: &[&str]) -> Option<usize> {
        let keywords: Vec<String> = keywords.iter().map(|word| (*word).to_owned()).collect();
        pattern(regex, &keywords).unwrap().reach
    }

    #[test]
    fn expression_that_spells_its_keyword_is_local() {
        assert_eq!(reach("ghp_[0-9]{4}", &["ghp_"]), Some(8));
        assert_eq!(reach("(?i)AbC[0-9]", &["abc"]), Some(4));
        assert_eq!(reach("x{0,3}(?:passw(?:or)?d|pwd)=", &["passwd", "password", "pwd"]), Some(12));
        assert_eq!(reach("(?:token|(?:[Aa]pi|API)key)", &["token", "api"]), Some(6));
        assert_eq!(reach("(?:abc[0-9]+|xabc)", &["abc"]), Some(LONGEST_MATCH));
    }

    #[test]
    fn expression_that_begins_with_its_keyword_is_known() {
        let begins = |regex: &str, keywords: &[&str]| {
            let keywords: Vec<String> = keywords.iter().map(|word| (*word).to_owned()).collect();
            pattern(regex, &keywords).unwrap().begins_with_keyword
        };
        for (regex, keywords) in [
            (r"\b(ghp_[0-9]{4})", &["ghp_"][..]),
            ("(?i:Server|Host)=x", &["server", "host"]),
            ("(?i)pat[a-z]{14}", &["pat"]),
        ] {
            assert!(begins(regex, keywords), "{regex}");
        }
        for (regex, keywords) in [
            ("x?ghp_[0-9]{4}", &["ghp_"][..]),
            ("[a-z]*ghp_", &["ghp_"]),
            ("(?:server|[a-z]+)=", &["server"]),
            ("(?:server)?host", &["host"]),
            ("server|host", &["server"]),
        ] {
            assert!(!begins(regex, keywords), "{regex}");
        }
    }

    #[test]
    fn braces_that_count_nothing_are_letters_as_in_re2() {
        for (regex, text) in [("{{[^}]+}}", "{{x}}"), (r"\$\{a{2}\x{41}{b", "${aaA{b")] {
            assert!(super::regex(regex).unwrap().is_match(text), "{regex}");
        }
        assert!(super::regex("a{2,1}").is_err());
    }

    #[test]
    fn expression_that_may_lack_its_keyword_is_tried_everywhere() {
        assert_eq!(reach("pat[0-9]{4}", &["airtable"]), None);
        assert_eq!(reach("(?:abc|xyz)1", &["abc"]), None);
        assert_eq!(reach("(?:abc)?1", &["abc"]), None);
        assert_eq!(reach("abc", &[]), None);
    }
}
