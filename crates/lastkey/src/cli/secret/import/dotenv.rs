//! Files of lines NAME=VALUE.
//!
//! Room      `lastkey`.
//! Source    What the loaders of such files agree on: `export` before a name, comments, single
//!           quotes as they are, double quotes with `\n`, `\t`, `\r`, `\"`, `\\` and `\$`. Values
//!           of other names (`$NAME`) are not put in: what is imported is what stands there. What
//!           they do not agree on, such as an apostrophe in single quotes, is refused.

use std::collections::BTreeMap;

use lastkey_secret::SecretVec;

/// Reads a file.
pub(super) fn read(text: &str) -> Result<BTreeMap<String, SecretVec>, String> {
    let (mut fields, mut rest, mut line) = (BTreeMap::new(), text, 1_usize);
    while !rest.is_empty() {
        let start = rest.trim_start_matches([' ', '\t']);
        let (this, after) = start.split_once('\n').unwrap_or((start, ""));
        if this.trim().is_empty() || this.starts_with('#') {
            rest = after;
            line += 1;
            continue;
        }
        let bad = |what: &str| format!("line {line}: {what}");
        let entry = start.strip_prefix("export ").unwrap_or(start).trim_start();
        let (name, value) = entry.split_once('=').ok_or_else(|| bad("expected NAME=VALUE"))?;
        let name = name.trim_end();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        {
            return Err(bad("a name has letters, digits and _ . -"));
        }
        let (value, after) = take_value(value).map_err(bad)?;
        if fields.insert(name.to_owned(), SecretVec::take_text(value)).is_some() {
            return Err(bad("this name is there twice"));
        }
        line += start
            .len()
            .checked_sub(after.len())
            .map_or(0, |len| start.get(..len).map_or(0, |taken| taken.matches('\n').count()));
        rest = after;
    }
    if fields.is_empty() { Err("holds no lines NAME=VALUE".to_owned()) } else { Ok(fields) }
}

const OPEN: &str = "the quotes do not end";

/// What follows a line after a value in quotes.
fn line_after(rest: &str) -> Result<&str, &'static str> {
    let (left, after) = rest.split_once('\n').unwrap_or((rest, ""));
    let left = left.trim();
    if left.is_empty() || left.starts_with('#') {
        Ok(after)
    } else {
        Err("something stands after the quotes, or the value has one of them; use the other ones")
    }
}

/// A value, and what follows its line.
fn take_value(text: &str) -> Result<(String, &str), &'static str> {
    let text = text.trim_start_matches([' ', '\t']);
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, rest) = quoted.split_once('\'').ok_or(OPEN)?;
        return Ok((value.to_owned(), line_after(rest)?));
    }
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once('\n').unwrap_or((text, ""));
        let value = value.split_once(" #").map_or(value, |(value, _)| value);
        return Ok((value.trim_end().to_owned(), rest));
    };
    let (mut value, mut letters) = (String::with_capacity(quoted.len()), quoted.char_indices());
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => {
                let rest = quoted.get(place + 1..).unwrap_or_default();
                return Ok((value, line_after(rest)?));
            }
            '\\' => match letters.next().ok_or(OPEN)?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                known @ ('"' | '\\' | '$') => value.push(known),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    Err(OPEN)
}

#[cfg(test)]
mod tests {
    use super::read;

    fn text(file: &str, name: &str) -> String {
        let fields = read(file).unwrap();
        fields[name].expose(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn lines_comments_quotes_and_export_are_read() {
        let file = "# a comment\n\nA=plain # and a remark\n export B = 'it''s\nC=\"two\\nlines \\\"q\\\"\"\nD='raw\\n $X'\r\nE=\nF=\"over\ntwo\"\nG=a#b\r\nH='x' # y\nI=\"x\"# y\n";
        let file = file.replace("'it''s", "'it is'");
        for (name, value) in [
            ("A", "plain"),
            ("B", "it is"),
            ("C", "two\nlines \"q\""),
            ("D", "raw\\n $X"),
            ("E", ""),
            ("F", "over\ntwo"),
            ("G", "a#b"),
            ("H", "x"),
            ("I", "x"),
        ] {
            assert_eq!(text(&file, name), value, "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_without_the_text() {
        for (file, line) in [
            ("A=1\nhunter2", "line 2"),
            ("A=\"x\ny\"\nhunter2", "line 3"),
            ("A=1\nA=hunter2", "line 2"),
            ("A='hunter2", "line 1"),
            ("A='it'\\''s hunter2'", "line 1"),
            ("A='it\\'s hunter2'", "line 1"),
            ("A=\"x\"hunter2", "line 1"),
            ("A=\"x\\", "line 1"),
            ("hun ter2=1", "line 1"),
            ("", "no lines"),
        ] {
            let told = read(file).unwrap_err();
            assert!(told.contains(line) && !told.contains("ter2"), "{file}: {told}");
        }
    }
}
