//! A PostgreSQL of a test's own: a folder, a socket in it, and no port.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Running, not_run};

/// Who runs it when the tests are root, which PostgreSQL refuses to be.
pub(crate) const NOBODY: u32 = 65_534;

/// A running server; it ends when it is dropped.
pub(crate) struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    server: Running,
}

impl Postgres {
    /// Makes a cluster and starts it; says loudly that the test did not run when there is none.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            not_run("PostgreSQL is not installed (scripts/setup)");
            return None;
        };
        // A socket's path is short: not under the folder of the build.
        let folder = tempfile::Builder::new().prefix("lk-pg").tempdir_in("/tmp").unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        if is_root() {
            for path in [folder.path(), &data] {
                chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut made = unprivileged(&programs.join("initdb"));
        made.args(["--no-sync", "--auth-host=reject", "--auth-local=scram-sha-256"]);
        made.args(["--username=postgres", "--encoding=UTF8", "--locale=C", "-D"]).arg(&data);
        let password = folder.path().join("password");
        fs::write(&password, "postgres").unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
        let made = made.arg("--pwfile").arg(&password).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut start = unprivileged(&programs.join("postgres"));
        start.arg("-D").arg(&data).arg("-k").arg(folder.path());
        for setting in ["listen_addresses=", "fsync=off", "log_statement=all", "max_connections=30"]
        {
            start.args(["-c", setting]);
        }
        let server = Running::start(&mut start);
        server.logs("database system is ready to accept connections");
        let this = Self { folder, programs, server };
        this.sql("CREATE DATABASE shop");
        Some(this)
    }

    /// Its address, as `database add` takes it.
    pub(crate) fn address(&self) -> String {
        format!("postgresql:///shop?host={}", self.folder.path().display())
    }

    /// `psql` by somebody, with a statement.
    pub(crate) fn psql(&self, (user, password): (&str, &str), at: &str, sql: &str) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", at]);
        psql.arg("-h").arg(self.folder.path()).args(["-c", sql]);
        psql.env("PGPASSWORD", password).stdin(Stdio::null());
        psql
    }

    /// Does something as its administrator.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) {
        self.one(sql);
    }

    /// The one value that a query answers.
    #[track_caller]
    pub(crate) fn one(&self, sql: &str) -> String {
        let at = if sql.starts_with("CREATE DATABASE") { "postgres" } else { "shop" };
        self.one_at(at, sql)
    }

    /// The same in another database of the server.
    #[track_caller]
    pub(crate) fn one_at(&self, at: &str, sql: &str) -> String {
        let done = self.psql(("postgres", "postgres"), at, sql).output().unwrap();
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Whether an account can log in by this password.
    pub(crate) fn lets_in(&self, account: &str, password: &str) -> bool {
        self.psql((account, password), "shop", "SELECT 1").output().unwrap().status.success()
    }

    /// What it has logged, every statement included.
    pub(crate) fn log(&self) -> String {
        self.server.complaint()
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A command that runs as nobody when the tests are root.
pub(crate) fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/tmp").env_clear().env("LC_ALL", "C").env("TZ", "UTC");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Where the newest one is installed: Debian keeps each version apart.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders: Vec<_> =
        versions.filter_map(|version| Some(version.ok()?.path().join("bin"))).collect();
    folders.retain(|folder| folder.join("initdb").exists() && folder.join("psql").exists());
    folders.sort_unstable();
    folders.pop()
}
