//! `lastkey dev`: a server on loopback, ready to try things on.
//!
//! Room      the binary.
//! Holds     development only: the root key lies in a file beside the data.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use lastkey_http::Address;
use lastkey_secret::SecretVec;
use lastkey_service::sealing::{NewSeal, WayIn};

use super::{admin_token, init, server};
use crate::config::file::{ConfigFile, Listen, Log, Tls, TlsMode, Unseal};
use crate::config::resolved::Resolved;
use crate::{hardening, say, telemetry, tls_identity};

/// Runs a server on loopback for development: initialised, unsealed, and with a tour to paste.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data directory; made if it is not there, and taken up again if it is.
    #[arg(long, value_name = "DIR", default_value = "lastkey-dev")]
    data: PathBuf,
    /// Where to listen; port 0 takes any that is free.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8400")]
    listen: SocketAddr,
    /// Serve with TLS, by the data directory's own CA.
    #[arg(long)]
    tls: bool,
}

/// Runs it.
///
/// # Errors
/// As [`server::run`]; also when the address is not loopback.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        args.listen.ip().is_loopback(),
        "`lastkey dev` listens on loopback only, and {} is not; use `lastkey init` and `lastkey server`",
        args.listen
    );
    hardening::apply().context("cannot switch core dumps off")?;
    telemetry::start(&Log { filter: "warn".to_owned(), ..Log::default() })?;
    let keyfile = args.data.join("dev.key");
    let token = match known_token(&args.data)? {
        Some(token) => token,
        None => {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&args.data)
                .with_context(|| format!("cannot make {}", args.data.display()))?;
            found(&args.data, &keyfile)?
        }
    };
    let config = Resolved::of(ConfigFile {
        data: Some(args.data.clone()),
        listen: Listen { tcp: vec![args.listen], ..Listen::default() },
        tls: Tls {
            mode: if args.tls { TlsMode::SelfMade } else { TlsMode::Off },
            ..Tls::default()
        },
        unseal: Unseal { keyfile: Some(keyfile), ..Unseal::default() },
        ..ConfigFile::default()
    })?;
    server::start(config, |started| {
        let address = started.addresses.first().context("no address")?;
        let ca = args.tls.then(|| tls_identity::ca_path(&args.data));
        let env = write_env(&args.data, address, &token, ca.as_deref())?;
        say::line(&format!("lastkey dev is ready on {address}"))?;
        say::line(&tour(&env))
    })
}

/// Founds the installation. A key file without installation is left of an interrupted start;
/// so is an installation without token, which gets a new one.
fn found(data: &Path, keyfile: &Path) -> anyhow::Result<SecretVec> {
    let founded = init::found(data, || {
        remove_if_there(keyfile)?;
        Ok(NewSeal::Keyfile(init::new_keyfile(keyfile)?))
    })?;
    let token = match founded {
        Some(founded) => founded.admin_token,
        None => match admin_token::replace(data, &admin_token::read_keyfile(keyfile)?)? {
            WayIn::Token(token) => token,
            WayIn::EnrolmentCode(_) => bail!(
                "an administrator is enrolled in {}, so there is no token; use `lastkey server`",
                data.display()
            ),
        },
    };
    // Written at once: a stop before the server is ready must not lose the token.
    write_private(&token_path(data), &token)?;
    Ok(token)
}

/// Takes over a new token, where the data directory is one of `lastkey dev`.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn take_over_token(data: &Path, token: &SecretVec) -> anyhow::Result<()> {
    let path = token_path(data);
    if path.exists() { write_private(&path, token) } else { Ok(()) }
}

/// Writes a file of mode 0600 whole: it is the old one or the new one.
fn write_private(path: &Path, content: &SecretVec) -> anyhow::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    remove_if_there(&fresh)?;
    content.expose(|content| tls_identity::write_new(&fresh, content, 0o600))?;
    std::fs::rename(&fresh, path).with_context(|| format!("cannot write {}", path.display()))
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn token_path(data: &Path) -> PathBuf {
    data.join("dev.token")
}

/// The token of an installation that is there already.
fn known_token(data: &Path) -> anyhow::Result<Option<SecretVec>> {
    let path = token_path(data);
    match std::fs::read(&path) {
        Ok(token) => Ok(Some(SecretVec::take(token))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => bail!("cannot read {}: {error}", path.display()),
    }
}

/// Writes what a client needs to know, with mode 0600, and answers where.
fn write_env(
    data: &Path,
    address: &Address,
    token: &SecretVec,
    ca: Option<&Path>,
) -> anyhow::Result<PathBuf> {
    let mut text = format!("LASTKEY_ADDR={address}\n").into_bytes();
    text.extend_from_slice(b"LASTKEY_TOKEN=");
    token.expose(|token| text.extend_from_slice(token));
    text.push(b'\n');
    let mut names = "LASTKEY_ADDR LASTKEY_TOKEN".to_owned();
    if let Some(ca) = ca {
        let ca = std::path::absolute(ca).context("cannot name the CA file")?;
        text.extend_from_slice(format!("LASTKEY_CA={}\n", shell_quoted(&ca)).as_bytes());
        names.push_str(" LASTKEY_CA");
    }
    text.extend_from_slice(format!("export {names}\n").as_bytes());
    let path = data.join("env");
    write_private(&path, &SecretVec::take(text))?;
    Ok(path)
}

/// A path as a shell reads it, quoted only when it has to be.
fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+".contains(&b);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn tour(env: &Path) -> String {
    let env = std::path::absolute(env).unwrap_or_else(|_| env.to_owned());
    format!(
        "\nDevelopment only: the root key lies in a file beside the data.\n\
         In another terminal, paste:\n\n\
         \x20 . {env}\n\
         \x20 lastkey key create --alias alias/app\n\
         \x20 echo 'hello' > hello.txt\n\
         \x20 lastkey encrypt --key alias/app hello.txt -o hello.txt.lk\n\
         \x20 lastkey key rotate alias/app\n\
         \x20 lastkey decrypt hello.txt.lk -o again.txt\n\
         \x20 cmp hello.txt again.txt && echo same\n\n\
         Stop with Ctrl-C; start again with the same --data to go on.",
        env = shell_quoted(&env)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_env_file_is_private_and_can_be_sourced_or_parsed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let token = SecretVec::copy_of(b"lastkey_admin_0123");
        let address = Address::Http(SocketAddr::from(([127, 0, 0, 1], 8400)));
        for _ in 0..2 {
            let path = write_env(dir.path(), &address, &token, None).unwrap();
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let text = std::fs::read_to_string(dir.path().join("env")).unwrap();
        let expected = "LASTKEY_ADDR=http://127.0.0.1:8400\nLASTKEY_TOKEN=lastkey_admin_0123\n\
                        export LASTKEY_ADDR LASTKEY_TOKEN\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_path_with_blanks_is_quoted() {
        assert_eq!(shell_quoted(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(shell_quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
