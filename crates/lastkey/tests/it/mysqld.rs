//! A MariaDB or a MySQL of a test's own: a folder, a socket in it, and no port.

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::fs;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::postgres::{NOBODY, is_root, unprivileged};
use crate::process::{Running, not_run, set_up};

/// A running server; it ends when it is dropped.
pub(crate) struct Mysqld {
    _server: Running,
    folder: tempfile::TempDir,
    scheme: &'static str,
    /// Its client, and what stands before its arguments.
    client: Vec<OsString>,
}

impl Mysqld {
    /// Starts a MariaDB; says loudly that the test did not run when there is none.
    pub(crate) fn mariadb() -> Option<Self> {
        let (server, install) = ("/usr/sbin/mariadbd", "/usr/bin/mariadb-install-db");
        let client = "/usr/bin/mariadb";
        if ![server, install, client].iter().all(|path| Path::new(path).exists()) {
            not_run("MariaDB is not installed (scripts/setup)");
            return None;
        }
        let folder = folder();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut made = unprivileged(Path::new(install));
        made.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
        made.arg(in_folder(&folder, "datadir", "data"));
        made.env("PATH", "/usr/sbin:/usr/bin:/bin").env("TMPDIR", folder.path());
        succeeds(made.args(["--skip-test-db", "--skip-log-bin"]));
        let mut start = unprivileged(Path::new(server));
        start.arg("--no-defaults").env("TMPDIR", folder.path());
        let this = Self::started(&mut start, folder, "mariadb", vec![client.into()]);
        this.prepare("CREATE USER, CONNECTION ADMIN ON *.*", "SELECT, UPDATE ON mysql.*");
        Some(this)
    }

    /// The same with a MySQL, which comes out of a folder of packages: the one of scripts/setup-mysql, or
    /// the one that `LASTKEY_MYSQL` names.
    pub(crate) fn mysql() -> Option<Self> {
        let ours = set_up("mysql");
        let root = std::env::var_os("LASTKEY_MYSQL").map(PathBuf::from).or_else(|| ours.clone());
        let server = root.as_deref().and_then(|root| out_of(root, "usr/sbin/mysqld"));
        let client = ours.and_then(|root| out_of(&root, "usr/bin/mysql"));
        let (Some(root), Some(server), Some(client)) = (root, server, client) else {
            not_run("there is no MySQL (scripts/setup-mysql)");
            return None;
        };
        let folder = folder();
        let command = || {
            let mut command = command_of(&server);
            command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("TMPDIR", folder.path());
            command.args(["--no-defaults", "--secure-file-priv=NULL", "--mysqlx=OFF"]);
            command.args(is_root().then_some("--user=root"));
            // Drawing keys that nobody uses takes longer than all else.
            command.arg("--auto-generate-certs=OFF");
            command.arg("--caching-sha2-password-auto-generate-rsa-keys=OFF");
            for (setting, place) in [
                ("basedir", "usr"),
                ("lc-messages-dir", "usr/share/mysql"),
                ("character-sets-dir", "usr/share/mysql/charsets"),
                ("plugin-dir", "usr/lib/mysql/plugin"),
            ] {
                command.arg(setting_of(setting, &root.join(place)));
            }
            command
        };
        succeeds(command().arg("--initialize-insecure").arg(in_folder(&folder, "datadir", "data")));
        let this = Self::started(&mut command(), folder, "mysql", client);
        this.prepare("CREATE USER, PROCESS, CONNECTION_ADMIN ON *.*", "SELECT ON mysql.user");
        Some(this)
    }

