//! Requests over HTTP/1.1: a few by hand, many by wrk.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::programs::cpu_seconds;

/// Seconds of one load run.
pub(crate) const SECONDS: u32 = 4;

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    token: String,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) fn open(address: &str, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), token: token.to_owned() })
    }

    /// Posts JSON and answers the JSON that comes back.
    ///
    /// # Errors
    /// When the answer is no success.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> anyhow::Result<serde_json::Value> {
        self.send("POST", path, body)
    }

    /// The same by another method.
    ///
    /// # Errors
    /// When the answer is no success.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> anyhow::Result<serde_json::Value> {
        let request = request(method, path, &self.token, body);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(status.contains(" 200 ") || status.contains(" 201 "), "{path}: {status}{text}");
        Ok(serde_json::from_slice(&answer)?)
    }
}

fn request(method: &str, path: &str, token: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A server under load.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) address: &'a str,
    pub(crate) token: &'a str,
    pub(crate) pid: u32,
}

/// What a server did.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Requests for each second of its processor time.
    pub(crate) by_cpu: f64,
    /// Within how many milliseconds 99 of 100 were answered.
    pub(crate) p99_ms: f64,
}

/// Loads a server from core 1. The bodies are sent in turn.
///
/// # Errors
/// When wrk fails, or any answer is no success.
pub(crate) fn load(
    target: Target<'_>,
    path: &str,
    bodies: &[String],
    connections: u32,
) -> anyhow::Result<Measured> {
    let script = std::env::temp_dir().join(format!("lastkey-wrk-{}.lua", std::process::id()));
    std::fs::write(&script, lua(target.token, path, bodies))?;
    let before = cpu_seconds(target.pid)?;
    let load = wrk(target.address, &script, connections, SECONDS);
    std::fs::remove_file(&script)?;
    let (rate, p99_ms) = load?;
    let cpu = cpu_seconds(target.pid)? - before;
    Ok(Measured { rate, by_cpu: rate * f64::from(SECONDS) / cpu.max(0.01), p99_ms })
}

/// The requests are made before the run, so that the generator costs little.
fn lua(token: &str, path: &str, bodies: &[String]) -> String {
    let mut script = String::from("local requests = {}\nlocal bodies = {\n");
    for body in bodies {
        // Writing to a String cannot fail.
        let _ = writeln!(script, "[==[{body}]==],");
    }
    let _ = write!(
        script,
        "}}\nlocal headers = {{ ['authorization'] = 'Bearer {token}', \
         ['content-type'] = 'application/json' }}\n\
         init = function() for i, body in ipairs(bodies) do \
         requests[i] = wrk.format('POST', '{path}', headers, body) end end\n\
         local n = 0\nrequest = function() n = n % #requests + 1 return requests[n] end\n"
    );
    script
}

/// Requests a second, and the milliseconds within which 99 of 100 were answered.
fn wrk(address: &str, script: &Path, connections: u32, seconds: u32) -> anyhow::Result<(f64, f64)> {
    let output = Command::new("taskset")
        .args(["-c", "1", "wrk", "-t1", "--latency"])
        .args([format!("-c{connections}"), format!("-d{seconds}s"), "-s".to_owned()])
        .arg(script)
        .arg(format!("http://{address}"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {text}");
    ensure!(!text.contains("Non-2xx"), "wrk got refusals: {text}");
    let said = |name| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let rate = said("Requests/sec:").context("wrk printed no rate")?.parse();
    let p99 = said("99%").and_then(milliseconds).context("wrk printed no latency")?;
    Ok((rate.context("the rate of wrk")?, p99))
}

/// A time as wrk prints it: `812.00us`, `1.23ms`, `1.50s`.
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let of = |(unit, scale)| text.strip_suffix(unit)?.parse::<f64>().ok().map(|n| n * scale);
    units.into_iter().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_wrk_are_milliseconds() {
        for (text, expected) in [("812.00us", 0.812), ("1.25ms", 1.25), ("1.50s", 1_500.0)] {
            let read = milliseconds(text).unwrap();
            assert!((read - expected).abs() < 1e-9, "{text}: {read}");
        }
        assert_eq!(milliseconds("soon"), None);
    }
}
