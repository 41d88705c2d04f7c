//! A small blocking HTTP/1.1 client, so that every byte on the wire is the test's own.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

/// A stream of either kind.
trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// One keep-alive connection, with a token or without.
pub(crate) struct Http {
    stream: BufReader<Box<dyn Duplex>>,
    token: Option<String>,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Http {
    /// Connects to `http://host:port`.
    pub(crate) fn tcp(addr: &str) -> io::Result<Self> {
        let host = addr.strip_prefix("http://").expect("an address in the clear");
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(Box::new(stream)), token: None })
    }

    /// Connects to a unix socket.
    pub(crate) fn unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        Ok(Self { stream: BufReader::new(Box::new(stream)), token: None })
    }

    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()
    }

    /// The head of a request, its body still to come.
    pub(crate) fn head(&self, method: &str, target: &str, len: usize, more: &str) -> String {
        let token = self.token.as_deref();
        let token = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
        let body = if len == 0 && more.is_empty() {
            String::new()
        } else {
            format!("Content-Type: application/json\r\nContent-Length: {len}\r\n")
        };
        format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{token}{body}{more}\r\n")
    }

    /// One request and its answer.
    pub(crate) fn send(&mut self, method: &str, target: &str, body: &[u8]) -> io::Result<Answer> {
        let mut request = self.head(method, target, body.len(), "").into_bytes();
        request.extend_from_slice(body);
        // A server may answer and close before it has read a body that it refuses.
        let written = self.write(&request);
        self.read_answer().or_else(|error| written.and(Err(error)))
    }

    /// As [`Http::send`], for a connection that has to live.
    pub(crate) fn answer(&mut self, method: &str, target: &str, body: &str) -> Answer {
        let answer = self.send(method, target, body.as_bytes());
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// The JSON of an answer with status 200.
    pub(crate) fn done(&mut self, method: &str, target: &str, body: &str) -> Value {
        let answer = self.answer(method, target, body);
        assert_eq!(answer.status, 200, "{method} {target}: {}", answer.text());
        answer.json()
    }

    /// Reads one answer.
    pub(crate) fn read_answer(&mut self) -> io::Result<Answer> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        let len = answer.header("content-length").map_or("0", |text| text);
        answer.body = vec![0; len.parse().map_err(|_| io::ErrorKind::InvalidData)?];
        self.stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error of an answer, which must have this status and code, and the request id of the
    /// header.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let error = self.json()["error"].clone();
        assert_eq!((self.status, error["code"].as_str()), (status, Some(code)), "{error}");
        let id = self.header("x-request-id").expect("a request id");
        assert!(!id.is_empty() && error["request_id"] == id, "{id}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        error
    }
}

/// Bytes as they stand in JSON.
pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes of a field.
#[track_caller]
pub(crate) fn bytes(field: &Value) -> Vec<u8> {
    use base64::Engine as _;
    let text = field.as_str().unwrap_or_else(|| panic!("no text: {field}"));
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