    fn started(
        start: &mut Command,
        folder: tempfile::TempDir,
        scheme: &'static str,
        client: Vec<OsString>,
    ) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("certificate"), made.cert.pem()).unwrap();
        fs::write(folder.path().join("key"), made.signing_key.serialize_pem()).unwrap();
        start.args(["--skip-networking", "--skip-log-bin", "--general-log=1"]);
        start.arg("--innodb-flush-log-at-trx-commit=0");
        for (setting, name) in [
            ("datadir", "data"),
            ("socket", "s"),
            ("pid-file", "pid"),
            ("general-log-file", "log"),
            ("ssl-cert", "certificate"),
            ("ssl-key", "key"),
        ] {
            start.arg(in_folder(&folder, setting, name));
        }
        let server = Running::start(start);
        server.logs("ready for connections");
        Self { _server: server, folder, scheme, client }
    }

    /// A database, a role that owns it, and the root account with the rights that docs/rotation.md and
    /// docs/databases.md name.
    fn prepare(&self, rights: &str, reading: &str) {
        self.sql("CREATE DATABASE shop; CREATE ROLE shop_rw; GRANT ALL ON shop.* TO shop_rw");
        self.sql("CREATE USER lastkey@'%' IDENTIFIED BY 'first'");
        self.sql(&format!("GRANT {rights} TO lastkey@'%'; GRANT {reading} TO lastkey@'%'"));
        self.sql("GRANT shop_rw TO lastkey@'%' WITH ADMIN OPTION");
    }

    /// The place of a file of its own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its address, as `database add` takes it.
    pub(crate) fn address(&self) -> String {
        format!("{}:///shop?socket={}", self.scheme, self.path("s").display())
    }

    /// A port on loopback that leads to its socket, for some connections.
    pub(crate) fn port(&self) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (port, socket) = (listener.local_addr().unwrap().port(), self.path("s"));
        std::thread::spawn(move || {
            for here in listener.incoming().take(16) {
                // The server may have ended.
                let Ok(there) = UnixStream::connect(&socket) else { return };
                join(here.unwrap(), there);
            }
        });
        port
    }

    /// Its client, run by somebody, with a statement.
    pub(crate) fn client(&self, (user, password): (&str, &str), sql: &str) -> Command {
        let mut client = command_of(&self.client);
        client.args(["--no-defaults", "-N", "-B", "-u", user, "-S"]);
        client.arg(self.path("s")).args(["-e", sql]).env("MYSQL_PWD", password);
        client.stdin(Stdio::null());
        client
    }

    /// What a statement of its administrator answers.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        let done = self.client(("root", ""), sql).output().unwrap();
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Whether an account can log in by this password.
    pub(crate) fn lets_in(&self, user: &str, password: &str) -> bool {
        self.client((user, password), "SELECT 1").output().unwrap().status.success()
    }

    /// The accounts of leases that there are.
    pub(crate) fn accounts(&self) -> String {
        self.sql("SELECT User FROM mysql.user WHERE User LIKE 'lk\\_%'")
    }

    /// Every statement that it was told.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap()).into_owned()
    }
}

/// A folder with a short name: a socket's path is short.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("lk-my").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn setting_of(setting: &str, path: &Path) -> String {
    format!("--{setting}={}", path.display())
}

fn in_folder(folder: &tempfile::TempDir, setting: &str, name: &str) -> String {
    setting_of(setting, &folder.path().join(name))
}

#[track_caller]
fn succeeds(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn command_of(words: &[OsString]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// A program out of a folder into which packages of another system were unpacked, run with what it is linked
/// to there.
fn out_of(root: &Path, program: &str) -> Option<Vec<OsString>> {
    let libraries = ["usr/lib", "lib"].map(|lib| root.join(format!("{lib}/{ARCH}-linux-gnu")));
    let loader =
        format!("ld-linux-{}", if ARCH == "x86_64" { "x86-64.so.2" } else { "aarch64.so.1" });
    let loader = libraries.iter().map(|folder| folder.join(&loader)).find(|path| path.exists())?;
    let program = Some(root.join(program)).filter(|path| path.exists())?;
    let libraries = std::env::join_paths(&libraries).unwrap();
    Some(vec![loader.into(), "--library-path".into(), libraries, program.into()])
}

/// Carries bytes both ways until both have ended.
fn join(here: TcpStream, there: UnixStream) {
    let (mut from_here, mut to_there) = (here.try_clone().unwrap(), there.try_clone().unwrap());
    let (mut from_there, mut to_here) = (there, here);
    std::thread::spawn(move || {
        // Either end may hang up.
        let _ = std::io::copy(&mut from_here, &mut to_there);
        let _ = to_there.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_there, &mut to_here);
        let _ = to_here.shutdown(Shutdown::Write);
    });
}
