//! Backups in a bucket: made, proven, checked, restored and removed there; and what a bucket does
//! that a directory does not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lastkey_connect::bucket::{BucketOptions, COMPLETION, Credential, CredentialSource, S3Buckets};
use lastkey_core::backup::{BackupError, Stop};
use lastkey_core::backup_folder::{BackupFolder, Buckets as _};
use lastkey_secret::SecretVec;
use serde_json::Value;

use crate::bucket_server::Bucket;
use crate::process::{Ended, lastkey, run};
use crate::world::{Installation, PASSPHRASE, Server, text};

/// An installation that serves, and a bucket.
struct Kept {
    bucket: Bucket,
    installation: Installation,
    server: Server,
}

impl Kept {
    fn begin(lines: &str) -> Option<Self> {
        let bucket = Bucket::start()?;
        let installation = Installation::found(bucket.folder.path());
        let server = installation.serve_unsealed(&format!("{}{lines}", bucket.config()));
        Some(Self { bucket, installation, server })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bucket.folder.path().join(name)
    }

    fn back_up(&self, place: &str) -> Value {
        self.server.cli(&format!("backup create --to {place} --output json")).json()
    }

    /// A command without a server, which reaches the bucket by the environment.
    fn command(&self, line: &str) -> Command {
        let mut command = bare(line);
        command.envs(self.bucket.env()).current_dir(self.bucket.folder.path());
        command
    }

    fn run(&self, line: &str) -> Ended {
        run(&mut self.command(line), PASSPHRASE.as_bytes())
    }

    fn restore(&self, arguments: &str) -> Ended {
        self.run(&format!("restore --output json --passphrase-file - {arguments}"))
    }

    fn serve(&mut self, data: &str) -> Server {
        if self.server.process.lives() {
            self.server.process.stop();
        }
        self.installation.data = self.path(data);
        self.installation.serve_unsealed("")
    }
}

/// A command that knows no bucket.
fn bare(line: &str) -> Command {
    let mut command = lastkey(line.split_whitespace());
    for name in [
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_CA_BUNDLE",
    ] {
        command.env_remove(name);
    }
    command
}

fn of(ended: &Ended) -> Value {
    serde_json::from_slice(&ended.stdout).unwrap()
}

#[test]
fn a_backup_in_a_bucket_is_proven_checked_restored_and_removed() {
    let Some(mut kept) = Kept::begin("") else { return };
    let place = "s3://kept/a/folder";
    kept.server.cli("key create --alias alias/app").ok();
    let sealed = kept.server.cli_with("blob encrypt --key alias/app", b"kept").ok();
    let first = kept.back_up(place);
    assert_eq!(
        (&first["state"], &first["directory"]),
        (&"proven".into(), &place.into()),
        "{first}"
    );
    // The list of what was destroyed lies beside it, and nothing else.
    let name = text(&first["name"]);
    let names = kept.bucket.tell("names");
    assert!(names.split(' ').all(|key| key.starts_with("a/folder/lastkey-")), "{names}");
    assert!(
        names.contains(&name) && names.contains(".tombstones") && names.split(' ').count() == 2
    );
    let all = kept.run(&format!("backup verify {place} --output json --passphrase-file -")).json();
    assert_eq!(all["backups"][0]["checked"], "everything", "{all}");
    assert_eq!(all["backups"][0]["records"], first["records"]);
    // The configuration of the server is as good as the environment.
    let config = kept.installation.data.with_extension("toml").display().to_string();
    let line = format!("backup verify {place}/{name} --output json --config {config}");
    assert_eq!(run(&mut bare(&line), b"").json()["backups"][0]["valid"], true);

    for step in ["rotate alias/app", "version shadow-disable alias/app 1"] {
        kept.server.cli(&format!("key {step}")).ok();
    }
    kept.server.cli("key version destroy alias/app 1 --yes").ok();
    let second = kept.back_up(place);
    let old = kept.restore(&format!("--from {place}/{name} --data old"));
    assert!(old.failed(1).contains("--accept-rollback"), "{}", old.stderr);
    let old = kept.restore(&format!("--from {place}/{name} --data old --accept-rollback")).json();
    // The list was found in the bucket.
    assert_eq!(old["destroyed_again"], 1, "{old}");
    let new = kept.restore(&format!("--from {place} --data new")).json();
    assert_eq!((&new["backup"], &new["destroyed_again"]), (&second["id"], &0.into()), "{new}");

    kept.server.cli(&format!("backup remove {}", text(&first["id"]))).ok();
    let names = kept.bucket.tell("names");
    assert!(!names.contains(&name) && names.contains(&text(&second["name"])), "{names}");
    let server = kept.serve("new");
    server.cli_with("blob decrypt", sealed.as_bytes()).failed(1);
    let blob = server.cli_with("blob encrypt --key alias/app", b"new").ok();
    assert_eq!(server.cli_with("blob decrypt", blob.as_bytes()).ok(), "new");
}

