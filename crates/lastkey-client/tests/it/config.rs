//! Where a client finds its server. Each test is a process of its own: the environment is one.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use lastkey_client::{ClientConfig, ConfigError};

/// Set in the process that only answers what it found.
const ASKED: &str = "LASTKEY_TEST_ASKED";

/// Runs [`discovered_as_asked`] with these variables and no others.
fn discover(variables: &[(&str, &Path)]) -> String {
    let name = "config::discovered_as_asked";
    let mut asked = Command::new(std::env::current_exe().unwrap());
    asked.args(["--exact", name, "--nocapture", "--ignored"]).env_clear().env(ASKED, "1");
    let Output { stdout, .. } = asked.envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8(stdout).unwrap();
    let found = said.lines().find_map(|line| line.split_once("found: "));
    found.unwrap_or_else(|| panic!("{said}")).1.to_owned()
}

#[test]
#[ignore = "answers the other tests of this file, in a process of its own"]
fn discovered_as_asked() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    match ClientConfig::discover() {
        Ok(config) => {
            let token = config.token.map_or("none".to_owned(), |token| {
                token.expose(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
            });
            println!("found: {} {token}", config.addr);
        }
        Err(ConfigError::NotFound) => println!("found: nothing"),
        Err(error) => println!("found: error {error}"),
    }
}

#[test]
fn environment_comes_first_then_the_named_file_then_the_users() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    let named = write("named.toml", "addr = 'http://named'");
    write("lastkey/client.toml", "addr = 'http://xdg'");
    write(".config/lastkey/client.toml", "addr = 'http://home'");
    let addr = ("LASTKEY_ADDR", Path::new("http://environment"));
    let file = ("LASTKEY_CLIENT_CONFIG", named.as_path());
    let xdg = ("XDG_CONFIG_HOME", folder.path());
    let home = ("HOME", folder.path());
    let token = ("LASTKEY_TOKEN", Path::new("t0"));
    let empty = ("LASTKEY_ADDR", Path::new(""));
    for (variables, found) in [
        (&[addr, file, xdg, home][..], "http://environment:80 none"),
        (&[file, xdg, home, token, empty], "http://named:80 t0"),
        (&[xdg, home], "http://xdg:80 none"),
        (&[home, token], "http://home:80 t0"),
        (&[("XDG_CONFIG_HOME", Path::new("relative")), home], "http://home:80 none"),
    ] {
        assert_eq!(discover(variables), found, "{variables:?}");
    }
}

#[test]
fn named_file_that_is_wrong_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (home, none) = (("HOME", folder.path()), folder.path().join("none.toml"));
    let missing = discover(&[("LASTKEY_CLIENT_CONFIG", &none), home]);
    assert_eq!(missing, format!("error {}", none.display()));
}
