//! The protocol of MariaDB, as far as accounts need it: one login, statements as text.
//!
//! Room      `connect`, inside.
//! Source    MariaDB, "Clients & Utilities", protocol: initial handshake, SSLRequest, handshake
//!           response, authentication switch, COM_QUERY.
//! Holds     parsers of what a server says do not panic, and take no memory for claimed lengths: a
//!           packet has at most [`MAX_PACKET_LEN`] bytes, a result [`MAX_ROWS`] rows.

use std::io;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// Longest packet that is read, in bytes.
const MAX_PACKET_LEN: usize = 65_536;
/// Most rows of one result.
const MAX_ROWS: usize = 20_000;

/// What the client can, and what a server must be able to.
const LONG_PASSWORD: u32 = 1;
const PROTOCOL_41: u32 = 1 << 9;
const TLS: u32 = 1 << 11;
const SECURE_CONNECTION: u32 = 1 << 15;
const MULTI_RESULTS: u32 = 1 << 17;
const PLUGIN_AUTH: u32 = 1 << 19;
const CLIENT: u32 = LONG_PASSWORD | PROTOCOL_41 | SECURE_CONNECTION | MULTI_RESULTS | PLUGIN_AUTH;
/// utf8mb4_general_ci.
const CHARSET: u8 = 45;

/// The one way of showing a password that is answered.
pub(super) const NATIVE: &str = "mysql_native_password";
/// Of a challenge, in bytes.
const CHALLENGE_LEN: usize = 20;

/// Something that carries packets.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Why a conversation ended.
#[derive(Debug)]
pub(super) enum WireError {
    /// The server said no, by its number.
    Server(u16, String),
    /// No connection, or the end of it.
    Io(io::Error),
    /// It is no MariaDB, or not as it has to be.
    Foreign(&'static str),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

const MALFORMED: WireError = WireError::Foreign("it does not speak the protocol of MariaDB");

/// A connection, packet by packet.
pub(super) struct Wire<S> {
    stream: S,
    sequence: u8,
}

/// What a server says first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    challenge: [u8; CHALLENGE_LEN],
    capabilities: u32,
    plugin: String,
}

impl Greeting {
    /// Whether it can speak TLS.
    pub(super) const fn has_tls(&self) -> bool {
        self.capabilities & TLS != 0
    }
}

impl<S: Stream> Wire<S> {
    pub(super) const fn over(stream: S) -> Self {
        Self { stream, sequence: 0 }
    }

    /// The stream, and the number of the next packet, when TLS is to be spoken on it.
    pub(super) fn into_parts(self) -> (S, u8) {
        (self.stream, self.sequence)
    }

    /// The same conversation, gone on with over another stream.
    pub(super) const fn continued(stream: S, sequence: u8) -> Self {
        Self { stream, sequence }
    }

    async fn read(&mut self) -> Result<Zeroizing<Vec<u8>>, WireError> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await?;
        let [a, b, c, sequence] = head;
        let len = u32::from_le_bytes([a, b, c, 0]) as usize;
        if len > MAX_PACKET_LEN || sequence != self.sequence {
            return Err(MALFORMED);
        }
        self.sequence = sequence.wrapping_add(1);
        let mut packet = Zeroizing::new(vec![0; len]);
        self.stream.read_exact(&mut packet).await?;
        if let [0xff, low, high, message @ ..] = &packet[..] {
            // A state of five characters comes first, behind a `#`.
            let message = match message {
                [b'#', _, _, _, _, _, message @ ..] => message,
                message => message,
            };
            let message = String::from_utf8_lossy(message).into_owned();
            return Err(WireError::Server(u16::from_le_bytes([*low, *high]), message));
        }
        Ok(packet)
    }