#[test]
#[ignore = "heavy: waits twice for the rounds of the schedule"]
fn a_server_makes_backups_in_a_bucket_by_itself_and_keeps_the_newest() {
    let Some(mut kept) = Kept::begin("backup.target = 's3://kept'\nbackup.keep = 1") else {
        return;
    };
    kept.server.process.logs("proven by a trial restore");
    let first = kept.server.cli("backup list --output json").json();
    assert_eq!(first["backups"][0]["directory"], Value::Null, "{first}");
    let second = kept.server.cli("backup create --output json").json();
    assert_eq!(second["state"], "proven", "{second}");
    kept.server.process.logs("a backup has served its time");
    let names = kept.bucket.tell("names");
    assert!(!names.contains(&text(&first["backups"][0]["name"])), "{names}");
    assert!(names.contains(&text(&second["name"])), "{names}");
    // A drill opens the newest backup there.
    let passphrase = kept.installation.passphrase.display();
    let drill =
        kept.server.cli(&format!("seal drill --passphrase-file {passphrase} --output json"));
    assert_eq!(drill.json()["seals"][0]["health"], "proven", "{}", drill.stderr);
}

#[test]
fn what_is_wrong_with_a_bucket_or_with_a_backup_in_it_is_told() {
    let Some(mut kept) = Kept::begin("") else { return };
    let made = kept.back_up("s3://kept/cut");
    let key = format!("cut/{}", text(&made["name"]));
    let len = made["bytes"].as_u64().unwrap();
    for left in [len - 1, len / 2, 40, 0] {
        kept.bucket.tell(&format!("cut {key} {left}"));
        let told = kept.run("backup verify s3://kept/cut --output json");
        told.failed(1);
        assert_eq!(of(&told)["backups"][0]["valid"], false, "{left}");
        let refused = kept.restore(&format!("--from s3://kept/cut --data to-{left}"));
        refused.failed(1);
        assert!(!kept.path(&format!("to-{left}")).exists(), "{left}");
    }
    let place = "s3://kept/cut";
    let says = |ended: Ended, words: &str| {
        assert!(ended.failed(1).contains(words), "{words}: {}", ended.stderr);
    };
    let verify = |kept: &Kept, place: &str, env: &[(&str, &str)]| {
        let mut command = kept.command(&format!("backup verify {place}"));
        run(command.envs(env.iter().copied()), b"")
    };
    says(verify(&kept, "s3://kept/none", &[]), "there is no backup in s3://kept/none");
    says(verify(&kept, "s3://absent", &[]), "make the bucket");
    says(verify(&kept, "s3://Kept", &[]), "expected s3://BUCKET");
    says(verify(&kept, &format!("{place}/none.backup"), &[]), "it is not there");
    says(verify(&kept, place, &[("AWS_SECRET_ACCESS_KEY", "wrong")]), "see to the credentials");
    says(verify(&kept, place, &[("AWS_ACCESS_KEY_ID", "AKIAWRONG")]), "see to the credentials");
    says(verify(&kept, place, &[("AWS_CA_BUNDLE", "/none")]), "cannot be read");
    says(verify(&kept, place, &[("AWS_ENDPOINT_URL_S3", "http://s3.example")]), "loopback only");
    says(run(&mut bare(&format!("backup verify {place}")), b""), "AWS_ACCESS_KEY_ID");
    // Whoever may read and not write makes no backup, and is told why.
    kept.bucket.tell("allow s3:GetObject s3:ListBucket");
    let failed = kept.server.cli("backup create --to s3://kept/denied --output json");
    failed.failed(1);
    let told = of(&failed);
    assert!(text(&told["problem"]).contains("docs/backup.md"), "{told}");
    kept.bucket.tell("allow s3:PutObject");
    says(verify(&kept, place, &[]), "docs/backup.md");
}

