//! Variables that steer a program instead of telling it something.
//!
//! Room      `lastkey`.
//! Holds     whoever may write a secret chooses the names of its fields, and must not choose with
//!           them what code a program loads, whom it trusts or where it connects. No such list is
//!           whole: it stops the names that everybody knows.

/// Names by which loaders, shells, interpreters and TLS libraries are steered.
const WHOLE: [&str; 31] = [
    "ALL_PROXY",
    "BASHOPTS",
    "BASH_ENV",
    "CLASSPATH",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LOCPATH",
    "NODE_EXTRA_CA_CERTS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NO_PROXY",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "PATH",
    "PROMPT_COMMAND",
    "PS4",
    "REQUESTS_CA_BUNDLE",
    "RUBYLIB",
    "RUBYOPT",
    "SHELLOPTS",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_CONFIG_HOME",
    "_JAVA_OPTIONS",
];

/// What such names begin with.
const BEGINNINGS: [&str; 8] =
    ["BASH_FUNC", "DOTNET_", "DYLD_", "GIT_", "LASTKEY_", "LD_", "PERL5", "PYTHON"];

/// Whether a variable of this name steers programs.
pub(super) fn steers(name: &str) -> bool {
    WHOLE.contains(&name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::{WHOLE, steers};

    #[test]
    fn names_that_steer_are_known_and_names_that_tell_are_not() {
        assert!(WHOLE.is_sorted() && WHOLE.iter().all(|name| steers(name)));
        for name in ["LD_PRELOAD", "PYTHONSTARTUP", "LASTKEY_SERVER", "GIT_SSH_COMMAND", "PERL5OPT"]
        {
            assert!(steers(name), "{name}");
        }
        for name in ["APP_PATH", "DB_PASSWORD", "HOMEPAGE", "LD", "APP_LD_PRELOAD", "ENVOY"] {
            assert!(!steers(name), "{name}");
        }
    }
}
