//! Buckets of S3 and of what speaks as it does, for backups.
//!
//! Room      `connect`. Implements `Buckets` of `core`.
//! Source    Amazon S3 API 2006-03-01; ADR 33.
//! Holds     calls go through the guard, to the one endpoint that the operator named. A credential
//!           is read when a folder is opened, so one that was renewed is taken up. An object is
//!           there when it is whole, since the service makes it so.

mod answer;
mod calls;
mod credential;
mod folder;
mod signature;
mod upload;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lastkey_core::backup::{BackupError, Stop};
use lastkey_core::backup_folder::{BUCKET_SCHEME, BackupFolder, Buckets};
use tokio::runtime::Runtime;

use self::calls::Calls;
pub use self::credential::{Credential, CredentialSource};
use self::folder::BucketFolder;
use crate::guard::{Guard, Trust};

/// Longest name of a bucket, and shortest.
const BUCKET_NAME_LENS: std::ops::RangeInclusive<usize> = 3..=63;
/// Longest name of a folder in a bucket, in bytes; a key has 1,024.
const MAX_PREFIX_LEN: usize = 512;

/// How long is waited for the parts of an object to be put together, when nothing else is said.
///
/// # Source
/// Amazon S3 API, `CompleteMultipartUpload`: it "could take several minutes to finalize". Backups
/// are made by the hour at most, and one that is given up is made again.
pub const COMPLETION: Duration = Duration::from_secs(600);

/// How buckets are reached.
#[derive(Debug)]
pub struct BucketOptions {
    /// URL of the service, without a path; `None` for Amazon's own of the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the bucket is part of the host name, and not of the path; `None` for what the
    /// endpoint is known to want.
    pub virtual_hosted: Option<bool>,
    /// PEM file with the authorities of the service; `None` for those of the machine.
    pub authority: Option<PathBuf>,
    /// Who calls.
    pub credential: CredentialSource,
    /// How long is waited for parts to be put together, all attempts counted; see [`COMPLETION`].
    pub completion: Duration,
}

/// Buckets of one service. Calls are made by a thread of its own, so that whoever waits for them
/// may block.
pub struct S3Buckets {
    options: BucketOptions,
    runtime: OnceLock<Arc<Running>>,
}