    async fn write(&mut self, body: &[u8]) -> Result<(), WireError> {
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let [a, b, c, 0] = len else { return Err(WireError::Foreign("a statement is too long")) };
        let mut packet = Zeroizing::new(vec![a, b, c, self.sequence]);
        packet.extend_from_slice(body);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).await?;
        Ok(self.stream.flush().await?)
    }

    /// Reads what the server says first.
    ///
    /// # Errors
    /// [`WireError`].
    pub(super) async fn greeting(&mut self) -> Result<Greeting, WireError> {
        let packet = self.read().await?;
        parse_greeting(&packet)
    }

    /// Asks for TLS, which is to be spoken next.
    ///
    /// # Errors
    /// [`WireError`].
    pub(super) async fn ask_for_tls(&mut self) -> Result<(), WireError> {
        self.write(&head_of_response(CLIENT | TLS)).await
    }

    /// Logs in. The password is shown as an answer to a challenge, and in no other way.
    ///
    /// # Errors
    /// [`WireError`].
    pub(super) async fn log_in(
        &mut self,
        greeting: &Greeting,
        account: &str,
        password: &[u8],
        is_tls: bool,
    ) -> Result<(), WireError> {
        let mut body = head_of_response(if is_tls { CLIENT | TLS } else { CLIENT });
        body.extend_from_slice(account.as_bytes());
        body.push(0);
        let is_native = greeting.plugin == NATIVE;
        let answer = is_native.then(|| answer_to(&greeting.challenge, password));
        let answer = answer.as_deref().map_or(&[][..], Vec::as_slice);
        body.push(u8::try_from(answer.len()).unwrap_or(0));
        body.extend_from_slice(answer);
        body.extend_from_slice(NATIVE.as_bytes());
        body.push(0);
        self.write(&body).await?;
        loop {
            let packet = self.read().await?;
            match &packet[..] {
                [0, ..] => return Ok(()),
                [0xfe, rest @ ..] => {
                    let challenge = parse_switch(rest)?;
                    let answer = answer_to(&challenge, password);
                    self.write(&answer).await?;
                }
                _ => return Err(MALFORMED),
            }
        }
    }

    /// Does a statement; the first column of what it answers.
    ///
    /// # Errors
    /// [`WireError`].
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<String>, WireError> {
        self.sequence = 0;
        let mut body = vec![3];
        body.extend_from_slice(sql.as_bytes());
        self.write(&body).await?;
        let first = self.read().await?;
        let columns = match &first[..] {
            [0, ..] => return Ok(Vec::new()),
            // Nothing is read here for the server.
            [0xfb, ..] | [] => return Err(MALFORMED),
            [columns, ..] => *columns,
        };
        for _ in 0..columns {
            self.read().await?;
        }
        is_end(&self.read().await?).then_some(()).ok_or(MALFORMED)?;
        let mut rows = Vec::new();
        loop {
            let row = self.read().await?;
            if is_end(&row) {
                return Ok(rows);
            }
            if rows.len() >= MAX_ROWS {
                return Err(WireError::Foreign("it answers more rows than accounts can be"));
            }
            rows.push(first_column(&row).ok_or(MALFORMED)?);
        }
    }
}

/// Capabilities, longest packet and characters: how a response begins, and what asks for TLS.
fn head_of_response(capabilities: u32) -> Vec<u8> {
    let mut body = capabilities.to_le_bytes().to_vec();
    body.extend_from_slice(&(1_u32 << 24).to_le_bytes());
    body.push(CHARSET);
    body.extend_from_slice(&[0; 23]);
    body
}

fn is_end(packet: &[u8]) -> bool {
    matches!(packet, [0xfe, ..]) && packet.len() < 9
}

/// Splits at the first zero byte.
fn until_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn parse_greeting(packet: &[u8]) -> Result<Greeting, WireError> {
    let parsed = (|| {
        let (10, rest) = packet.split_first()? else { return None };
        let (version, rest) = until_zero(rest)?;
        // Thread, first part of the challenge, zero, capabilities, characters, status,
        // capabilities, length of the challenge, ten bytes.
        let (first, rest) = rest.split_at_checked(4)?.1.split_at_checked(8)?;
        let (low, rest) = rest.split_at_checked(1)?.1.split_at_checked(2)?;
        let (high, rest) = rest.split_at_checked(3)?.1.split_at_checked(2)?;
        let rest = rest.split_at_checked(11)?.1;
        let (second, rest) = rest.split_at_checked(CHALLENGE_LEN - 8)?;
        let (_, rest) = rest.split_at_checked(1)?;
        let plugin = until_zero(rest).map_or(rest, |(plugin, _)| plugin);
        let capabilities = [low, high].concat().try_into().ok().map(u32::from_le_bytes)?;
        let challenge = [first, second].concat().try_into().ok()?;
        let plugin = String::from_utf8_lossy(plugin).into_owned();
        let is_mariadb = version.windows(7).any(|part| part == b"MariaDB");
        Some((is_mariadb, Greeting { challenge, capabilities, plugin }))
    })();
    let (is_mariadb, greeting) = parsed.ok_or(MALFORMED)?;
    let needed = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;
    if !is_mariadb || greeting.capabilities & needed != needed {
        return Err(WireError::Foreign("it is no MariaDB of version 10.4 or later"));
    }
    Ok(greeting)
}

/// The challenge of another way to log in, which must be ours.
fn parse_switch(rest: &[u8]) -> Result<[u8; CHALLENGE_LEN], WireError> {
    let (plugin, rest) = until_zero(rest).ok_or(MALFORMED)?;
    if plugin != NATIVE.as_bytes() {
        return Err(WireError::Foreign(
            "it asks for the password in another way than mysql_native_password; let the account \
             log in by that",
        ));
    }
    let challenge = rest.get(..CHALLENGE_LEN).and_then(|bytes| bytes.try_into().ok());
    challenge.ok_or(MALFORMED)
}

