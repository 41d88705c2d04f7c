//! YAML and JSON documents as trees in which every value knows its line.
//!
//! Room      `checks`.
//! Source    YAML 1.2.2; plain scalars are resolved as Kubernetes does it (sigs.k8s.io/yaml, which
//!           still takes `y`, `yes` and `on` for true, as tried against an API server).
//! Holds     No input makes the tree larger or deeper than [`MAX_NODES`] and [`MAX_DEPTH`]: an
//!           alias counts as often as it is used, and a long text as several values.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

/// Values that one document may hold, aliases written out.
pub const MAX_NODES: usize = 2_000_000;
/// Bytes of a text that count as one more value.
const NODE_LEN: usize = 64;
/// Levels that one document may have.
pub const MAX_DEPTH: usize = 128;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Line in the file, from 1; 0 for a value that is not there.
    pub line: u32,
    /// Column in the line, from 1; 0 for a value that is not there.
    pub column: u32,
}

/// The kinds of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`, `~`, nothing, or not there.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// Any other scalar.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file; of equal names the last one counts.
    Map(Vec<(Arc<str>, Node)>),
}

/// Stands for whatever is not there, so that paths can be followed without asking at each step.
static ABSENT: Node = Node { value: Value::Null, line: 0, column: 0 };

impl Node {
    /// The value of a name; an absent one when this is no mapping or has no such name.
    #[must_use]
    pub fn get(&self, name: &str) -> &Self {
        let Value::Map(entries) = &self.value else { return &ABSENT };
        entries.iter().rev().find(|(key, _)| &**key == name).map_or(&ABSENT, |(_, node)| node)
    }

    /// Follows names joined by dots.
    #[must_use]
    pub fn at(&self, path: &str) -> &Self {
        path.split('.').fold(self, |node, name| node.get(name))
    }

    /// The items of a sequence; nothing for anything else.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::Map(_) => &[],
        }
    }

    /// The entries of a mapping; nothing for anything else.
    #[must_use]
    pub fn entries(&self) -> &[(Arc<str>, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) => &[],
        }
    }

    /// The text of a scalar that is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The text, or nothing as empty text.
    #[must_use]
    pub fn str(&self) -> &str {
        self.text().unwrap_or_default()
    }

    /// A number.
    #[must_use]
    pub fn int(&self) -> Option<i64> {
        match &self.value {
            Value::Int(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// A truth value, if it is one.
    #[must_use]
    pub fn bool(&self) -> Option<bool> {
        match &self.value {
            Value::Bool(value) => Some(*value),
            Value::Null | Value::Int(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether this is `true`.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.bool() == Some(true)
    }

    /// Whether there is something other than null.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.value != Value::Null
    }

    /// The texts of a sequence of texts.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.items().iter().filter_map(Self::text)
    }

    /// Whether a sequence holds a text.
    #[must_use]
    pub fn has(&self, text: &str) -> bool {
        self.texts().any(|item| item == text)
    }

    /// Every scalar below, with its place.
    pub fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Self)) {
        see(self);
        self.items().iter().for_each(|item| item.visit(see));
        self.entries().iter().for_each(|(_, item)| item.visit(see));
    }
}

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SyntaxError {
    /// Line in the file, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

/// The documents of a file, each with the number of its first line, from 1. They are split
/// before they are parsed, so that a broken one does not take the others along.
pub fn documents(text: &str) -> Vec<(u32, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if is_separator(line) {
            documents.extend(text.get(start..offset).map(|document| (first_line, document)));
            (start, first_line) = (offset + line.len().min(3), number);
        }
        offset += line.len();
    }
    documents.extend(text.get(start..).map(|document| (first_line, document)));
    documents.retain(|(_, document)| document.lines().any(holds_something));
    documents
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn holds_something(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with(['#', '%']) && line != "..."
}

/// Names that were read, each kept once: the same few hundred stand in all manifests.
#[derive(Debug, Default)]
pub struct Names(HashSet<Arc<str>>);

impl Names {
    fn one(&mut self, name: &str) -> Arc<str> {
        match self.0.get(name) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = name.into();
                // Names of data are as many as there are data.
                if name.len() <= MAX_SHARED_NAME_LEN && self.0.len() < MAX_SHARED_NAMES {
                    self.0.insert(Arc::clone(&new));
                }
                new
            }
        }
    }
}

const MAX_SHARED_NAME_LEN: usize = 64;
const MAX_SHARED_NAMES: usize = 10_000;

/// Reads one document; `first_line` is where it begins in its file.
///
/// # Errors
/// [`SyntaxError`] when it is no YAML, or larger or deeper than allowed.
pub fn parse(document: &str, first_line: u32) -> Result<Node, SyntaxError> {
    parse_with(&mut Names::default(), document, first_line)
}

/// The same, with names shared among documents.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(names: &mut Names, document: &str, first_line: u32) -> Result<Node, SyntaxError> {
    build(Builder::new(names, first_line), document)
}

