//! Files out of values: what a plan asks for becomes what the driver writes.
//!
//! Room      `node`.
//! Holds     A file's version changes when its content can have changed: it is a hash over the
//!           versions of its secrets and over what is made of them, never over a value.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_crypto::digest::sha256_of;
use lastkey_secret::SecretVec;
use serde_json::{Value, json};

use super::plan::{
    Content, Encoding, Format, MAX_FILES, Part, Source, Wanted, check_apart, check_path,
};
use super::refusal::Refusal;
use super::{format, keystore, query, template};
use crate::ports::{ReadSecret, ReadValue};

/// What frames an answer beside its files, at most.
const ANSWER_OVERHEAD: usize = 64 << 10;
/// What frames a file in an answer, at most.
const FILE_OVERHEAD: usize = 64;
/// What the secrets of one template may have together, in bytes.
const MAX_TEMPLATE_SECRETS_LEN: usize = 4 << 20;
/// A class that takes longer works against the node.
const MAX_TIME: Duration = Duration::from_secs(10);

/// The values of a volume; none for one that is not there.
pub(super) type Values = HashMap<Source, Option<Arc<ReadSecret>>>;

/// A file, ready to be written.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) path: String,
    pub(super) object: String,
    pub(super) mode: u32,
    pub(super) contents: SecretVec,
    pub(super) version: String,
    /// It was made with random bytes: of the same secrets it would be another one.
    pub(super) is_random: bool,
}

/// Why an object gives no file.
enum Gap {
    /// Nothing is there: to be left out when that is allowed.
    Absent(String),
    /// It is there, and cannot be used so.
    Wrong(String),
}

/// Renders all objects of a volume, for a driver that reads answers of `most` bytes. It stops at what
/// that does not take, so that a class makes little more of its secrets than that.
pub(super) fn render_all(
    wanted: &[Wanted],
    values: &Values,
    who: &str,
    most: usize,
) -> Result<Vec<Rendered>, Refusal> {
    let begun = Instant::now();
    let mut files = Vec::new();
    for one in wanted {
        files.extend(render(one, values, who)?);
        check_size(&files, most).map_err(|refusal| refusal.for_whom(who))?;
        if begun.elapsed() > MAX_TIME {
            return Err(Refusal::Invalid(format!(
                "{who}: the files of the volume take longer than {} s to make, up to object {}; \
                 have fewer templates",
                MAX_TIME.as_secs(),
                one.object
            )));
        }
    }
    check_apart(files.iter().map(|file| (file.path.as_str(), file.object.as_str())))
        .map_err(|refusal| refusal.for_whom(who))?;
    Ok(files)
}

/// What files have in an answer, in bytes.
pub(super) fn len_of(files: &[Rendered]) -> usize {
    files.iter().map(len_in_answer).sum()
}

fn len_in_answer(file: &Rendered) -> usize {
    file.contents.len() + 2 * file.path.len() + FILE_OVERHEAD
}

