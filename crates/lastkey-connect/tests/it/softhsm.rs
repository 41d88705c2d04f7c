//! A token of SoftHSM2 of one's own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const TOKEN: &str = "lastkey test";
pub(crate) const PIN: &str = "271828";

/// A folder with a token.
pub(crate) struct SoftHsm {
    folder: tempfile::TempDir,
}

impl SoftHsm {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let config = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        std::fs::write(folder.path().join("softhsm2.conf"), config).unwrap();
        let hsm = Self { folder };
        hsm.util(&["--init-token", "--free", "--label", TOKEN, "--so-pin", "314159", "--pin", PIN]);
        hsm.write_pin("pin", PIN);
        hsm
    }

    pub(crate) fn module() -> PathBuf {
        let places = ["/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/local/lib/softhsm"];
        let modules = places.map(|place| Path::new(place).join("libsofthsm2.so"));
        modules.into_iter().find(|path| path.exists()).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write_pin(&self, name: &str, pin: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, format!("{pin}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    fn util(&self, arguments: &[&str]) {
        let done = Command::new("softhsm2-util")
            .args(arguments)
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    }
}