fn opened(bucket: &Bucket, place: &str, stop: &Stop) -> Arc<dyn BackupFolder> {
    patient(bucket, COMPLETION).open(place, stop).unwrap()
}

/// Buckets of a service that is waited for as long as that at the end of an upload.
fn patient(bucket: &Bucket, completion: Duration) -> S3Buckets {
    let credential = Credential {
        key_id: bucket.key_id.clone(),
        secret_key: SecretVec::copy_of(bucket.secret_key.as_bytes()),
        session_token: None,
    };
    let options = BucketOptions {
        endpoint: Some(bucket.endpoint.clone()),
        region: "us-east-1".to_owned(),
        virtual_hosted: None,
        authority: Some(bucket.authority.clone()),
        credential: CredentialSource::Given(Arc::new(credential)),
        completion,
    };
    S3Buckets::new(options)
}

/// More than two parts.
fn content() -> Vec<u8> {
    (0..40_u32 << 18).flat_map(u32::to_be_bytes).collect()
}

#[test]
fn an_object_of_several_parts_is_there_when_it_is_whole_and_reads_from_anywhere() {
    let Some(mut bucket) = Bucket::start() else { return };
    let folder = opened(&bucket, "s3://kept/parts", &Stop::default());
    let content = content();
    let mut new = folder.begin("one.backup").unwrap();
    new.write_all(&content).unwrap();
    assert_eq!(folder.names().unwrap(), [""; 0]);
    assert_eq!(bucket.tell("uploads"), "parts/one.backup");
    new.finish().unwrap();
    assert_eq!(
        (folder.names().unwrap(), bucket.tell("uploads")),
        (vec!["one.backup".to_owned()], String::new())
    );
    let stored = folder.open("one.backup").unwrap();
    assert_eq!(stored.len(), content.len() as u64);
    for start in [0, 1, 17 << 20, content.len() - 3, content.len()] {
        let mut read = Vec::new();
        stored.read_from(start as u64).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == content[start..], "{start}");
    }
    assert!(matches!(folder.begin("one.backup").err(), Some(BackupError::Refused(_))));
    // Another object that takes its place while it is read is told.
    let mut reading = stored.read_from(0).unwrap();
    reading.read_exact(&mut [0; 10]).unwrap();
    folder.replace("one.backup", &content[..content.len() - 1]).unwrap();
    let changed = reading.read_to_end(&mut Vec::new()).unwrap_err().downcast::<BackupError>();
    assert!(matches!(changed, Ok(BackupError::Damaged { .. })), "{changed:?}");
    // Pages of a list are short here.
    for name in ["a", "b", "c", "d"] {
        folder.replace(name, b"x").unwrap();
    }
    assert_eq!(folder.names().unwrap(), ["a", "b", "c", "d", "one.backup"]);
}

#[test]
fn what_did_not_end_leaves_nothing_and_what_is_removed_is_gone_with_its_versions() {
    let Some(mut bucket) = Bucket::start() else { return };
    let folder = opened(&bucket, "s3://kept", &Stop::default());
    let mut new = folder.begin("one.backup").unwrap();
    new.write_all(&content()).unwrap();
    drop(new);
    while !bucket.tell("uploads").is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Of a server that was killed.
    bucket.tell("begin two.backup");
    bucket.tell("begin two.backup-of-others");
    assert!(folder.remove("two.backup").unwrap());
    assert_eq!(bucket.tell("uploads"), "two.backup-of-others");
    assert!(!folder.remove("two.backup").unwrap());
    assert_eq!(folder.read("two.backup").unwrap(), None);
    bucket.tell("versions");
    folder.replace("three.backup", b"three").unwrap();
    assert_eq!(folder.read("three.backup").unwrap().as_deref(), Some(&b"three"[..]));
    assert_eq!(bucket.tell("kept"), "1");
    assert!(folder.remove("three.backup").unwrap());
    assert_eq!(bucket.tell("kept"), "0");
}