fn check_size(files: &[Rendered], most: usize) -> Result<(), Refusal> {
    let total = len_of(files);
    let most = most.saturating_sub(ANSWER_OVERHEAD);
    match files.iter().max_by_key(|file| len_in_answer(file)) {
        Some(largest) if total > most => Err(Refusal::Invalid(format!(
            "the files of the volume have {total} bytes or more, and {most} fit (--max-volume-bytes \
             of the provider, --max-call-recv-msg-size of the driver); the largest is {} of object \
             {} with {} bytes. Mount less, or in several volumes",
            largest.path,
            largest.object,
            largest.contents.len()
        ))),
        Some(last) if files.len() > MAX_FILES => Err(Refusal::Invalid(format!(
            "the volume has more than {MAX_FILES} files, with those of object {}. Mount less, or \
             in several volumes",
            last.object
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Renders one object: a file, several, or none when it may be missing and is.
fn render(wanted: &Wanted, values: &Values, who: &str) -> Result<Vec<Rendered>, Refusal> {
    let object = &wanted.object;
    match files(wanted, values) {
        Ok(files) => files
            .into_iter()
            .map(|(path, bytes)| {
                check_path(&path, object).map_err(|refusal| refusal.for_whom(who))?;
                let version = version(wanted, &path, values);
                let (object, mode, is_random) = (object.clone(), wanted.mode, is_random(wanted));
                let contents = SecretVec::take(bytes);
                Ok(Rendered { path, object, mode, contents, version, is_random })
            })
            .collect(),
        Err(Gap::Absent(_)) if wanted.is_optional => Ok(Vec::new()),
        Err(Gap::Absent(problem)) => Err(Refusal::Missing(format!(
            "object {object} for {who}: {problem}. Correct the class, or mark the object \
             `optional: true`"
        ))),
        Err(Gap::Wrong(problem)) => {
            Err(Refusal::Invalid(format!("object {object} for {who}: {problem}")))
        }
    }
}

fn files(wanted: &Wanted, values: &Values) -> Result<Vec<(String, Vec<u8>)>, Gap> {
    match &wanted.content {
        Content::One { source, part, format } => {
            let bytes = match (value(source, values)?, part, format) {
                (read, Part::Whole, Format::Pkcs12) => key_store(source, read)?,
                (read, _, _) => one(read, part, *format)?,
            };
            Ok(vec![(wanted.path.clone(), decoded(bytes, wanted.encoding)?)])
        }
        Content::Each { source } => each(value(source, values)?, wanted),
        Content::Template { text, sources } => {
            let (mut secrets, mut len) = (BTreeMap::new(), 0_usize);
            for (alias, source) in sources {
                let read = value(source, values)?;
                len += read.value.len();
                if len > MAX_TEMPLATE_SECRETS_LEN {
                    let problem = "the secrets of the template have more than";
                    return Err(Gap::Wrong(format!("{problem} {MAX_TEMPLATE_SECRETS_LEN} bytes")));
                }
                secrets.insert(alias.clone(), for_template(read)?);
            }
            let rendered = template::render(text, &secrets);
            let bytes = rendered.map_err(|error| match &error {
                template::TemplateError::NoField(_) => Gap::Absent(error.to_string()),
                template::TemplateError::Unnamed(_)
                | template::TemplateError::Failed { .. }
                | template::TemplateError::TooLong => Gap::Wrong(error.to_string()),
            })?;
            Ok(vec![(wanted.path.clone(), bytes)])
        }
    }
}

fn value<'a>(source: &Source, values: &'a Values) -> Result<&'a ReadSecret, Gap> {
    let found = values.get(source).and_then(Option::as_deref);
    found.ok_or_else(|| Gap::Absent(format!("{} is not there", source.name)))
}

fn one(read: &ReadSecret, part: &Part, format: Format) -> Result<Vec<u8>, Gap> {
    match part {
        Part::Whole => whole(read, format),
        Part::Field(name) => field(read, name),
        Part::Query(expression) => {
            let found = query::find(expression, &json_of(read)?);
            found.map_err(|error| {
                let problem = format!("the query {expression:?} {error}");
                match error {
                    query::QueryError::Nothing => Gap::Absent(problem),
                    query::QueryError::Syntax
                    | query::QueryError::TooMuch
                    | query::QueryError::Failed => Gap::Wrong(problem),
                }
            })
        }
        Part::VaultLease => Ok(json!({ "data": json_of(read)? }).to_string().into_bytes()),
        Part::VaultReply => {
            let metadata = json!({ "version": read.version, "created_time": read.made_at });
            let reply = json!({ "data": { "data": json_of(read)?, "metadata": metadata } });
            Ok(reply.to_string().into_bytes())
        }
    }
}

fn whole(read: &ReadSecret, format: Format) -> Result<Vec<u8>, Gap> {
    match (&read.value, format) {
        (ReadValue::Opaque(bytes), Format::Raw) => Ok(bytes.expose(<[u8]>::to_vec)),
        (_, _) => match json_of(read)? {
            Value::Object(fields) => format::write(&fields, format).map_err(wrong),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(wrong(format::FormatError::Whole)),
        },
    }
}

/// A key store, under the last part of the name of the secret.
fn key_store(source: &Source, read: &ReadSecret) -> Result<Vec<u8>, Gap> {
    let ReadValue::Fields(fields) = &read.value else {
        return Err(wrong(format::FormatError::Whole));
    };
    let alias = source.name.rsplit('/').next().unwrap_or(&source.name);
    keystore::pkcs12(alias, fields).map_err(|error| Gap::Wrong(error.to_string()))
}

fn field(read: &ReadSecret, name: &str) -> Result<Vec<u8>, Gap> {
    let absent = || Gap::Absent(format!("the secret has no field {name}"));
    match &read.value {
        ReadValue::Fields(fields) => {
            fields.get(name).map(|value| value.expose(<[u8]>::to_vec)).ok_or_else(absent)
        }
        ReadValue::Opaque(_) => {
            let value = json_of(read)?;
            let found = value.get(name).ok_or_else(absent)?;
            Ok(format::plain(found).into_bytes())
        }
    }
}

fn each(read: &ReadSecret, wanted: &Wanted) -> Result<Vec<(String, Vec<u8>)>, Gap> {
    let place = |name: &str| format!("{}{name}", wanted.path);
    let check = |count: usize| {
        let problem = || format!("it has {count} fields; a volume has at most {MAX_FILES} files");
        if count > MAX_FILES { Err(Gap::Wrong(problem())) } else { Ok(()) }
    };
    match &read.value {
        ReadValue::Fields(fields) => {
            check(fields.len())?;
            let files = fields.iter().map(|(name, value)| {
                let bytes = value.expose(<[u8]>::to_vec);
                Ok((place(name), decoded(bytes, wanted.encoding)?))
            });
            files.collect()
        }
        ReadValue::Opaque(_) => {
            let Value::Object(fields) = json_of(read)? else {
                return Err(wrong(format::FormatError::Whole));
            };
            check(fields.len())?;
            let files = fields.iter().map(|(name, value)| {
                Ok((place(name), decoded(format::plain(value).into_bytes(), wanted.encoding)?))
            });
            files.collect()
        }
    }
}

/// The value as JSON: its fields, or what its bytes say.
fn json_of(read: &ReadSecret) -> Result<Value, Gap> {
    match &read.value {
        ReadValue::Fields(fields) => format::as_json(fields).map_err(wrong),
        ReadValue::Opaque(bytes) => bytes
            .expose(|bytes| serde_json::from_slice(bytes))
            .map_err(|_| Gap::Wrong("its value is bytes, neither fields nor JSON".to_owned())),
    }
}

/// Fields by name where there are some, else the text.
fn for_template(read: &ReadSecret) -> Result<Value, Gap> {
    match &read.value {
        ReadValue::Fields(_) => json_of(read),
        ReadValue::Opaque(bytes) => match json_of(read) {
            Ok(Value::Object(fields)) => Ok(Value::Object(fields)),
            Ok(_) | Err(_) => {
                let text = bytes.expose(|bytes| std::str::from_utf8(bytes).map(Value::from));
                text.map_err(|_| Gap::Wrong("its value is not text (UTF-8)".to_owned()))
            }
        },
    }
}

fn wrong(error: format::FormatError) -> Gap {
    Gap::Wrong(error.to_string())
}

fn decoded(bytes: Vec<u8>, encoding: Encoding) -> Result<Vec<u8>, Gap> {
    let text = bytes.trim_ascii();
    let (decoded, name) = match encoding {
        Encoding::Plain => return Ok(bytes),
        Encoding::Base64 => (STANDARD.decode(text).ok(), "base64"),
        Encoding::Hex => (unhex(text), "hexadecimal"),
    };
    drop(SecretVec::take(bytes));
    decoded.ok_or_else(|| Gap::Wrong(format!("its value is not {name}")))
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

const fn is_random(wanted: &Wanted) -> bool {
    matches!(wanted.content, Content::One { format: Format::Pkcs12, .. })
}

/// Versions of the secrets, readable, and a hash over everything that makes the content.
fn version(wanted: &Wanted, path: &str, values: &Values) -> String {
    let mut numbers = Vec::new();
    let mut parts = vec![format!("{wanted:?}"), path.to_owned()];
    for source in wanted.content.sources() {
        let Some(read) = values.get(source).and_then(Option::as_deref) else { continue };
        numbers.push(read.version.to_string());
        parts.push(format!("{}\0{}\0{}", source.name, read.version, read.made_at));
    }
    let parts: Vec<&[u8]> = parts.iter().flat_map(|part| [part.as_bytes(), b"\0\0"]).collect();
    let hash = sha256_of(&parts);
    let mut text = numbers.join("+");
    text.push('-');
    hash.iter().take(6).for_each(|byte| text.push_str(&format!("{byte:02x}")));
    text
}

#[cfg(test)]
mod tests {
    use super::super::dialect::Personality;
    use super::super::plan::current;
    use super::*;
    use crate::csi::ProviderConfig;

    const MOST: usize = ProviderConfig::USUAL_VOLUME_BYTES;

    fn read(value: ReadValue, version: u32) -> Option<Arc<ReadSecret>> {
        let made_at = "2026".to_owned();
        Some(Arc::new(ReadSecret { version, made_at, value, ask_after: None }))
    }

    fn opaque(text: &str) -> Option<Arc<ReadSecret>> {
        read(ReadValue::Opaque(SecretVec::copy_of(text.as_bytes())), 1)
    }

    fn fields(version: u32) -> Option<Arc<ReadSecret>> {
        let fields = [("user", "u"), ("pw", "cGFzcw==")];
        let fields = fields.map(|(name, v)| (name.to_owned(), SecretVec::copy_of(v.as_bytes())));
        read(ReadValue::Fields(fields.into()), version)
    }

    fn values(version: u32) -> Values {
        [
            (current("f"), fields(version)),
            (current("o"), opaque("bytes")),
            (current("j"), opaque(r#"{"a": {"b": "c"}, "num": 5}"#)),
            (current("gone"), None),
        ]
        .into()
    }

    fn all(objects: &str, version: u32) -> Result<Vec<Rendered>, Refusal> {
        let parameters = [("objects".to_owned(), objects.to_owned())].into();
        let plan = Personality::Lastkey.plan(&parameters, 0o644)?;
        render_all(&plan.files, &values(version), "n/s", MOST)
    }

    #[track_caller]
    fn shown(objects: &str) -> Vec<(String, String)> {
        let text = |file: Rendered| {
            (file.path, file.contents.expose(|b| String::from_utf8_lossy(b).into_owned()))
        };
        all(objects, 1).unwrap().into_iter().map(text).collect()
    }

    #[test]
    fn every_kind_of_object_gives_its_file() {
        for (object, path, text) in [
            ("{secret: o}", "o", "bytes"),
            ("{secret: f}", "f", r#"{"pw":"cGFzcw==","user":"u"}"#),
            ("{secret: f, field: user}", "f", "u"),
            ("{secret: f, field: pw, encoding: base64}", "f", "pass"),
            ("{secret: j, field: num}", "j", "5"),
            ("{secret: j, query: a.b}", "j", "c"),
            ("{secret: f, format: dotenv, path: .env}", ".env", "pw=\"cGFzcw==\"\nuser=\"u\"\n"),
            ("{path: t, template: '{{ a.user }}-{{ b }}', secrets: {a: f, b: o}}", "t", "u-bytes"),
        ] {
            assert_eq!(shown(&format!("- {object}")), [(path.to_owned(), text.to_owned())]);
        }
        let each = shown("- {secret: f, fields: all, prefix: db/}");
        let each: Vec<_> = each.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        assert_eq!(each, [("db/pw", "cGFzcw=="), ("db/user", "u")]);
    }

    #[test]
    fn what_is_missing_is_told_or_left_out_when_it_may_be() {
        for object in [
            "secret: gone",
            "secret: f, field: x",
            "secret: j, query: x",
            "path: t, template: '{{ x }}', secrets: {x: gone}",
        ] {
            let refused = all(&format!("- {{{object}}}"), 1).unwrap_err();
            assert!(matches!(refused, Refusal::Missing(_)), "{refused:?}");
            assert!(all(&format!("- {{{object}, optional: true}}"), 1).unwrap().is_empty());
        }
    }

    #[test]
    fn what_cannot_be_used_so_is_refused_even_when_optional() {
        for object in [
            "secret: o, format: json",
            "secret: o, fields: all",
            "secret: o, query: a",
            "secret: o, encoding: hex",
            "path: t, template: '{{ z }}', secrets: {x: f}",
        ] {
            let refused = all(&format!("- {{{object}, optional: true}}"), 1).unwrap_err();
            assert!(matches!(refused, Refusal::Invalid(_)), "{refused:?}");
            assert!(!refused.to_string().contains("bytes\""), "{refused}");
        }
    }

    #[test]
    fn class_that_makes_much_of_little_is_stopped_where_a_driver_would_stop() {
        let large = ["- {path: t0, template: &t \"{{ 'x' * 1000000 }}\"}".to_owned()].into_iter();
        let large = large.chain((1..512).map(|one| format!("- {{path: t{one}, template: *t}}")));
        let said = all(&large.collect::<Vec<_>>().join("\n"), 1).unwrap_err().to_string();
        // After five of 512, not after all.
        assert!(said.contains("have 5000"), "{said}");
        let json = |count: usize| {
            let fields: serde_json::Map<_, _> =
                (0..count).map(|one| (format!("f{one}"), Value::Null)).collect();
            Value::Object(fields).to_string()
        };
        let each = |count: usize, objects: &str| {
            let plan = Personality::Lastkey
                .plan(&[("objects".to_owned(), objects.to_owned())].into(), 0o644);
            let values = [(current("s"), opaque(&json(count)))].into();
            render_all(&plan.unwrap().files, &values, "n/s", MOST).map(|files| files.len())
        };
        assert_eq!(each(512, "- {secret: s, fields: all}"), Ok(512));
        let twice = "- {secret: s, fields: all}\n- {secret: s, fields: all, prefix: b/}";
        for (count, objects) in [(513, "- {secret: s, fields: all}"), (300, twice)] {
            let said = each(count, objects).unwrap_err().to_string();
            assert!(said.contains("512 files"), "{said}");
        }
        let aliases: Vec<_> = (0..500).map(|one| format!("a{one}: s")).collect();
        let objects = format!("- {{path: t, template: t, secrets: {{{}}}}}", aliases.join(", "));
        let said = each(1_000, &objects).unwrap_err().to_string();
        assert!(said.contains("secrets of the template"), "{said}");
    }

    #[test]
    fn version_changes_with_the_secret_and_with_what_is_made_of_it() {
        let of = |object: &str, version: u32| {
            all(&format!("- {object}"), version).unwrap()[0].version.clone()
        };
        let first = of("{secret: f, field: user}", 1);
        assert!(first.starts_with("1-"), "{first}");
        assert_eq!(first, of("{secret: f, field: user}", 1));
        assert_ne!(first, of("{secret: f, field: user}", 2));
        assert_ne!(first, of("{secret: f, field: pw, path: f}", 1));
    }
}
