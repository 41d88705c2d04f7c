//! The protocol of MariaDB and MySQL, as far as accounts need it: a login, statements as text.
//!
//! Room      `connect`, inside.
//! Source    MariaDB, "Clients & Utilities", protocol: initial handshake, SSLRequest, handshake
//!           response, authentication switch, COM_QUERY; MySQL, source documentation, AuthMoreData.
//! Holds     parsers of what a server says do not panic, and take no memory for claimed lengths: a
//!           packet has at most [`MAX_PACKET_LEN`] bytes, a result [`MAX_ROWS`] rows. The password itself is
//!           sent to a MySQL alone, and not where others can read along: there it is refused before
//!           the login, since one that knows the password today asks for the next one.

use std::io;

use lastkey_core::database::Login;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::dialect::Dialect;
use super::password::{CHALLENGE_LEN, Plugin};

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
    /// It is neither MariaDB nor MySQL, or not as it has to be.
    Foreign(&'static str),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) const MALFORMED: WireError =
    WireError::Foreign("it does not speak the protocol of MariaDB and MySQL");
const IN_THE_CLEAR: WireError = WireError::Foreign(
    "it asks for the password itself, which is not sent in the clear: give the address of its \
     socket (mysql:///NAME?socket=/FILE), or the authority of its certificate (--database-ca), so \
     that TLS is spoken",
);

/// What a conversation goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A socket in the file system.
    Socket,
    /// TLS with a checked certificate.
    Tls,
    /// Loopback, as it is.
    Clear,
}

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
    plugin: Option<Plugin>,
    dialect: Dialect,
}

impl Greeting {
    /// Which of the two it is.
    pub(super) const fn dialect(&self) -> Dialect {
        self.dialect
    }

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

