//! Encrypted files that went wrong: an exit code, words, and no output.

use std::fs;
use std::path::Path;

use crate::process::{Ended, names, run};
use crate::world::Server;

/// A server and a folder with a file of three segments, encrypted.
struct Desk {
    _data: tempfile::TempDir,
    folder: tempfile::TempDir,
    server: Server,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    header_len: usize,
}

impl Desk {
    fn open() -> Self {
        let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let server = Server::dev(&data.path().join("d"));
        server.cli("key create --alias alias/app").ok();
        let plain: Vec<u8> = (0..600_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        fs::write(folder.path().join("plain"), &plain).unwrap();
        let mut desk =
            Self { _data: data, folder, server, plain, sealed: Vec::new(), header_len: 0 };
        desk.run("encrypt --key alias/app plain -o sealed", b"").ok();
        desk.sealed = fs::read(desk.path().join("sealed")).unwrap();
        let header = desk.run("inspect sealed --output json", b"").json();
        desk.header_len = usize::try_from(header["header_bytes"].as_u64().unwrap()).unwrap();
        desk
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, line: &str, input: &[u8]) -> Ended {
        self.run_by(&self.server, line, input)
    }

    fn run_by(&self, server: &Server, line: &str, input: &[u8]) -> Ended {
        let mut command = server.client(line.split_whitespace());
        run(command.current_dir(self.path()), input)
    }

    /// Decrypts bytes to a file, which must fail and leave nothing.
    #[track_caller]
    fn refuses(&self, bytes: &[u8], what: &str) {
        let before = names(self.path());
        for line in ["decrypt -o out", "verify"] {
            let ended = self.run(line, bytes);
            assert_eq!(ended.code, Some(5), "{what}: {line}: {}", ended.stderr);
            ended.failed(5);
        }
        assert_eq!(names(self.path()), before, "{what}");
    }
}

/// Length of a segment with its tag.
const SEGMENT: usize = (256 << 10) + 16;

#[test]
fn file_that_was_cut_or_put_together_anew_is_refused() {
    let desk = Desk::open();
    let (sealed, header) = (&desk.sealed, desk.header_len);
    assert_eq!(desk.run("decrypt sealed", b"").stdout, desk.plain);
    assert_eq!(sealed.len(), header + desk.plain.len() + 3 * 16);
    let in_header = [0, 1, 7, 8, 63, 64, 128, 511, 512, header - 1];
    let behind = [0, 1, 16, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT].map(|at| header + at);
    for end in in_header.into_iter().chain(behind).chain([17, 1].map(|len| sealed.len() - len)) {
        desk.refuses(&sealed[..end], &format!("cut at {end}"));
    }
    desk.refuses(&[&sealed[..], &[0]].concat(), "one byte more");
    let (head, body) = sealed.split_at(header);
    let (first, second) = (&body[..SEGMENT], &body[SEGMENT..2 * SEGMENT]);
    let rest = &body[2 * SEGMENT..];
    desk.refuses(&[head, second, first, rest].concat(), "segments swapped");
    desk.refuses(&[head, first, rest].concat(), "a segment left out");
}

#[test]
fn file_with_a_flipped_bit_is_refused_wherever_it_is() {
    let desk = Desk::open();
    let (sealed, header) = (&desk.sealed, desk.header_len);
    // Magic, format, suite, segment size, flags, lengths, reserved bytes, salt, commitment,
    // context; sequence, recipient and MAC of the slot; then the segments.
    let in_header = [0, 7, 8, 9, 10, 11, 14, 18, 20, 32, 63, 64, 95, 96, 512, 524, 560, 620];
    let behind = [0, 100, SEGMENT - 1, SEGMENT, 2 * SEGMENT + 5].map(|at| header + at);
    for place in in_header.into_iter().chain(behind).chain([sealed.len() - 1]) {
        let mut flipped = sealed.clone();
        flipped[place] ^= 1;
        desk.refuses(&flipped, &format!("flipped at {place}"));
    }
}

#[test]
fn files_that_are_no_envelopes_are_refused() {
    let desk = Desk::open();
    desk.refuses(b"just text\n", "a text");
    desk.refuses(&vec![0; 100_000], "zeros");
    desk.refuses(&desk.plain, "the plaintext");
    let ended = desk.run("inspect plain", b"");
    ended.failed(5);
}

#[test]
fn output_that_cannot_be_made_is_told_by_its_path() {
    let desk = Desk::open();
    fs::write(desk.path().join("out"), "before").unwrap();
    for line in ["decrypt sealed -o out", "encrypt --key alias/app plain -o out"] {
        let ended = desk.run(line, b"");
        assert!(ended.failed(7).contains("--force"), "{}", ended.stderr);
        assert_eq!(fs::read(desk.path().join("out")).unwrap(), b"before");
        let ended = desk.run(&line.replace("-o out", "-o no/such/out"), b"");
        assert!(ended.failed(7).contains("no/such"), "{}", ended.stderr);
    }
    desk.run("decrypt sealed -o out --force", b"").ok();
    assert_eq!(fs::read(desk.path().join("out")).unwrap(), desk.plain);
    for line in ["decrypt no-such-file", "encrypt --key alias/app no-such-file"] {
        assert!(desk.run(line, b"").failed(7).contains("no-such-file"), "{line}");
    }
    assert_eq!(names(desk.path()), ["out", "plain", "sealed"]);
}

#[test]
fn empty_and_exactly_full_files_come_back() {
    let desk = Desk::open();
    for len in [0, 1, 256 << 10, (256 << 10) + 1, 512 << 10] {
        let plain = &desk.plain[..len];
        let sealed = desk.run("encrypt --key alias/app", plain);
        assert_eq!(sealed.code, Some(0), "{}", sealed.stderr);
        let opened = desk.run("decrypt", &sealed.stdout);
        assert_eq!((opened.code, &opened.stdout[..]), (Some(0), plain), "{len}: {}", opened.stderr);
        desk.refuses(&sealed.stdout[..sealed.stdout.len() - 1], "cut by one");
    }
}

#[test]
fn same_file_twice_gives_two_ciphertexts() {
    let desk = Desk::open();
    desk.run("encrypt --key alias/app plain -o again", b"").ok();
    let again = fs::read(desk.path().join("again")).unwrap();
    let header = desk.header_len;
    assert_ne!(again[header..header + 64], desk.sealed[header..header + 64]);
}

#[test]
fn key_that_is_held_back_decrypts_again_once_it_is_enabled() {
    let desk = Desk::open();
    desk.run("key disable alias/app", b"").ok();
    for line in ["decrypt sealed -o out", "encrypt --key alias/app plain -o out", "verify sealed"] {
        let ended = desk.run(line, b"");
        assert!(ended.failed(1).contains("code: KeyState"), "{}", ended.stderr);
    }
    assert_eq!(names(desk.path()), ["plain", "sealed"]);
    desk.run("key enable alias/app", b"").ok();
    desk.run("decrypt sealed -o out", b"").ok();
}

#[test]
fn other_server_refuses_the_file_and_opens_nothing() {
    let desk = Desk::open();
    let folder = tempfile::tempdir().unwrap();
    let other = Server::dev(&folder.path().join("d"));
    other.cli("key create --alias alias/app").ok();
    for line in ["decrypt sealed -o out", "verify sealed"] {
        let ended = desk.run_by(&other, line, b"");
        assert!(ended.failed(4).contains("code: AccessDenied"), "{}", ended.stderr);
        assert!(ended.stderr.contains("request: "), "{}", ended.stderr);
    }
    // The same alias, but another key.
    let (ours, theirs) =
        (desk.run("key list --output json", b""), other.cli("key list --output json"));
    assert_ne!(ours.json()["keys"][0]["id"], theirs.json()["keys"][0]["id"]);
    assert_eq!(names(desk.path()), ["plain", "sealed"]);
}