/// The same for a document of somebody who is not trusted with more than so many values.
///
/// # Errors
/// As [`parse`].
pub fn parse_small(document: &str, max_nodes: usize) -> Result<Node, SyntaxError> {
    let mut names = Names::default();
    build(Builder { max_nodes, ..Builder::new(&mut names, 1) }, document)
}

fn build(mut builder: Builder<'_>, document: &str) -> Result<Node, SyntaxError> {
    let first_line = builder.first_line;
    for step in Parser::new_from_str(document) {
        let (event, span) = step.map_err(|error| scan_error(&error, first_line))?;
        builder.take(event, span)?;
    }
    Ok(builder.root.unwrap_or_else(|| ABSENT.clone()))
}

fn scan_error(error: &ScanError, first_line: u32) -> SyntaxError {
    let marker = error.marker();
    SyntaxError {
        line: line_of(marker.line(), first_line),
        column: u32::try_from(marker.col() + 1).unwrap_or(u32::MAX),
        message: error.info().to_owned(),
    }
}

fn line_of(line: usize, first_line: u32) -> u32 {
    u32::try_from(line.saturating_sub(1)).unwrap_or(u32::MAX).saturating_add(first_line)
}

/// A collection that is not finished.
struct Open {
    node: Node,
    anchor: usize,
    /// Values in it, itself included.
    weight: usize,
    /// The name that waits for its value.
    name: Option<Arc<str>>,
}

struct Builder<'n> {
    names: &'n mut Names,
    first_line: u32,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    total: usize,
    max_nodes: usize,
    root: Option<Node>,
}

impl<'n> Builder<'n> {
    fn new(names: &'n mut Names, first_line: u32) -> Self {
        let (open, anchors) = (Vec::new(), HashMap::new());
        Self { names, first_line, open, anchors, total: 0, max_nodes: MAX_NODES, root: None }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, weight)) => self.place(node, weight, 0, span),
                None => Err(self.refuse(span, "an alias of something that is not finished")),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let weight = 1 + text.len() / NODE_LEN;
                let is_text = tag.is_some_and(|tag| tag.suffix == "str");
                let value = match style {
                    ScalarStyle::Plain if !is_text => plain(&text),
                    ScalarStyle::Plain
                    | ScalarStyle::SingleQuoted
                    | ScalarStyle::DoubleQuoted
                    | ScalarStyle::Literal
                    | ScalarStyle::Folded => Value::Text(text.into_owned()),
                };
                let node = self.node(value, span);
                self.place(node, weight, anchor, span)
            }
            Event::SequenceStart(anchor, _) => self.begin(Value::List(Vec::new()), anchor, span),
            Event::MappingStart(anchor, _) => self.begin(Value::Map(Vec::new()), anchor, span),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { mut node, anchor, weight, .. }) => {
                    merge(&mut node);
                    fit(&mut node);
                    self.total = self.total.saturating_sub(weight);
                    self.place(node, weight, anchor, span)
                }
                None => Ok(()),
            },
        }
    }

    fn node(&self, value: Value, span: Span) -> Node {
        let column = u32::try_from(span.start.col() + 1).unwrap_or(u32::MAX);
        Node { value, line: line_of(span.start.line(), self.first_line), column }
    }

    fn begin(&mut self, value: Value, anchor: usize, span: Span) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.refuse(span, "nested too deeply"));
        }
        let node = self.node(value, span);
        self.total += 1;
        self.open.push(Open { node, anchor, weight: 1, name: None });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn place(
        &mut self,
        node: Node,
        weight: usize,
        anchor: usize,
        span: Span,
    ) -> Result<(), SyntaxError> {
        self.total = self.total.saturating_add(weight);
        if self.total > self.max_nodes {
            return Err(self.refuse(span, "too many values, aliases written out"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.weight = parent.weight.saturating_add(weight);
        match &mut parent.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match parent.name.take() {
                Some(name) => entries.push((name, node)),
                None => parent.name = Some(self.names.one(&name_of(node))),
            },
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) => {}
        }
        Ok(())
    }

    fn refuse(&self, span: Span, message: &str) -> SyntaxError {
        SyntaxError {
            line: line_of(span.start.line(), self.first_line),
            column: u32::try_from(span.start.col() + 1).unwrap_or(u32::MAX),
            message: message.to_owned(),
        }
    }
}

/// A scalar as the name of an entry.
fn name_of(node: Node) -> String {
    match node.value {
        Value::Text(text) => text,
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Null | Value::List(_) | Value::Map(_) => String::new(),
    }
}

/// Gives back what a collection took for growing: there are millions of them.
fn fit(node: &mut Node) {
    match &mut node.value {
        Value::List(items) => items.shrink_to_fit(),
        Value::Map(entries) => entries.shrink_to_fit(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) => {}
    }
}

