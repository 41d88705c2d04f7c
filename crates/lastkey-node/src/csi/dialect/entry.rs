//! Reading the list of objects of a class, which is YAML in a text.
//!
//! Room      `node`.
//! Holds     The whole list is one document with one bound, also where each object is a text.

use std::collections::{BTreeMap, BTreeSet};

use lastkey_checks::snapshot::yaml::{self, Node, Value};

use super::super::refusal::Refusal;

/// Longest list that is read, in bytes.
const MAX_LIST_LEN: usize = 256 << 10;
/// Values of a list, aliases written out.
const MAX_NODES: usize = 16_384;
/// Longest text of an object but its template, in bytes.
const MAX_TEXT_LEN: usize = 4_096;

/// One object of the list.
pub(super) struct Entry<'a> {
    node: &'a Node,
    /// Where it stands, for messages.
    place: String,
}

/// The objects of a class, in their order.
///
/// # Errors
/// [`Refusal::Invalid`] when the parameter is missing or is no list of mappings.
pub(super) fn list(parameters: &BTreeMap<String, String>) -> Result<Node, Refusal> {
    let text = parameters.get("objects").ok_or_else(|| {
        Refusal::Invalid("the class has no parameter `objects`, a list of what to mount".to_owned())
    })?;
    if text.len() > MAX_LIST_LEN {
        return Err(Refusal::Invalid(format!("`objects` is longer than {MAX_LIST_LEN} bytes")));
    }
    let node = parse(text)?;
    match &node.value {
        Value::List(_) | Value::Null => Ok(node),
        Value::Map(entries) => match entries.as_slice() {
            [(name, list)] if &**name == "array" => parse(&unpacked(list)?),
            _ => Err(no_list()),
        },
        Value::Bool(_) | Value::Int(_) | Value::Text(_) => Err(no_list()),
    }
}

fn parse(text: &str) -> Result<Node, Refusal> {
    yaml::parse_small(text, MAX_NODES)
        .map_err(|error| Refusal::Invalid(format!("`objects` is no YAML: {error}")))
}

fn no_list() -> Refusal {
    Refusal::Invalid("`objects` is no list; each object begins with `- `".to_owned())
}

/// The older form, `array:` with a text for each object, as one list.
fn unpacked(list: &Node) -> Result<String, Refusal> {
    if !matches!(list.value, Value::List(_)) {
        return Err(no_list());
    }
    let mut text = String::new();
    for (index, item) in list.items().iter().enumerate() {
        let object = item.text().ok_or_else(|| {
            Refusal::Invalid(format!("objects.array[{index}] is no text; begin it with `- |`"))
        })?;
        text.push_str("- ");
        text.push_str(&object.trim_end().replace('\n', "\n  "));
        text.push('\n');
    }
    Ok(text)
}

/// The entries of a list.
pub(super) fn entries<'a>(
    list: &'a Node,
    what: &'a str,
) -> impl Iterator<Item = Result<Entry<'a>, Refusal>> {
    list.items().iter().enumerate().map(move |(index, node)| {
        let place = format!("{what}[{index}]");
        match &node.value {
            Value::Map(_) => Ok(Entry { node, place }),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) => {
                Err(Refusal::Invalid(format!("{place} is no object with names")))
            }
        }
    })
}

impl<'a> Entry<'a> {
    /// A scalar as text: a number counts as it is written.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        let text = self.long_text(name)?;
        match &text {
            Some(long) if long.len() > MAX_TEXT_LEN => {
                Err(self.refuse(name, &format!("is longer than {MAX_TEXT_LEN} bytes")))
            }
            Some(_) | None => Ok(text),
        }
    }

    /// The same of any length.
    pub(super) fn long_text(&self, name: &str) -> Result<Option<String>, Refusal> {
        match &self.node.get(name).value {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.clone())),
            Value::Int(number) => Ok(Some(number.to_string())),
            Value::Bool(value) => Ok(Some(value.to_string())),
            Value::List(_) | Value::Map(_) => Err(self.refuse(name, "is no text")),
        }
    }

    pub(super) fn needed(&self, name: &str) -> Result<String, Refusal> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.refuse(name, "is missing"))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match &self.node.get(name).value {
            Value::Null => Ok(false),
            Value::Bool(value) => Ok(*value),
            Value::Text(text) if text == "true" || text == "false" => Ok(text == "true"),
            Value::Int(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                Err(self.refuse(name, "is neither true nor false"))
            }
        }
    }

    /// A mode: digits in octal as text, or a number as YAML reads it.
    pub(super) fn mode(&self, name: &str) -> Result<Option<u32>, Refusal> {
        let mode = match &self.node.get(name).value {
            Value::Null => return Ok(None),
            Value::Int(number) => u32::try_from(*number).ok(),
            Value::Text(text) => u32::from_str_radix(text, 8).ok(),
            Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        };
        match mode.filter(|mode| (1..=0o777).contains(mode)) {
            Some(mode) => Ok(Some(mode)),
            None => Err(self.refuse(name, "is no mode such as \"0440\"")),
        }
    }

    /// A version number, perhaps with a `v` before it.
    pub(super) fn version(&self, name: &str) -> Result<Option<u32>, Refusal> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let digits = text.strip_prefix('v').unwrap_or(&text);
        match digits.parse().ok().filter(|number| *number > 0) {
            Some(number) => Ok(Some(number)),
            None => {
                let problem =
                    format!("{text:?} is no version of Lastkey, which are numbers from 1");
                Err(self.refuse(name, &problem))
            }
        }
    }

    /// What stands under a name.
    pub(super) fn node(&self, name: &str) -> &'a Node {
        self.node.get(name)
    }

    /// Whether there is something under a name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.node.get(name).is_there()
    }

    /// Notes names that are not in the list.
    pub(super) fn note_others(&self, heeded: &[&str], into: &mut BTreeSet<String>) {
        let names = self.node.entries().iter().map(|(name, _)| name.to_string());
        into.extend(names.filter(|name| !heeded.contains(&name.as_str())));
    }

    pub(super) fn refuse(&self, name: &str, problem: &str) -> Refusal {
        Refusal::Invalid(format!("{}.{name} {problem}", self.place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(objects: &str) -> Result<Vec<String>, Refusal> {
        let parameters = [("objects".to_owned(), objects.to_owned())].into();
        let list = list(&parameters)?;
        entries(&list, "objects").map(|entry| entry?.needed("objectName")).collect()
    }

    #[test]
    fn objects_of_the_older_form_are_texts_in_an_array() {
        let objects = "\
array:
  - |
    objectName: a
    note: |
      two
      lines
  - '{objectName: b}'
";
        assert_eq!(named(objects).unwrap(), ["a", "b"]);
        assert_eq!(named("array: []").unwrap(), [""; 0]);
        for (bad, part) in [
            ("array:\n  - {objectName: a}", "objects.array[0] is no text"),
            ("array:\n  - |\n    objectName: a\n  - |\n    other: b", "objects[1].objectName"),
            ("array: []\nmore: 1", "is no list"),
            ("array: x", "is no list"),
            ("array: ['']", "objects[0] is no object"),
            ("array:\n  - |\n    a: 1\n    ---\n    b: 2", "objects"),
        ] {
            let said = named(bad).unwrap_err().to_string();
            assert!(said.contains(part), "{bad:?}: {said}");
        }
    }

    #[test]
    fn texts_of_an_array_share_one_bound() {
        let object = "  - 'objectName: &a [x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x]'\n";
        let said = named(&format!("array:\n{}", object.repeat(2_000))).unwrap_err();
        assert!(said.to_string().contains("no YAML"), "{said}");
    }
}
