//! Buckets that backups lie in, by what the configuration says, and the environment where it says
//! nothing.
//!
//! Room      the binary.
//! Source    docs/backup.md, "In a bucket"; the variables are those of the AWS tools.

use std::path::PathBuf;
use std::sync::Arc;

use lastkey_connect::bucket::{BucketOptions, COMPLETION, Credential, CredentialSource, S3Buckets};
use lastkey_core::backup_folder::Buckets;
use lastkey_secret::SecretVec;

use crate::config::file::S3;

/// The region that requests are signed for when nobody says one; services of one region take it.
const DEFAULT_REGION: &str = "us-east-1";

/// The buckets that this process reaches.
pub(crate) fn buckets(typed: &S3) -> Arc<dyn Buckets> {
    Arc::new(S3Buckets::new(options(typed, |name| std::env::var(name).ok())))
}

fn options(typed: &S3, variable: impl Fn(&str) -> Option<String>) -> BucketOptions {
    let first = |names: &[&str]| {
        names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()))
    };
    let endpoint = typed.endpoint.clone();
    let region = typed.region.clone().or_else(|| first(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
    let authority = typed.authority.clone();
    BucketOptions {
        endpoint: endpoint.or_else(|| first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])),
        region: region.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
        virtual_hosted: typed.virtual_hosted,
        authority: authority.or_else(|| first(&["AWS_CA_BUNDLE"]).map(PathBuf::from)),
        credential: match &typed.credentials_file {
            Some(path) => CredentialSource::File(path.clone()),
            None => credential(first),
        },
        completion: COMPLETION,
    }
}

fn credential(first: impl Fn(&[&str]) -> Option<String>) -> CredentialSource {
    let secret = |name: &str| first(&[name]).map(SecretVec::take_text);
    let key_id = first(&["AWS_ACCESS_KEY_ID"]);
    if let (Some(key_id), Some(secret_key)) = (key_id, secret("AWS_SECRET_ACCESS_KEY")) {
        let session_token = secret("AWS_SESSION_TOKEN");
        return CredentialSource::Given(Arc::new(Credential { key_id, secret_key, session_token }));
    }
    match first(&["AWS_SHARED_CREDENTIALS_FILE"]) {
        Some(path) => CredentialSource::File(PathBuf::from(path)),
        None => CredentialSource::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "AWS_ENDPOINT_URL" => "https://of.environment",
            "AWS_DEFAULT_REGION" => "eu-west-1",
            "AWS_ACCESS_KEY_ID" => "id",
            "AWS_SECRET_ACCESS_KEY" => "key",
            "AWS_SESSION_TOKEN" => "",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn the_environment_says_what_the_configuration_does_not() {
        let of_environment = options(&S3::default(), environment);
        assert_eq!(of_environment.endpoint.as_deref(), Some("https://of.environment"));
        assert_eq!(of_environment.region, "eu-west-1");
        let CredentialSource::Given(given) = of_environment.credential else { panic!("no key") };
        assert!(given.key_id == "id" && given.session_token.is_none());
        let typed = S3 {
            endpoint: Some("https://typed".to_owned()),
            region: Some("r".to_owned()),
            credentials_file: Some("/f".into()),
            ..S3::default()
        };
        let of_file = options(&typed, environment);
        assert_eq!(
            (of_file.endpoint.as_deref(), of_file.region.as_str()),
            (Some("https://typed"), "r")
        );
        assert!(matches!(of_file.credential, CredentialSource::File(_)));
        let nothing = options(&S3::default(), |_| None);
        assert!(nothing.endpoint.is_none() && nothing.region == DEFAULT_REGION);
        assert!(matches!(nothing.credential, CredentialSource::Missing));
    }
}