    /// Logs in. The password is shown as an answer to a challenge; a MySQL that asks for it gets it, and is
    /// not logged in to where somebody may read along.
    ///
    /// # Errors
    /// [`WireError`].
    pub(super) async fn log_in(
        &mut self,
        greeting: &Greeting,
        login: Login<'_>,
        line: Line,
    ) -> Result<(), WireError> {
        let dialect = greeting.dialect;
        if dialect == Dialect::MySql && line == Line::Clear {
            return Err(IN_THE_CLEAR);
        }
        let password = Zeroizing::new(login.password.expose(<[u8]>::to_vec));
        let mut plugin = greeting.plugin.unwrap_or(dialect.plugin());
        let answer = plugin.answer(&greeting.challenge, &password);
        let mut body = head_of_response(if line == Line::Tls { CLIENT | TLS } else { CLIENT });
        body.extend_from_slice(login.account.as_bytes());
        body.push(0);
        body.push(u8::try_from(answer.len()).unwrap_or(0));
        body.extend_from_slice(&answer);
        body.extend_from_slice(plugin.name().as_bytes());
        body.push(0);
        self.write(&body).await?;
        loop {
            let packet = self.read().await?;
            match (&packet[..], plugin) {
                ([0, ..], _) => return Ok(()),
                ([0xfe, rest @ ..], _) => {
                    let (other, challenge) = parse_switch(rest, dialect)?;
                    plugin = other;
                    self.write(&plugin.answer(&challenge, &password)).await?;
                }
                // The answer was right; that it lets in comes next.
                ([1, 3], Plugin::CachingSha2) => {}
                ([1, 4], Plugin::CachingSha2) => {
                    let ended = Zeroizing::new([&password[..], b"\0"].concat());
                    self.write(&ended).await?;
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
        Some((challenge, capabilities, plugin, Dialect::of_version(version)))
    })();
    let (challenge, capabilities, plugin, dialect) = parsed.ok_or(MALFORMED)?;
    let needed = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;
    match dialect {
        Some(dialect) if capabilities & needed == needed => {
            Ok(Greeting { challenge, capabilities, plugin: dialect.answered(plugin), dialect })
        }
        Some(_) | None => Err(WireError::Foreign(
            "it is neither a MariaDB of version 10.4 or later nor a MySQL of version 8.0 or later",
        )),
    }
}

/// Another way to log in, which must be one of ours, and its challenge.
fn parse_switch(rest: &[u8], dialect: Dialect) -> Result<(Plugin, [u8; CHALLENGE_LEN]), WireError> {
    let (name, rest) = until_zero(rest).ok_or(MALFORMED)?;
    let plugin = dialect.answered(name).ok_or(WireError::Foreign(dialect.refusal()))?;
    let challenge = rest.get(..CHALLENGE_LEN).and_then(|bytes| bytes.try_into().ok());
    Ok((plugin, challenge.ok_or(MALFORMED)?))
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

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;

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

    const NATIVE: &str = "mysql_native_password";
    const CACHING: &str = "caching_sha2_password";
    const MARIADB: &str = "10.11.6-MariaDB-0+deb12u1";
    const MYSQL: &str = "8.4.4-0ubuntu2";

    #[test]
    fn greetings_of_mariadb_and_mysql_are_read_and_no_other() {
        for (version, plugin, dialect, read) in [
            (MARIADB, NATIVE, Dialect::MariaDb, Some(Plugin::Native)),
            (MARIADB, CACHING, Dialect::MariaDb, None),
            (MYSQL, CACHING, Dialect::MySql, Some(Plugin::CachingSha2)),
            (MYSQL, NATIVE, Dialect::MySql, Some(Plugin::Native)),
            (MYSQL, "sha256_password", Dialect::MySql, None),
        ] {
            let whole = greeting(version, plugin);
            let greeted = parse_greeting(&whole).unwrap();
            assert_eq!(&greeted.challenge, b"12345678901234567890");
            assert_eq!((greeted.dialect, greeted.plugin), (dialect, read), "{version} {plugin}");
            for len in 0..whole.len() - plugin.len() - 1 {
                assert!(parse_greeting(&whole[..len]).is_err(), "{len}");
            }
        }
        assert!(parse_greeting(&greeting("5.7.44", NATIVE)).is_err());
    }

    fn switch(plugin: &str) -> Vec<u8> {
        [plugin.as_bytes(), b"\0", &[7; 20], b"\0"].concat()
    }

    #[test]
    fn packets_with_any_byte_changed_are_read_or_refused() {
        let packets = [greeting(MARIADB, NATIVE), greeting(MYSQL, CACHING), switch(CACHING)];
        for place in 0..packets.iter().map(Vec::len).max().unwrap() {
            for byte in [0, 1, 0x7f, 0xfb, 0xfc, 0xfe, 0xff] {
                for packet in &packets {
                    let mut changed = packet.clone();
                    if let Some(at) = changed.get_mut(place) {
                        *at = byte;
                    }
                    drop((
                        parse_greeting(&changed),
                        parse_switch(&changed, Dialect::MySql),
                        first_column(&changed),
                    ));
                }
            }
        }
    }

    #[test]
    fn another_way_to_log_in_is_not_answered() {
        let read = |plugin: &str, dialect| parse_switch(&switch(plugin), dialect).ok();
        assert_eq!(read(NATIVE, Dialect::MariaDb), Some((Plugin::Native, [7; 20])));
        assert_eq!(read(NATIVE, Dialect::MySql), Some((Plugin::Native, [7; 20])));
        assert_eq!(read(CACHING, Dialect::MySql), Some((Plugin::CachingSha2, [7; 20])));
        assert_eq!(read(CACHING, Dialect::MariaDb), None);
        for plugin in ["mysql_clear_password", "sha256_password", "dialog", "client_ed25519", ""] {
            assert_eq!(read(plugin, Dialect::MariaDb), None, "{plugin}");
            assert_eq!(read(plugin, Dialect::MySql), None, "{plugin}");
        }
    }

    /// A server that says this, packet by packet, and lets in after that; how the login ended, and the
    /// last packet that it heard.
    async fn logs_in(
        version: &str,
        line: Line,
        says: &[&[u8]],
    ) -> (Result<(), WireError>, Vec<u8>) {
        let (ours, theirs) = tokio::io::duplex(4_096);
        let password = SecretVec::copy_of(b"hunter2");
        let login = Login { account: "root", password: &password };
        let client = async {
            let mut wire = Wire::over(ours);
            let greeting = wire.greeting().await.unwrap();
            wire.log_in(&greeting, login, line).await
        };
        let plugin = if version == MYSQL { CACHING } else { NATIVE };
        let server = async {
            let mut wire = Wire::over(theirs);
            wire.write(&greeting(version, plugin)).await.unwrap();
            let mut heard = Vec::new();
            // It hangs up where it does not log in.
            let Ok(packet) = wire.read().await else { return heard };
            heard.extend_from_slice(&packet);
            for packet in says {
                wire.write(packet).await.unwrap();
                if !matches!(packet, [1, 3]) {
                    match wire.read().await {
                        Ok(packet) => heard = packet.to_vec(),
                        // It has hung up.
                        Err(_) => return heard,
                    }
                }
            }
            wire.write(&[0]).await.unwrap();
            heard
        };
        tokio::join!(client, server)
    }

    #[tokio::test]
    async fn password_itself_goes_to_a_mysql_where_nobody_reads_along() {
        for line in [Line::Socket, Line::Tls] {
            let (ended, heard) = logs_in(MYSQL, line, &[&[1, 4]]).await;
            assert!(ended.is_ok() && heard == b"hunter2\0", "{line:?}: {ended:?}");
        }
        let to_native = [&[0xfe], &switch(NATIVE)[..]].concat();
        for (version, line, says) in [
            (MYSQL, Line::Tls, &[&to_native[..], &[1, 4]][..]),
            (MARIADB, Line::Tls, &[&[1, 4]]),
            (MARIADB, Line::Socket, &[&[1, 4]]),
        ] {
            let (ended, heard) = logs_in(version, line, says).await;
            assert!(matches!(ended, Err(WireError::Foreign(_))), "{version} {line:?}");
            assert!(!heard.windows(7).any(|part| part == b"hunter2"), "{version} {line:?}");
        }
    }

    /// Also when it would let in by an answer: it would not any more once it has another password.
    #[tokio::test]
    async fn mysql_in_the_clear_is_refused_before_it_is_told_anything() {
        let to_native = [&[0xfe], &switch(NATIVE)[..]].concat();
        for says in [&[1_u8, 3][..], &[1, 4], &to_native] {
            let (ended, heard) = logs_in(MYSQL, Line::Clear, &[says]).await;
            assert!(
                matches!(ended, Err(WireError::Foreign(why)) if why.contains("--database-ca")),
                "{says:?}: {ended:?}"
            );
            assert_eq!(heard, b"", "{says:?}");
        }
        let (ended, _) = logs_in(MARIADB, Line::Clear, &[]).await;
        assert!(ended.is_ok(), "{ended:?}");
    }

    #[tokio::test]
    async fn answer_that_a_mysql_knows_lets_in() {
        let (ended, heard) = logs_in(MYSQL, Line::Socket, &[&[1, 3]]).await;
        let answer = Plugin::CachingSha2.answer(b"12345678901234567890", b"hunter2");
        assert!(ended.is_ok() && heard.windows(32).any(|part| part == &answer[..]));
        let to_native = [&[0xfe], &switch(NATIVE)[..]].concat();
        let (ended, heard) = logs_in(MYSQL, Line::Socket, &[&to_native]).await;
        assert!(ended.is_ok());
        assert_eq!(heard, **Plugin::Native.answer(&[7; 20], b"hunter2"));
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
