//! Who calls a bucket.
//!
//! Room      `connect`, inside.
//! Source    The shared credentials file of the AWS tools, its part `[default]`.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lastkey_secret::SecretVec;

/// Longest file that is read, in bytes.
const MAX_FILE_LEN: u64 = 16_384;

/// A key of S3 and its name.
#[derive(Debug)]
pub struct Credential {
    /// The name that requests tell.
    pub key_id: String,
    /// What they are signed by.
    pub secret_key: SecretVec,
    /// What goes with a key that was lent for a while.
    pub session_token: Option<SecretVec>,
}

/// Where it comes from.
#[derive(Clone)]
pub enum CredentialSource {
    /// A file, read each time.
    File(PathBuf),
    /// It was given.
    Given(Arc<Credential>),
    /// From nowhere.
    Missing,
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "CredentialSource::File",
            Self::Given(_) => "CredentialSource::Given",
            Self::Missing => "CredentialSource::Missing",
        })
    }
}

impl CredentialSource {
    /// The credential.
    ///
    /// # Errors
    /// In words, when there is none.
    pub(super) fn read(&self) -> Result<Arc<Credential>, String> {
        match self {
            Self::Given(credential) => Ok(Arc::clone(credential)),
            Self::File(path) => read_file(path).map(Arc::new),
            Self::Missing => Err("it is not known by which key it is reached: set \
                                  backup.s3.credentials_file, or AWS_ACCESS_KEY_ID and \
                                  AWS_SECRET_ACCESS_KEY"
                .to_owned()),
        }
    }
}

fn read_file(path: &Path) -> Result<Credential, String> {
    let name = path.display();
    let unread = |error: std::io::Error| format!("the credentials file {name}: {error}");
    let file = std::fs::File::open(path).map_err(unread)?;
    let about = file.metadata().map_err(unread)?;
    if about.mode() & 0o007 != 0 {
        let mend = "make it private: chmod o-rwx";
        return Err(format!("everybody can read the credentials file {name}; {mend} {name}"));
    }
    if about.len() > MAX_FILE_LEN {
        return Err(format!("the credentials file {name} is longer than any"));
    }
    let text = SecretVec::take(std::fs::read(path).map_err(unread)?);
    text.expose(|text| std::str::from_utf8(text).ok().and_then(parse)).ok_or_else(|| {
        format!("{name} has no [default] with aws_access_key_id and aws_secret_access_key")
    })
}

fn parse(text: &str) -> Option<Credential> {
    let (mut key_id, mut secret_key, mut session_token) = (None, None, None);
    // Lines before any heading count, too: a mounted file of two lines is enough.
    let mut is_default = true;
    for line in text.lines().map(str::trim) {
        if let Some(heading) = line.strip_prefix('[') {
            is_default = heading.trim_end_matches(']').trim() == "default";
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| is_default) else { continue };
        let value = value.trim();
        let secret = || Some(SecretVec::copy_of(value.as_bytes()));
        match name.trim() {
            "aws_access_key_id" => key_id = Some(value.to_owned()),
            "aws_secret_access_key" => secret_key = secret(),
            "aws_session_token" => session_token = secret(),
            _ => {}
        }
    }
    Some(Credential { key_id: key_id?, secret_key: secret_key?, session_token })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_of_the_aws_tools_is_read_and_others_of_it_are_not() {
        let text = "[other]\naws_access_key_id = x\naws_secret_access_key = x\n\n# mine\n\
                    [default]\n aws_access_key_id=AKID\naws_secret_access_key = a=b/c+d \n";
        let found = parse(text).unwrap();
        assert_eq!(found.key_id, "AKID");
        assert!(found.secret_key.expose(|key| key == b"a=b/c+d") && found.session_token.is_none());
        let bare = "aws_access_key_id=a\naws_secret_access_key=b\naws_session_token=c\n";
        assert!(parse(bare).unwrap().session_token.is_some());
        assert!(parse("").is_none() && parse("[default]\naws_access_key_id=a\n").is_none());
        assert!(parse("[other]\naws_access_key_id=a\naws_secret_access_key=b\n").is_none());
    }

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        std::fs::write(&path, "aws_access_key_id=a\naws_secret_access_key=b\n").unwrap();
        let with_mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            CredentialSource::File(path.clone()).read()
        };
        assert!(with_mode(0o644).unwrap_err().contains("chmod"));
        // A group may: that is how secrets are mounted.
        assert_eq!(with_mode(0o440).unwrap().key_id, "a");
        std::fs::remove_file(&path).unwrap();
        assert!(CredentialSource::File(path).read().is_err());
    }
}
