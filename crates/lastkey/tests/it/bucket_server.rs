//! A bucket of S3 of a test's own: a process of Python, over TLS on loopback.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::process::{not_run, set_up};

/// A served bucket, `kept`; it ends when it is dropped.
pub(crate) struct Bucket {
    pub(crate) folder: tempfile::TempDir,
    child: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
    pub(crate) endpoint: String,
    pub(crate) key_id: String,
    pub(crate) secret_key: String,
    /// PEM file with its authority.
    pub(crate) authority: PathBuf,
}

impl Bucket {
    /// Starts one; says loudly that the test did not run when there is none.
    pub(crate) fn start() -> Option<Self> {
        let tools = set_up("python-venv/tools").and_then(|path| fs::read_to_string(path).ok());
        let python = set_up("python-venv/bin/python");
        let Some(python) = python.filter(|_| tools.is_some_and(|all| all.contains("moto"))) else {
            not_run("SKIPPED a bucket: scripts/setup has not brought moto, which serves it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (authority, key) = (folder.path().join("s3.pem"), folder.path().join("s3.key"));
        fs::write(&authority, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/python/s3_server.py");
        let mut server = Command::new(python);
        server.args(["-B", script]).arg(&authority).arg(&key);
        server.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = server.spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let words: Vec<_> = first.split_whitespace().map(str::to_owned).collect();
        let [port, key_id, secret_key] = <[String; 3]>::try_from(words).expect("a bucket");
        let endpoint = format!("https://localhost:{port}");
        Some(Self { folder, child, orders, said, endpoint, key_id, secret_key, authority })
    }

    /// Has it do something beside the door, and answers what it says.
    #[track_caller]
    pub(crate) fn tell(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the bucket has ended at {order}");
        line.trim_end().to_owned()
    }

    /// Lines of a configuration by which a server reaches it; the credential is in a file.
    pub(crate) fn config(&self) -> String {
        let credentials = self.folder.path().join("credentials");
        let text = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            self.key_id, self.secret_key
        );
        fs::write(&credentials, text).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&credentials, private).unwrap();
        format!(
            "backup.s3.endpoint = '{}'\nbackup.s3.authority = '{}'\n\
             backup.s3.credentials_file = '{}'\n",
            self.endpoint,
            self.authority.display(),
            credentials.display()
        )
    }

    /// The variables by which a command reaches it.
    pub(crate) fn env(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL_S3", self.endpoint.clone()),
            ("AWS_CA_BUNDLE", self.authority.display().to_string()),
            ("AWS_ACCESS_KEY_ID", self.key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
        ]
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
