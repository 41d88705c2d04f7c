//! `login --oidc`: a person logs in at his own provider, by a browser here or a code elsewhere.
//!
//! Room      `lastkey`.
//! Source    OpenID Connect Core 1.0; RFC 7636 (PKCE); RFC 8252, section 7.3 (loopback); RFC 8628
//!           (device flow).
//! Holds     The ID token goes to the server that it is for, and to no file. The browser comes back
//!           to a port of this machine that was opened for this one login.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use lastkey_connect::guard::{Answer, Guard, Limits, OutboundError, Outgoing, Trust};
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_secret::SecretVec;
use lastkey_trust::oidc::{DeviceAuthorization, Discovery, Login, TokenAnswer, TokenReply};
use lastkey_wire::SecretText;
use lastkey_wire::native::sessions::ProviderReply;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use super::text;
use crate::cli::{failure::Failure, output};

/// How long a person has to log in at a browser.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest request of a browser that is read, in bytes.
const MAX_REQUEST_LEN: usize = 16 << 10;

/// What a login brought: the ID token, and the nonce that it has to carry.
pub(super) struct LoggedIn {
    pub(super) id_token: SecretText,
    pub(super) nonce: Option<SecretText>,
}

/// Somebody's provider.
struct Provider {
    addresses: Discovery,
    client_id: String,
    trust: Trust,
}

/// Logs a person in.
pub(super) async fn log_in(
    provider: ProviderReply,
    by_device: bool,
    authority: Option<&Path>,
) -> Result<LoggedIn, Failure> {
    let authority = match authority {
        Some(path) => Some(text(path)?),
        None => provider.ca,
    };
    let trust = Trust::from(authority.as_deref());
    let place = Discovery::address_of(&provider.issuer);
    let place = place.ok_or_else(|| refused("its issuer is no https:// address"))?;
    let answer = call(&place, &trust, Outgoing::get("")).await?;
    let addresses = Discovery::parse(&answer.body, &provider.issuer);
    let addresses = addresses.map_err(|error| refused(&error.to_string()))?;
    let provider = Provider { addresses, client_id: provider.client_id, trust };
    if by_device { provider.by_device().await } else { provider.by_browser().await }
}

impl Provider {
    async fn by_browser(&self) -> Result<LoggedIn, Failure> {
        let endpoint = self.addresses.authorization_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| refused("it has no page to log in; try --device"))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(listening)?;
        let port = listener.local_addr().map_err(listening)?.port();
        let back = format!("http://127.0.0.1:{port}/callback");
        let login = Login::begin(self.addresses.issuer.clone(), &mut SystemEntropy)
            .map_err(|error| refused(&error.to_string()))?;
        let page = {
            let secrets = login.secrets();
            let mut query = Form::default()
                .with("response_type", "code")
                .with("client_id", &self.client_id)
                .with("redirect_uri", &back)
                .with("scope", "openid")
                .with("code_challenge", &secrets.pkce.challenge)
                .with("code_challenge_method", "S256");
            query.add_secret("state", &secrets.state);
            query.add_secret("nonce", &secrets.nonce);
            let joint = if endpoint.contains('?') { '&' } else { '?' };
            format!("{endpoint}{joint}{}", query.0)
        };
        output::note(&format!("Log in at:\n\n  {page}\n"));
        let came = timeout(PATIENCE, wait_for_browser(&listener)).await;
        let came = came.map_err(|_| refused("nobody logged in within five minutes"))??;
        if let Some(error) = came.get("error") {
            return Err(refused(&format!("it answered {error}")));
        }
        let state = came.get("state").unwrap_or_default();
        let state = SecretVec::copy_of(state.as_bytes());
        let secrets = login
            .accept_callback(&state, came.get("iss"))
            .map_err(|_| refused("what came back belongs to another login"))?;
        let mut form = Form::default()
            .with("grant_type", "authorization_code")
            .with("client_id", &self.client_id)
            .with("redirect_uri", &back)
            .with("code", came.get("code").ok_or_else(|| refused("it sent no code"))?);
        form.add_secret("code_verifier", &secrets.pkce.verifier);
        match self.token(form).await? {
            TokenAnswer::Tokens(reply) => {
                Ok(LoggedIn { nonce: Some(SecretText(secrets.nonce)), ..logged_in(reply) })
            }
            TokenAnswer::Pending | TokenAnswer::SlowDown => Err(refused("it gave no token")),
            TokenAnswer::Denied | TokenAnswer::Expired => Err(refused("it refused the code")),
        }
    }

    async fn by_device(&self) -> Result<LoggedIn, Failure> {
        let endpoint = self.addresses.device_authorization_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| refused("it has no device flow"))?;
        let asked = Form::default().with("client_id", &self.client_id).with("scope", "openid");
        let answer = call(endpoint, &self.trust, asked.post()).await?;
        let device = DeviceAuthorization::parse(&answer.body)
            .map_err(|_| refused("its answer to a device cannot be read"))?;
        let whole = device.verification_uri_complete.as_ref().unwrap_or(&device.verification_uri);
        output::note(&format!(
            "On any device, open\n\n  {whole}\n\nand enter the code {}\n",
            device.user_code
        ));
        let until = Instant::now() + device.expires_in;
        let mut pause = device.interval;
        while Instant::now() < until {
            sleep(pause).await;
            let mut form = Form::default()
                .with("grant_type", "urn:ietf:params:oauth:grant-type:device_code")
                .with("client_id", &self.client_id);
            form.add_secret("device_code", &device.device_code);
            match self.token(form).await? {
                TokenAnswer::Tokens(reply) => return Ok(logged_in(reply)),
                TokenAnswer::Pending => {}
                TokenAnswer::SlowDown => pause += Duration::from_secs(5),
                TokenAnswer::Denied => return Err(refused("the login was refused there")),
                TokenAnswer::Expired => break,
            }
        }
        Err(refused("nobody entered the code in time"))
    }

    async fn token(&self, form: Form) -> Result<TokenAnswer, Failure> {
        let endpoint = self.addresses.token_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| refused("it hands out no tokens"))?;
        let answer = call(endpoint, &self.trust, form.post()).await?;
        TokenAnswer::parse(&answer.body).map_err(|_| refused("its token answer cannot be read"))
    }
}