/// Takes over the entries of `<<`; what the mapping says itself wins.
fn merge(node: &mut Node) {
    let Value::Map(entries) = &mut node.value else { return };
    let Some(at) = entries.iter().position(|(name, _)| &**name == "<<") else { return };
    let (_, source) = entries.remove(at);
    let sources = if source.items().is_empty() { vec![source] } else { source.items().to_vec() };
    let mut known: HashSet<Arc<str>> = entries.iter().map(|(name, _)| Arc::clone(name)).collect();
    let offered = sources.iter().flat_map(Node::entries);
    let inherited: Vec<_> = offered
        .filter(|(name, _)| known.insert(Arc::clone(name)))
        .map(|(name, value)| (Arc::clone(name), value.clone()))
        .collect();
    entries.splice(0..0, inherited);
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ => number(text).map_or_else(|| Value::Text(text.to_owned()), Value::Int),
    }
}

fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Some(octal) = digits
        .strip_prefix("0o")
        .or_else(|| digits.strip_prefix('0'))
        .filter(|rest| !rest.is_empty())
    {
        return match octal.strip_prefix(['x', 'X']) {
            Some(hex) => i64::from_str_radix(hex, 16).ok(),
            None => i64::from_str_radix(octal, 8).ok(),
        };
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_DEPTH, NODE_LEN, Value, documents, parse, parse_small};

    #[test]
    fn values_know_their_lines() {
        let root = parse("a:\n  b:\n  - c: yes\n    d: 0644\n", 10).unwrap();
        let item = &root.at("a.b").items()[0];
        assert_eq!((item.get("c").line, item.get("c").is_true()), (12, true));
        assert_eq!((item.get("d").line, item.get("d").int()), (13, Some(0o644)));
        assert_eq!(root.at("a.x.y").line, 0);
    }

    #[test]
    fn quoted_scalars_stay_text() {
        let root = parse("a: \"true\"\nb: '1'\nc: !!str 5\nd: 1.5", 1).unwrap();
        for (name, text) in [("a", "true"), ("b", "1"), ("c", "5"), ("d", "1.5")] {
            assert_eq!(root.get(name).text(), Some(text));
        }
    }

    #[test]
    fn of_equal_names_the_last_one_counts() {
        assert_eq!(parse("a: 1\na: 2", 1).unwrap().get("a").int(), Some(2));
    }

    #[test]
    fn merge_keys_give_what_the_mapping_does_not_say() {
        let root = parse("x: &x {a: 1, b: 2}\nz: {<<: *x, b: 3}", 1).unwrap();
        assert_eq!((root.at("z.a").int(), root.at("z.b").int()), (Some(1), Some(3)));
    }

    #[test]
    fn documents_are_split_and_keep_their_lines() {
        let text = "# top\n---\na: 1\n--- \nb: [\n---\nc: 3\n...\n---\n# nothing\n";
        let found = documents(text);
        let lines: Vec<u32> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 4, 6]);
        assert_eq!(parse(found[0].1, found[0].0).unwrap().get("a").line, 3);
        let error = parse(found[1].1, found[1].0).unwrap_err();
        assert!((4..=6).contains(&error.line), "{error}");
        assert_eq!(parse(found[2].1, found[2].0).unwrap().get("c").line, 7);
    }

    #[test]
    fn json_with_tabs_is_read() {
        let root = parse("{\n\t\"a\": {\n\t\t\"b\": [true, null, \"x\"]\n\t}\n}\n", 1).unwrap();
        assert_eq!(root.at("a.b").items().len(), 3);
        assert_eq!(root.at("a.b").line, 3);
    }

    #[test]
    fn aliases_cannot_grow_without_end() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let uses = vec![format!("*a{}", level - 1); 10].join(",");
            text.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
        }
        assert!(parse(&text, 1).unwrap_err().message.contains("too many values"));
    }

    #[test]
    fn long_text_counts_as_often_as_it_is_used() {
        let uses = vec!["*a"; 1_000].join(",");
        let text = format!("a: &a {}\nb: [{uses}]", "x".repeat(NODE_LEN * 99));
        assert!(parse_small(&text, 101_200).is_ok());
        assert!(parse_small(&text, 99_000).unwrap_err().message.contains("too many values"));
    }

    #[test]
    fn depth_is_bounded() {
        let text = "[".repeat(MAX_DEPTH + 1);
        assert!(parse(&text, 1).is_err());
    }

    proptest! {
        #[test]
        fn any_text_ends_in_a_tree_or_an_error(text in "\\PC{0,200}") {
            for (line, document) in documents(&text) {
                let _ = parse(document, line);
            }
        }

        #[test]
        fn structure_made_of_yaml_signs_ends_too(text in "[-:a \\n{}\\[\\],&*'\"|>#!]{0,120}") {
            for (line, document) in documents(&text) {
                if let Ok(root) = parse(document, line) {
                    let mut count = 0_usize;
                    root.visit(&mut |_| count += 1);
                    prop_assert!(count <= super::MAX_NODES);
                }
            }
        }
    }

    #[test]
    fn nothing_is_null() {
        assert_eq!(parse("", 1).unwrap().value, Value::Null);
    }
}
