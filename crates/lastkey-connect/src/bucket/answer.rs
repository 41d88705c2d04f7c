//! What S3 says: documents of XML, read into the few words that count.
//!
//! Room      `connect`, inside.
//! Holds     what comes is hostile: no document type is taken, and a word that is shown is one of
//!           letters and digits.

use bytes::Bytes;
use roxmltree::{Document, Node};

/// Longest word of an error that is shown.
const MAX_WORD_LEN: usize = 64;

/// A page of a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) keys: Vec<String>,
    /// Where the next page begins.
    pub(super) next: Option<String>,
}

/// Reads a page of `ListObjectsV2`.
pub(super) fn page(body: &Bytes) -> Option<Page> {
    read(body, |root| {
        let keys = children(root, "Contents").filter_map(|one| text(one, "Key")).collect();
        let is_cut = text(root, "IsTruncated").as_deref() == Some("true");
        let next = text(root, "NextContinuationToken").filter(|_| is_cut);
        // A list that goes on nobody knows where is no list.
        (root.has_tag_name("ListBucketResult") && is_cut == next.is_some())
            .then_some(Page { keys, next })
    })
}

/// A page of what a bucket keeps under one key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Versions {
    /// Versions and marks of removal, by their ids.
    pub(super) ids: Vec<String>,
    /// Where the next page begins: the key, and the version if one is told.
    pub(super) next: Option<(String, Option<String>)>,
}

/// Reads a page of `ListObjectVersions`, of which it takes what is of the key itself.
pub(super) fn versions_of(body: &Bytes, key: &str) -> Option<Versions> {
    read(body, |root| {
        let is_kept = |one: &Node<'_, '_>| {
            (one.has_tag_name("Version") || one.has_tag_name("DeleteMarker"))
                && text(*one, "Key").as_deref() == Some(key)
        };
        let kept = root.children().filter(is_kept);
        let ids = kept.map(|one| text(one, "VersionId")).collect::<Option<_>>()?;
        let is_cut = text(root, "IsTruncated").as_deref() == Some("true");
        let next = text(root, "NextKeyMarker").filter(|_| is_cut);
        let next = next.map(|key| (key, text(root, "NextVersionIdMarker")));
        (root.has_tag_name("ListVersionsResult") && is_cut == next.is_some())
            .then_some(Versions { ids, next })
    })
}

/// Whether a bucket says that it never kept versions, of `GetBucketVersioning`.
pub(super) fn never_kept_versions(body: &Bytes) -> bool {
    let never = read(body, |root| {
        let has_status = children(root, "Status").next().is_some();
        (root.has_tag_name("VersioningConfiguration") && !has_status).then_some(())
    });
    never.is_some()
}

/// The uploads of a key that did not end, of `ListMultipartUploads`.
pub(super) fn uploads_of(body: &Bytes, key: &str) -> Option<Vec<String>> {
    read(body, |root| {
        let of_key = |one: &Node<'_, '_>| text(*one, "Key").as_deref() == Some(key);
        let uploads = children(root, "Upload").filter(of_key);
        let ids = uploads.filter_map(|one| text(one, "UploadId")).collect();
        root.has_tag_name("ListMultipartUploadsResult").then_some(ids)
    })
}

/// The id of an upload that was begun.
pub(super) fn upload_id(body: &Bytes) -> Option<String> {
    read(body, |root| text(root, "UploadId"))
}

/// Whether an upload was completed. The status is decided before the service knows.
pub(super) fn is_completed(body: &Bytes) -> bool {
    read(body, |root| root.has_tag_name("CompleteMultipartUploadResult").then_some(())).is_some()
}

/// The word for what went wrong.
pub(super) fn error_code(body: &Bytes) -> Option<String> {
    let code = read(body, |root| text(root, "Code"))?;
    let is_word = code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    (is_word && code.len() <= MAX_WORD_LEN).then_some(code)
}

/// The parts of an upload, for `CompleteMultipartUpload`. Tags are quoted by the service.
pub(super) fn completion(tags: &[String]) -> String {
    let part = |(place, tag): (usize, &String)| {
        let tag = tag.replace('"', "&quot;");
        format!("<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", place + 1)
    };
    let parts: String = tags.iter().enumerate().map(part).collect();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
}

fn read<T>(body: &Bytes, of: impl FnOnce(Node<'_, '_>) -> Option<T>) -> Option<T> {
    // A service that works on its answer sends blanks meanwhile.
    let document = Document::parse(std::str::from_utf8(body).ok()?.trim_start()).ok()?;
    of(document.root_element())
}

fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.has_tag_name(name))
}

