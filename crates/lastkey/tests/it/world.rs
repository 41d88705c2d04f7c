//! Servers as people start them, and their data directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::http::Http;
use crate::process::{Ended, Running, lastkey, run};

/// A server that serves.
pub(crate) struct Server {
    pub(crate) process: Running,
    /// The line that said so.
    pub(crate) ready: String,
    pub(crate) addr: String,
    pub(crate) token: String,
    /// Further variables for clients.
    pub(crate) env: Vec<(String, String)>,
}

impl Server {
    /// `lastkey dev` on a data directory, which may be new.
    #[track_caller]
    pub(crate) fn dev(data: &Path) -> Self {
        Self::dev_by(&mut dev_command(data), data)
    }

    /// The same by a command of one's own.
    #[track_caller]
    pub(crate) fn dev_by(command: &mut Command, data: &Path) -> Self {
        let process = Running::start(command);
        let ready = process.says("lastkey dev is ready on ");
        let ready = ready.unwrap_or_else(|| panic!("not ready: {}", process.complaint()));
        let text = fs::read_to_string(data.join("env")).unwrap();
        let variable = |name: &str| {
            let start = format!("{name}=");
            text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
        };
        Self {
            process,
            ready,
            addr: variable("LASTKEY_ADDR").unwrap(),
            token: variable("LASTKEY_TOKEN").unwrap(),
            env: Vec::new(),
        }
    }

    /// A connection of the administrator.
    pub(crate) fn admin(&self) -> Http {
        self.anybody().with_token(&self.token)
    }

    /// A connection without a token.
    pub(crate) fn anybody(&self) -> Http {
        Http::tcp(&self.addr).unwrap_or_else(|error| panic!("{}: {error}", self.addr))
    }

    /// `lastkey` as a client of this server.
    pub(crate) fn client<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = lastkey(arguments);
        command.env("LASTKEY_ADDR", &self.addr).env("LASTKEY_TOKEN", &self.token);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A command line, split at blanks.
    pub(crate) fn cli(&self, line: &str) -> Ended {
        self.cli_with(line, b"")
    }

    /// The same with something on standard input.
    pub(crate) fn cli_with(&self, line: &str, input: &[u8]) -> Ended {
        run(&mut self.client(line.split_whitespace()), input)
    }

    /// Creates a key and answers its id.
    #[track_caller]
    pub(crate) fn create(&self, body: &str) -> String {
        text(&self.admin().done("POST", "/v1/keys", body)["id"])
    }
}

/// The command of a development server on any free port.
pub(crate) fn dev_command(data: &Path) -> Command {
    let mut command = lastkey(["dev", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(data);
    command
}

/// An installation with a passphrase, made by `lastkey init`.
pub(crate) struct Installation {
    pub(crate) data: PathBuf,
    pub(crate) token: String,
    pub(crate) enrolment_code: String,
    pub(crate) fingerprint: String,
    pub(crate) passphrase: PathBuf,
    /// Further variables for its servers.
    pub(crate) env: Vec<(String, String)>,
}

pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

impl Installation {
    /// Founds one in a folder; the passphrase is cheap, because attempts on it are not the point.
    #[track_caller]
    pub(crate) fn found(folder: &Path) -> Self {
        let (data, passphrase) = (folder.join("data"), folder.join("passphrase"));
        fs::write(&passphrase, format!("{PASSPHRASE}\n")).unwrap();
        let mut init = lastkey(["init", "--argon2-memory", "1", "--argon2-passes", "1"]);
        init.arg("--data").arg(&data).arg("--passphrase-file").arg(&passphrase);
        let said = run(&mut init, b"").ok();
        let word = |start: &str| {
            let found = said.split_whitespace().find(|word| word.starts_with(start));
            found.unwrap_or_else(|| panic!("no {start} in {said}")).to_owned()
        };
        let (token, enrolment_code) = (word("lastkey_admin_"), word("lastkey_enrol_"));
        let (fingerprint, env) = (word("sha256:"), Vec::new());
        Self { data, token, enrolment_code, fingerprint, passphrase, env }
    }

    /// Starts `lastkey server` by a configuration file with these lines; sealed.
    #[track_caller]
    pub(crate) fn serve(&self, lines: &str) -> Server {
        self.serve_by(lines, &[])
    }

    /// The same with further flags.
    #[track_caller]
    pub(crate) fn serve_by(&self, lines: &str, flags: &[&str]) -> Server {
        let config = self.data.with_extension("toml");
        let tcp = if lines.contains("listen.") { "" } else { "listen.tcp = ['127.0.0.1:0']\n" };
        let text = format!("data = {:?}\n{tcp}{lines}\n", self.data.to_str().unwrap());
        fs::write(&config, text).unwrap();
        let mut command = lastkey(["server", "--config"]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let process = Running::start(command.arg(&config).args(flags));
        let ready = process.says("lastkey serves on ");
        let ready = ready.unwrap_or_else(|| panic!("not ready: {}", process.complaint()));
        let addr = ready.split([' ', ',']).find(|word| word.contains("://")).unwrap().to_owned();
        Server { process, ready, addr, token: self.token.clone(), env: Vec::new() }
    }

    /// A server in the clear, unsealed.
    #[track_caller]
    pub(crate) fn serve_unsealed(&self, lines: &str) -> Server {
        let server = self.serve(&format!("tls.mode = 'off'\n{lines}"));
        self.unseal(&server);
        server
    }

    #[track_caller]
    pub(crate) fn unseal(&self, server: &Server) {
        let mut unseal = server.client(["unseal", "--passphrase-file"]);
        run(unseal.arg(&self.passphrase), b"").ok();
    }
}

/// A string of JSON.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Every route in the server's own document, as `post /v1/encrypt`, and whether it is public.
pub(crate) fn routes(http: &mut Http) -> Vec<(String, bool)> {
    let document = http.done("GET", "/v1/openapi.json", "");
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_public = operation["security"] == serde_json::json!([]);
            routes.push((format!("{method} {path}"), is_public));
        }
    }
    routes
}

/// Records of the audit log in a data directory that match, newest first; needs no server.
#[track_caller]
pub(crate) fn audit_records(data: &Path, filter: &str) -> Vec<Value> {
    let mut command = lastkey(["audit", "search", "--limit", "100000", "--output", "json"]);
    command.args(filter.split_whitespace()).arg("--offline").arg(data.join("audit"));
    let said = run(&mut command, b"").ok();
    let record = |line: &str| serde_json::from_str::<Value>(line).unwrap()["record"].take();
    said.lines().map(record).collect()
}