fn first_column(row: &[u8]) -> Option<String> {
    let (len, rest) = match row.split_first()? {
        (0xfb, _) => return Some(String::new()),
        (len, rest) if *len < 0xfb => (usize::from(*len), rest),
        (0xfc, rest) => {
            let (len, rest) = rest.split_at_checked(2)?;
            (usize::from(u16::from_le_bytes(len.try_into().ok()?)), rest)
        }
        (_, _) => return None,
    };
    Some(String::from_utf8_lossy(rest.get(..len)?).into_owned())
}

fn sha1(parts: &[&[u8]]) -> Zeroizing<[u8; 20]> {
    let joined = Zeroizing::new(parts.concat());
    let mut out = Zeroizing::new([0; 20]);
    out.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &joined).as_ref());
    out
}

/// SHA1(password) XOR SHA1(challenge, SHA1(SHA1(password))).
fn answer_to(challenge: &[u8; CHALLENGE_LEN], password: &[u8]) -> Zeroizing<Vec<u8>> {
    let once = sha1(&[password]);
    let mask = sha1(&[challenge, &*sha1(&[&*once])]);
    Zeroizing::new(once.iter().zip(mask.iter()).map(|(a, b)| a ^ b).collect())
}

/// What the server keeps of a password.
pub(super) fn kept_of(password: &[u8]) -> String {
    let twice = sha1(&[&*sha1(&[password])]);
    let hex = twice.iter().map(|byte| format!("{byte:02X}"));
    std::iter::once("*".to_owned()).chain(hex).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(version: &str, plugin: &str) -> Vec<u8> {
        let low = (CLIENT as u16).to_le_bytes();
        let high = ((CLIENT >> 16) as u16).to_le_bytes();
        [
            &[10][..],
            version.as_bytes(),
            &[0, 1, 0, 0, 0],
            b"12345678",
            &[0],
            &low,
            &[45, 2, 0],
            &high,
            &[21],
            &[0; 10],
            b"901234567890",
            &[0],
            plugin.as_bytes(),
            &[0],
        ]
        .concat()
    }

    #[test]
    fn greeting_of_a_mariadb_is_read_and_no_other() {
        let whole = greeting("10.11.6-MariaDB-0+deb12u1", NATIVE);
        let read = parse_greeting(&whole).unwrap();
        assert_eq!((&read.challenge, &*read.plugin), (b"12345678901234567890", NATIVE));
        for len in 0..whole.len() - NATIVE.len() - 1 {
            assert!(parse_greeting(&whole[..len]).is_err(), "{len}");
        }
        assert!(parse_greeting(&greeting("8.0.36", NATIVE)).is_err());
    }

    #[test]
    fn packets_with_any_byte_changed_are_read_or_refused() {
        let whole = greeting("10.11.6-MariaDB", NATIVE);
        let switch = [NATIVE.as_bytes(), b"\0", &[7; 20], b"\0"].concat();
        for place in 0..whole.len().max(switch.len()) {
            for byte in [0, 1, 0x7f, 0xfb, 0xfc, 0xfe, 0xff] {
                for packet in [&whole, &switch] {
                    let mut changed = packet.clone();
                    if let Some(at) = changed.get_mut(place) {
                        *at = byte;
                    }
                    drop((
                        parse_greeting(&changed),
                        parse_switch(&changed),
                        first_column(&changed),
                    ));
                }
            }
        }
    }

    #[test]
    fn another_way_to_log_in_is_not_answered() {
        let switch = |plugin: &str| [plugin.as_bytes(), b"\0", &[7; 20], b"\0"].concat();
        assert_eq!(parse_switch(&switch(NATIVE)).ok(), Some([7; 20]));
        for plugin in ["mysql_clear_password", "dialog", "client_ed25519", ""] {
            assert!(parse_switch(&switch(plugin)).is_err(), "{plugin}");
        }
    }

    /// From the manual of MariaDB: what PASSWORD('mypass') answers.
    #[test]
    fn what_is_kept_of_a_password_is_what_the_manual_says() {
        assert_eq!(kept_of(b"mypass"), "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4");
    }

    #[test]
    fn columns_that_claim_more_than_there_is_are_refused() {
        assert_eq!(first_column(b"\x03abc").as_deref(), Some("abc"));
        assert_eq!(first_column(b"\xfc\x03\x00abc").as_deref(), Some("abc"));
        for bad in [&b""[..], b"\x04abc", b"\xfc\x03", b"\xfd\0\0\0", b"\xfe"] {
            assert_eq!(first_column(bad), None, "{bad:?}");
        }
    }
}