/// A runtime that may be dropped anywhere.
struct Running(Option<Runtime>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl S3Buckets {
    /// Buckets that are reached so.
    #[must_use]
    pub const fn new(options: BucketOptions) -> Self {
        Self { options, runtime: OnceLock::new() }
    }

    fn runtime(&self) -> std::io::Result<Arc<Running>> {
        if let Some(running) = self.runtime.get() {
            return Ok(Arc::clone(running));
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("bucket").enable_all().build()?;
        Ok(Arc::clone(self.runtime.get_or_init(|| Arc::new(Running(Some(runtime))))))
    }
}

impl Buckets for S3Buckets {
    fn open(&self, place: &str, stop: &Stop) -> Result<Arc<dyn BackupFolder>, BackupError> {
        let BucketPlace { bucket, prefix } = BucketPlace::parse(place)?;
        let options = &self.options;
        let refused = |why: String| BackupError::Refused(format!("{place}: {why}"));
        let trust = match &options.authority {
            None => Trust::System,
            Some(path) => Trust::Authority(std::fs::read(path).map_err(|error| {
                refused(format!("the authority {} cannot be read: {error}", path.display()))
            })?),
        };
        let credential = options.credential.read().map_err(|why| match &options.credential {
            CredentialSource::Missing => BackupError::NotConfigured(format!("{place}: {why}")),
            CredentialSource::File(_) | CredentialSource::Given(_) => refused(why),
        })?;
        let url = endpoint(options, &bucket).map_err(refused)?;
        // The operator named it, so the list of hosts for fetches does not concern it.
        let route = Guard::default().route(&url, &trust, None);
        let route = route.map_err(|error| refused(error.to_string()))?;
        let root =
            if is_virtual(options, &bucket) { "/".to_owned() } else { format!("/{bucket}/") };
        let runtime = self.runtime().map_err(|error| BackupError::Failed {
            doing: "start calls to",
            what: place.to_owned(),
            cause: error.into(),
        })?;
        let (region, completion) = (options.region.clone(), options.completion);
        let (place, stop) = (place.trim_end_matches('/').to_owned(), stop.clone());
        let calls = Calls { route, root, region, credential, place, runtime, stop, completion };
        Ok(Arc::new(BucketFolder::new(Arc::new(calls), prefix)))
    }
}

/// A folder of a bucket, as it is written.
#[derive(Debug, PartialEq, Eq)]
struct BucketPlace {
    bucket: String,
    /// Empty, or a path that ends in `/`.
    prefix: String,
}

impl BucketPlace {
    fn parse(place: &str) -> Result<Self, BackupError> {
        let refused = |why: &str| {
            let form = "expected s3://BUCKET or s3://BUCKET/FOLDER";
            BackupError::Refused(format!("{place}: {why}; {form}"))
        };
        let rest = place.strip_prefix(BUCKET_SCHEME).ok_or_else(|| refused("it is no bucket"))?;
        let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        let ends = [bucket.bytes().next(), bucket.bytes().last()];
        let is_bucket = BUCKET_NAME_LENS.contains(&bucket.len())
            && bucket.bytes().all(is_plain)
            && ends.iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
            && !bucket.contains("..");
        if !is_bucket {
            return Err(refused("a bucket is named by 3 to 63 of a-z, 0-9, `-` and `.`"));
        }
        let folder = folder.strip_suffix('/').unwrap_or(folder);
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._/".contains(&b);
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let is_folder = folder.is_empty()
            || (folder.len() <= MAX_PREFIX_LEN
                && folder.bytes().all(is_plain)
                && folder.split('/').all(is_part));
        if !is_folder {
            return Err(refused("a folder is named by letters, digits, `-`, `.`, `_` and `/`"));
        }
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        Ok(Self { bucket: bucket.to_owned(), prefix })
    }
}

/// A bucket is part of the name of Amazon's hosts, where its name is one that their certificates
/// have, and of nobody else's unless it is said.
fn is_virtual(options: &BucketOptions, bucket: &str) -> bool {
    options.virtual_hosted.unwrap_or(options.endpoint.is_none() && !bucket.contains('.'))
}

fn endpoint(options: &BucketOptions, bucket: &str) -> Result<String, String> {
    let named = match &options.endpoint {
        Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
        None => format!("https://s3.{}.amazonaws.com", options.region),
    };
    let (scheme, host) = named.split_once("://").ok_or("its endpoint is no URL")?;
    if host.contains(['/', '?']) {
        return Err(format!("the endpoint {named} has a path; name the host alone"));
    }
    if is_virtual(options, bucket) {
        return Ok(format!("{scheme}://{bucket}.{host}/"));
    }
    Ok(format!("{named}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_bucket_and_perhaps_a_folder() {
        for (text, bucket, prefix) in [
            ("s3://kept", "kept", ""),
            ("s3://kept/", "kept", ""),
            ("s3://kept.example/a/b_1", "kept.example", "a/b_1/"),
            ("s3://kept/a/", "kept", "a/"),
        ] {
            let place = BucketPlace::parse(text).unwrap();
            assert_eq!((place.bucket.as_str(), place.prefix.as_str()), (bucket, prefix), "{text}");
        }
        for bad in [
            "s3://",
            "s3://ab",
            "s3://Kept",
            "s3://-kept",
            "s3://ke..pt",
            "s3://kept//a",
            "s3://kept/../other",
            "s3://kept/a?b",
            "s3://kept/a b",
            "s3://user@kept",
            "/kept",
        ] {
            assert!(BucketPlace::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bucket_is_in_the_host_or_in_the_path() {
        let of = |endpoint: Option<&str>, virtual_hosted, bucket| {
            let options = BucketOptions {
                endpoint: endpoint.map(str::to_owned),
                region: "eu-central-1".to_owned(),
                virtual_hosted,
                authority: None,
                credential: CredentialSource::Missing,
                completion: COMPLETION,
            };
            super::endpoint(&options, bucket)
        };
        let amazon = "https://s3.eu-central-1.amazonaws.com/";
        assert_eq!(of(None, None, "kept").unwrap(), amazon.replace("//s3", "//kept.s3"));
        assert_eq!(of(None, None, "ke.pt").unwrap(), amazon);
        assert_eq!(of(None, Some(false), "kept").unwrap(), amazon);
        let own = Some("https://s3.example:9000/");
        assert_eq!(of(own, None, "kept").unwrap(), "https://s3.example:9000/");
        assert_eq!(of(own, Some(true), "kept").unwrap(), "https://kept.s3.example:9000/");
        assert!(of(Some("https://s3.example/path"), None, "kept").is_err());
        assert!(of(Some("s3.example"), None, "kept").is_err());
    }
}