fn logged_in(reply: TokenReply) -> LoggedIn {
    LoggedIn { id_token: SecretText(reply.id_token), nonce: None }
}

async fn call(url: &str, trust: &Trust, outgoing: Outgoing) -> Result<Answer, Failure> {
    let reach = |error: OutboundError| refused(&error_chain(&error));
    let route = Guard::default().route(url, trust, None).map_err(reach)?;
    route.call(outgoing, Limits::default()).await.map_err(reach)
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn refused(why: &str) -> Failure {
    Failure::Input(format!("the login at the provider failed: {why}"))
}

fn listening(source: std::io::Error) -> Failure {
    Failure::Io { doing: "listen for the browser on loopback".to_owned(), source }
}

/// `application/x-www-form-urlencoded`, and the query of an address.
#[derive(Default)]
struct Form(String);

impl Form {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.add(name, value.as_bytes());
        self
    }

    fn add_secret(&mut self, name: &str, value: &SecretVec) {
        value.expose(|value| self.add(name, value));
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        for byte in value {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                self.0.push(char::from(*byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(self.0, "%{byte:02X}");
            }
        }
    }

    fn post(self) -> Outgoing {
        let mut outgoing = Outgoing { method: Method::POST, ..Outgoing::get("") };
        outgoing.body = self.0.into();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        outgoing.with(CONTENT_TYPE, form)
    }
}

/// What a browser brought back.
struct Came(Vec<(String, String)>);

impl Came {
    /// A value that is there once.
    fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(one, _)| one == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            (None | Some(_), _) => None,
        }
    }

    fn parse(query: &str) -> Option<Self> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            Some((unescaped(name)?, unescaped(value)?))
        };
        query.split('&').map(pair).collect::<Option<Vec<_>>>().map(Self)
    }
}

/// Undoes percent-encoding; `None` for what is none, or moves a cursor.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                bytes.push(u8::try_from(digit()? << 4 | digit()?).ok()?);
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

/// Answers the browser until it brings what was asked for.
async fn wait_for_browser(listener: &TcpListener) -> Result<Came, Failure> {
    loop {
        let (mut stream, _) = listener.accept().await.map_err(listening)?;
        let mut request = Vec::new();
        let mut part = [0; 1_024];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST_LEN {
            match timeout(Duration::from_secs(5), stream.read(&mut part)).await {
                Ok(Ok(len)) if len > 0 => request.extend(part.iter().take(len)),
                Ok(Ok(_) | Err(_)) | Err(_) => break,
            }
        }
        let target = std::str::from_utf8(&request).ok().and_then(|text| {
            text.strip_prefix("GET ")?.split(' ').next()?.strip_prefix("/callback?")
        });
        let came = target.and_then(Came::parse);
        let (status, words) = match came {
            Some(_) => ("200 OK", "You may close this page and go back to the terminal."),
            None => ("404 Not Found", "Nothing is here."),
        };
        let len = words.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{words}"
        );
        // A browser that does not wait for the words has done its part.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        if let Some(came) = came {
            return Ok(came);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_escapes_what_would_end_a_value() {
        let form = Form::default().with("a", "x&b=1 \u{e9}").with("c", "-._~");
        assert_eq!(form.0, "a=x%26b%3D1%20%C3%A9&c=-._~");
    }

    #[test]
    fn callback_is_read_strictly() {
        let came = Came::parse("code=a%2Bb&state=x+y").unwrap();
        assert_eq!((came.get("code"), came.get("state")), (Some("a+b"), Some("x y")));
        assert_eq!(came.get("iss"), None);
        assert_eq!(Came::parse("code=1&code=2").unwrap().get("code"), None);
        for bad in ["code", "code=%", "code=%4", "code=%zz", "code=%FF", "error=%1B%5B2J"] {
            assert!(Came::parse(bad).is_none(), "{bad}");
        }
    }
}