#[test]
fn a_removed_backup_is_gone_with_everything_that_a_bucket_kept_of_it() {
    let Some(mut bucket) = Bucket::start() else { return };
    let folder = opened(&bucket, "s3://kept", &Stop::default());
    // Before versions there was one without.
    bucket.tell("keep one.backup");
    bucket.tell("versions");
    // One that was written twice, and hidden by a mark.
    for order in ["keep", "keep", "mark"] {
        bucket.tell(&format!("{order} one.backup"));
    }
    bucket.tell("keep one.backup-of-others");
    assert_eq!(bucket.tell("kept"), "5");
    assert!(folder.remove("one.backup").unwrap());
    assert_eq!(
        (bucket.tell("kept"), bucket.tell("names")),
        ("1".into(), "one.backup-of-others".into())
    );
    assert!(!folder.remove("one.backup").unwrap());
    // Whoever may not remove versions, or not see them, removes nothing.
    bucket.tell("keep one.backup");
    let most = "allow s3:GetObject s3:ListBucket s3:ListBucketMultipartUploads s3:DeleteObject";
    for more in ["", " s3:ListBucketVersions"] {
        bucket.tell(&format!("{most}{more}"));
        let refused = folder.remove("one.backup");
        assert!(matches!(refused, Err(BackupError::Refused(_))), "{refused:?}");
    }
    bucket.tell("allow s3:*");
    assert_eq!(bucket.tell("kept"), "2");
}

#[test]
fn where_versions_are_not_listed_only_a_bucket_that_never_kept_any_lets_go() {
    let Some(mut bucket) = Bucket::start() else { return };
    let folder = opened(&bucket, "s3://kept", &Stop::default());
    bucket.tell("unlisted");
    bucket.tell("keep one.backup");
    assert!(folder.remove("one.backup").unwrap());
    assert_eq!(bucket.tell("names"), "");
    assert!(!folder.remove("one.backup").unwrap());
    bucket.tell("keep two.backup");
    for order in ["versions", "suspend"] {
        bucket.tell(order);
        let refused = folder.remove("two.backup");
        assert!(matches!(refused, Err(BackupError::Refused(_))), "{refused:?}");
        assert_eq!(bucket.tell("names"), "two.backup");
    }
}

/// The service does what it is asked and says nothing, on a connection that stays open.
#[test]
fn an_upload_that_ended_unheard_is_there() {
    let Some(mut bucket) = Bucket::start() else { return };
    // The first attempt is waited for a tenth of it.
    let buckets = patient(&bucket, Duration::from_secs(20));
    let folder = buckets.open("s3://kept", &Stop::default()).unwrap();
    bucket.tell("lost");
    let mut new = folder.begin("one.backup").unwrap();
    new.write_all(&content()).unwrap();
    new.finish().unwrap();
    assert_eq!(folder.names().unwrap(), ["one.backup"]);
    assert_eq!(folder.open("one.backup").unwrap().len(), content().len() as u64);
}

#[test]
fn an_upload_that_is_not_put_together_in_time_fails_and_leaves_nothing() {
    let Some(mut bucket) = Bucket::start() else { return };
    let buckets = patient(&bucket, Duration::from_secs(1));
    let folder = buckets.open("s3://kept", &Stop::default()).unwrap();
    bucket.tell("busy");
    let mut new = folder.begin("one.backup").unwrap();
    new.write_all(&content()).unwrap();
    let failed = new.finish();
    assert!(matches!(failed, Err(BackupError::Failed { .. })), "{failed:?}");
    assert_eq!(folder.names().unwrap(), [""; 0]);
    while !bucket.tell("uploads").is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn whoever_waits_for_a_bucket_is_let_go_when_the_work_is_to_end() {
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let authority = folder.path().join("s3.pem");
    fs::write(&authority, made.cert.pem()).unwrap();
    let credential = Credential {
        key_id: "id".to_owned(),
        secret_key: SecretVec::copy_of(b"key"),
        session_token: Some(SecretVec::copy_of(b"token")),
    };
    let options = BucketOptions {
        endpoint: Some(format!("https://localhost:{}", silent.local_addr().unwrap().port())),
        region: "us-east-1".to_owned(),
        virtual_hosted: Some(false),
        authority: Some(authority),
        credential: CredentialSource::Given(Arc::new(credential)),
        completion: COMPLETION,
    };
    let stop = Stop::default();
    let bucket = S3Buckets::new(options).open("s3://kept", &stop).unwrap();
    let waiting = std::thread::spawn(move || bucket.names());
    // Somebody has come.
    let _connection = silent.accept().unwrap();
    stop.set();
    assert!(matches!(waiting.join().unwrap(), Err(BackupError::Stopped)));
}