fn text(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    children(node, name).next()?.text().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: &str = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn a_page_tells_its_keys_and_where_the_next_one_begins() {
        let one = "<Contents><Key>a&amp;b</Key><Size>1</Size></Contents>";
        let list = |more: &str| {
            page(&bytes(&format!(
                "<?xml version=\"1.0\"?><ListBucketResult {NS}><Prefix>x</Prefix>{more}\
                 </ListBucketResult>"
            )))
        };
        let keys = vec!["a&b".to_owned()];
        assert_eq!(list(one), Some(Page { keys: keys.clone(), next: None }));
        let cut = "<IsTruncated>true</IsTruncated>";
        let next = "<NextContinuationToken>t</NextContinuationToken>";
        assert_eq!(
            list(&format!("{one}{cut}{next}")),
            Some(Page { keys, next: Some("t".to_owned()) })
        );
        assert_eq!(list(cut), None);
        for bad in ["", "no XML", "<Error/>", "<!DOCTYPE a [<!ENTITY b \"c\">]><a/>"] {
            assert_eq!(page(&bytes(bad)), None, "{bad}");
        }
    }

    #[test]
    fn all_that_is_kept_of_the_key_itself_is_found() {
        let one =
            |kind: &str, key: &str, id: &str| format!("<{kind}><Key>{key}</Key>{id}</{kind}>");
        let id = |id: &str| format!("<VersionId>{id}</VersionId>");
        let list = |inside: &str| {
            let body = format!("<ListVersionsResult {NS}>{inside}</ListVersionsResult>");
            versions_of(&bytes(&body), "k")
        };
        let all = [
            one("Version", "k", &id("null")),
            one("DeleteMarker", "k", &id("2")),
            one("Version", "k2", &id("3")),
        ];
        let all = all.concat();
        let ids = vec!["null".to_owned(), "2".to_owned()];
        assert_eq!(list(&all), Some(Versions { ids: ids.clone(), next: None }));
        let cut = "<IsTruncated>true</IsTruncated>";
        let marker = "<NextKeyMarker>k</NextKeyMarker>";
        let next = Some(("k".to_owned(), None));
        assert_eq!(list(&format!("{all}{cut}{marker}")), Some(Versions { ids, next }));
        for bad in [cut.to_owned(), one("Version", "k", "")] {
            assert_eq!(list(&bad), None, "{bad}");
        }
        // Of a service that does not know the question.
        assert_eq!(versions_of(&bytes(&format!("<ListBucketResult {NS}/>")), "k"), None);
    }

    #[test]
    fn only_a_bucket_that_says_so_never_kept_versions() {
        let said = |inside: &str| {
            let name = "VersioningConfiguration";
            never_kept_versions(&bytes(&format!("<{name} {NS}>{inside}</{name}>")))
        };
        assert!(said(""));
        assert!(!said("<Status>Enabled</Status>") && !said("<Status>Suspended</Status>"));
        assert!(!said("<Status/>"));
        for bad in ["", "<Error/>", "<ListBucketResult/>"] {
            assert!(!never_kept_versions(&bytes(bad)), "{bad}");
        }
    }

    #[test]
    fn only_uploads_of_the_key_itself_are_found() {
        let upload = |key: &str, id: &str| {
            format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>")
        };
        let body = format!(
            "<ListMultipartUploadsResult {NS}>{}{}</ListMultipartUploadsResult>",
            upload("k", "1"),
            upload("k2", "2")
        );
        assert_eq!(uploads_of(&bytes(&body), "k"), Some(vec!["1".to_owned()]));
        assert_eq!(uploads_of(&bytes("<Error/>"), "k"), None);
    }

    #[test]
    fn an_error_is_no_completion_and_its_word_is_plain() {
        let error = bytes("<Error><Code>InternalError</Code><Message>m</Message></Error>");
        assert!(!is_completed(&error));
        assert_eq!(error_code(&error).unwrap(), "InternalError");
        let completed = format!("<?xml version=\"1.0\"?><CompleteMultipartUploadResult {NS}/>");
        assert!(is_completed(&bytes(&completed)));
        assert!(is_completed(&bytes(&format!(" \n\r\n{completed}"))));
        assert!(!is_completed(&bytes("   ")));
        assert_eq!(error_code(&bytes("<Error><Code>a\u{1b}[1mb</Code></Error>")), None);
    }

    #[test]
    fn parts_are_told_in_their_order() {
        let tags = ["\"a\"".to_owned(), "\"b\"".to_owned()];
        let text = completion(&tags);
        let document = Document::parse(&text).unwrap();
        let parts: Vec<_> = children(document.root_element(), "Part")
            .map(|part| (text_of(part, "PartNumber"), text_of(part, "ETag")))
            .collect();
        assert_eq!(parts, [("1".into(), "\"a\"".into()), ("2".into(), "\"b\"".into())]);
    }

    #[test]
    fn an_answer_that_was_cut_or_changed_anywhere_is_read_or_refused_and_no_more() {
        let inside = "<Contents><Key>k</Key></Contents><Version><Key>k</Key><VersionId>1</VersionId>\
                      </Version><Upload><Key>k</Key><UploadId>2</UploadId></Upload><Code>a</Code>\
                      <IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>";
        let read = |body: &[u8]| {
            let body = Bytes::copy_from_slice(body);
            (page(&body), versions_of(&body, "k"), uploads_of(&body, "k"), error_code(&body))
        };
        for name in ["ListBucketResult", "ListVersionsResult", "ListMultipartUploadsResult"] {
            let whole = format!("<?xml version=\"1.0\"?><{name} {NS}>{inside}</{name}>");
            for at in 0..whole.len() {
                assert_eq!(read(&whole.as_bytes()[..at]), (None, None, None, None), "{name} {at}");
                for other in [0, b'<', b'>', b'&', b'"', 0xff] {
                    let mut changed = whole.clone().into_bytes();
                    changed[at] = other;
                    // What was changed inside a text is another text; it must not end the server.
                    drop(read(&changed));
                }
            }
            assert!(read(whole.as_bytes()).3.is_some(), "{name}");
        }
    }

    fn text_of(node: Node<'_, '_>, name: &'static str) -> String {
        text(node, name).unwrap()
    }
}
