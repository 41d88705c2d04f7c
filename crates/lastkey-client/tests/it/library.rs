//! Encryptors and decryptors in every form: each opens what each other made.

use std::{
    collections::HashSet,
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
};

use lastkey_client::{
    CacheLimits, DataKeyCache, Decryptor, EncryptionContext, Encryptor, EnvelopeError, Error,
    StreamError,
};
use lastkey_crypto::envelope::EnvelopeError as FormatError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::keeper::Keeper;

const SEGMENT_LEN: usize = 4_096;
const LENGTHS: [usize; 8] =
    [0, 1, 4_095, SEGMENT_LEN, SEGMENT_LEN + 1, 2 * SEGMENT_LEN, 2 * SEGMENT_LEN + 1, 20_000];

fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

fn encryptor(keeper: &Keeper) -> Encryptor {
    Encryptor::new(&keeper.client(), "alias/app").context(context()).segment_log2(12)
}

fn context() -> EncryptionContext {
    EncryptionContext::from_pairs([("app", "web")]).unwrap()
}

/// By every form of encryption.
async fn envelopes(encryptor: &Encryptor, plaintext: &[u8]) -> Vec<Vec<u8>> {
    let mut made = vec![encryptor.encrypt(plaintext).await.unwrap()];
    for piece_len in [1_000, SEGMENT_LEN, 3 * SEGMENT_LEN] {
        let mut writer = encryptor.writer(Vec::new()).await.unwrap();
        for piece in plaintext.chunks(piece_len) {
            Write::write_all(&mut writer, piece).unwrap();
        }
        Write::flush(&mut writer).unwrap();
        made.push(writer.finish().unwrap());
        // A pipe of seven bytes takes little at a time.
        let (near, mut far) = tokio::io::duplex(7);
        let mut writer = encryptor.writer(near).await.unwrap();
        let send = async {
            for piece in plaintext.chunks(piece_len) {
                AsyncWriteExt::write_all(&mut writer, piece).await.unwrap();
            }
            let stats = writer.stats();
            drop(writer.finish_async().await.unwrap());
            stats
        };
        let mut received = Vec::new();
        tokio::join!(send, async { far.read_to_end(&mut received).await.unwrap() });
        made.push(received);
    }
    made
}

/// By every form of decryption.
async fn plaintexts(decryptor: &Decryptor, envelope: &[u8]) -> Vec<Vec<u8>> {
    let mut read = vec![decryptor.decrypt(envelope).await.unwrap().expose(<[u8]>::to_vec)];
    let mut buffer = vec![9; 50_000];
    decryptor.decrypt_into(envelope, &mut buffer).await.unwrap();
    read.push(buffer);
    let mut plaintext = Vec::new();
    let mut reader = decryptor.reader(envelope).await.unwrap();
    AsyncReadExt::read_to_end(&mut reader, &mut plaintext).await.unwrap();
    read.push(plaintext);
    let mut reader = decryptor.reader(Trickle(envelope)).await.unwrap();
    let mut plaintext = Vec::new();
    AsyncReadExt::read_to_end(&mut reader, &mut plaintext).await.unwrap();
    read.push(plaintext);
    let mut plaintext = Vec::new();
    let mut reader = decryptor.seekable(Cursor::new(envelope)).await.unwrap();
    Read::read_to_end(&mut reader, &mut plaintext).unwrap();
    assert_eq!(reader.len(), plaintext.len() as u64);
    read.push(plaintext);
    read
}

/// Gives at most 1,000 bytes at once.
struct Trickle<'a>(&'a [u8]);

impl tokio::io::AsyncRead for Trickle<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        dest: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let len = self.0.len().min(dest.remaining()).min(1_000);
        let (now, later) = self.0.split_at(len);
        dest.put_slice(now);
        self.0 = later;
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn every_form_opens_what_every_form_made() {
    let keeper = Keeper::start().await;
    let (encryptor, decryptor) = (encryptor(&keeper), Decryptor::new(&keeper.client()));
    let cache = DataKeyCache::new(CacheLimits::default());
    let (encryptor, decryptor) = (encryptor.cache(&cache), decryptor.cache(&cache));
    for len in LENGTHS {
        let plaintext = sample(len);
        let mut salts = HashSet::new();
        for envelope in envelopes(&encryptor, &plaintext).await {
            for read in plaintexts(&decryptor, &envelope).await {
                assert!(read == plaintext, "{len}");
            }
            // Bytes 32 to 63 are the salt: one data key, never the same payload key.
            assert!(salts.insert(envelope[32..64].to_vec()));
        }
    }
    assert_eq!((keeper.asked("/v1/data-key"), keeper.asked("/v1/decrypt")), (1, 1));
}

#[tokio::test]
async fn stats_tell_both_lengths() {
    let keeper = Keeper::start().await;
    let mut writer = encryptor(&keeper).writer(Vec::new()).await.unwrap();
    Write::write_all(&mut writer, &sample(10_000)).unwrap();
    writer.try_finish().unwrap();
    writer.try_finish().unwrap();
    assert_eq!(writer.stats().plaintext_len, 10_000);
    assert_eq!(writer.stats().envelope_len, writer.get_ref().len() as u64);
    let late = Write::write(&mut writer, b"late").unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::Other);
}

/// What a reader gave until it failed, and the failure.
fn read_until_failure(mut reader: impl Read) -> (Vec<u8>, io::Error) {
    let (mut read, mut piece) = (Vec::new(), [0; 1_000]);
    loop {
        match reader.read(&mut piece) {
            Ok(0) => panic!("ended without a failure"),
            Ok(len) => read.extend_from_slice(&piece[..len]),
            Err(failure) => {
                let again = reader.read(&mut piece).unwrap_err();
                assert_eq!(again.kind(), failure.kind(), "a failure stays one");
                return (read, failure);
            }
        }
    }
}

#[tokio::test]
async fn envelope_that_was_cut_anywhere_never_ends_well() {
    let keeper = Keeper::start().await;
    let plaintext = sample(2 * SEGMENT_LEN + 20);
    let envelope = encryptor(&keeper).encrypt(&plaintext).await.unwrap();
    let cache = DataKeyCache::new(CacheLimits::default());
    let decryptor = Decryptor::new(&keeper.client()).cache(&cache);
    let header_len = envelope.len() - plaintext.len() - 3 * 16;
    let mut buffer = Vec::new();
    for len in (0..envelope.len()).filter(|len| len % 37 == 0 || *len >= header_len - 2) {
        let cut = &envelope[..len];
        assert!(decryptor.decrypt(cut).await.is_err(), "{len}");
        assert!(decryptor.decrypt_into(cut, &mut buffer).await.is_err(), "{len}");
        assert!(buffer.is_empty());
        assert!(decryptor.seekable(Cursor::new(cut)).await.is_err(), "{len}");
        let reader = decryptor.reader(cut).await;
        if len < header_len {
            assert!(reader.is_err(), "{len}");
            continue;
        }
        let header = reader.unwrap();
        let header = lastkey_client::Header::parse(&envelope[..header.header().len()]).unwrap();
        let reader = decryptor.reader_behind(header, &cut[header_len..]).await.unwrap();
        let (read, _) = read_until_failure(reader);
        assert!(plaintext.starts_with(&read) && read.len() < plaintext.len(), "{len}");
        assert_eq!(read.len() % SEGMENT_LEN, 0, "{len}");
    }
}

#[tokio::test]
async fn changed_segment_gives_nothing_of_itself() {
    let keeper = Keeper::start().await;
    let plaintext = sample(3 * SEGMENT_LEN);
    let envelope = encryptor(&keeper).encrypt(&plaintext).await.unwrap();
    let decryptor = Decryptor::new(&keeper.client());
    let sealed_len = SEGMENT_LEN + 16;
    let header_len = envelope.len() - 3 * sealed_len;
    for segment in 0..3 {
        let mut changed = envelope.clone();
        changed[header_len + segment * sealed_len + 5] ^= 1;
        assert!(matches!(
            decryptor.decrypt(&changed).await,
            Err(EnvelopeError::Stream(StreamError::Envelope(FormatError::Undecryptable)))
        ));
        let header = lastkey_client::Header::parse(&changed[..header_len]).unwrap();
        let reader = decryptor.reader_behind(header, &changed[header_len..]).await.unwrap();
        let (read, failure) = read_until_failure(reader);
        assert_eq!(failure.kind(), io::ErrorKind::InvalidData);
        assert_eq!(read, &plaintext[..segment * SEGMENT_LEN]);
        let seekable = decryptor.seekable(Cursor::new(changed)).await;
        if segment == 2 {
            assert!(seekable.is_err());
            continue;
        }
        let mut seekable = seekable.unwrap();
        let at = (segment * SEGMENT_LEN) as u64;
        assert!(seekable.range(at..at + 1).is_err());
        assert!(seekable.range(2 * 4_096..3 * 4_096).is_ok());
    }
}

#[tokio::test]
async fn any_range_is_that_of_the_plaintext() {
    let keeper = Keeper::start().await;
    let plaintext = sample(2 * SEGMENT_LEN + 100);
    let envelope = encryptor(&keeper).encrypt(&plaintext).await.unwrap();
    let mut reader =
        Decryptor::new(&keeper.client()).seekable(Cursor::new(envelope)).await.unwrap();
    let end = plaintext.len();
    for (from, to) in
        [(0, 0), (0, 1), (4_095, 4_097), (100, end), (end - 1, end), (end, end), (4_096, 8_192)]
    {
        let range = reader.range(from as u64..to as u64).unwrap();
        assert!(range.expose(|bytes| bytes == &plaintext[from..to]), "{from}..{to}");
    }
    let beyond = end as u64 + 1;
    #[expect(clippy::reversed_empty_ranges, reason = "what a caller may do wrong")]
    let wrong = [0..beyond, beyond..beyond, 5..4, 0..u64::MAX];
    for range in wrong {
        let refused = reader.range(range).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
    let mut byte = [0];
    assert_eq!(reader.seek(SeekFrom::End(-2)).unwrap(), end as u64 - 2);
    assert_eq!(reader.seek(SeekFrom::Current(1)).unwrap(), end as u64 - 1);
    assert_eq!((reader.read(&mut byte).unwrap(), byte[0]), (1, plaintext[end - 1]));
    assert_eq!(reader.read(&mut byte).unwrap(), 0);
    assert!(reader.seek(SeekFrom::Current(-99_999)).is_err());
}

#[tokio::test]
async fn unfinished_envelope_does_not_open() {
    let keeper = Keeper::start().await;
    let mut envelope = Vec::new();
    let mut writer = encryptor(&keeper).writer(&mut envelope).await.unwrap();
    Write::write_all(&mut writer, &sample(3 * SEGMENT_LEN)).unwrap();
    Write::flush(&mut writer).unwrap();
    drop(writer);
    assert!(Decryptor::new(&keeper.client()).decrypt(&envelope).await.is_err());
}

#[tokio::test]
async fn other_context_than_expected_is_refused_before_the_server_is_asked() {
    let keeper = Keeper::start().await;
    let envelope = encryptor(&keeper).encrypt(b"text").await.unwrap();
    let decryptor = Decryptor::new(&keeper.client());
    let other = EncryptionContext::from_pairs([("app", "mail")]).unwrap();
    let refused = decryptor.clone().expect_context(other).decrypt(&envelope).await;
    assert!(matches!(refused, Err(EnvelopeError::Context)));
    assert_eq!(keeper.asked("/v1/decrypt"), 0);
    let opened = decryptor.expect_context(context()).decrypt(&envelope).await.unwrap();
    assert!(opened.expose(|text| text == b"text"));
}

#[tokio::test]
async fn envelope_opens_under_each_of_its_keys() {
    let keeper = Keeper::start().await;
    let decryptor = Decryptor::new(&keeper.client());
    for (one, two) in [("alias/theirs", "alias/app"), ("alias/app", "alias/theirs")] {
        let encryptor = Encryptor::new(&keeper.client(), one).add_key(&keeper.client(), two);
        let envelope = encryptor.encrypt(b"text").await.unwrap();
        let opened = decryptor.decrypt(&envelope).await.unwrap();
        assert!(opened.expose(|text| text == b"text"));
    }
    let theirs = Encryptor::new(&keeper.client(), "alias/theirs").encrypt(b"text").await.unwrap();
    let refused = decryptor.decrypt(&theirs).await.unwrap_err();
    assert_eq!(refused.server_error().and_then(Error::code), Some("AccessDenied"));
}

#[tokio::test]
async fn thousand_envelopes_at_once_cost_one_call_each_way() {
    let keeper = Keeper::start().await;
    let cache = DataKeyCache::new(CacheLimits::default());
    let encryptor = encryptor(&keeper).cache(&cache);
    let tasks: Vec<_> = (0..1_000_u32)
        .map(|number| {
            let encryptor = encryptor.clone();
            tokio::spawn(async move { encryptor.encrypt(&number.to_be_bytes()).await.unwrap() })
        })
        .collect();
    let decryptor = Decryptor::new(&keeper.client()).cache(&cache);
    for (number, task) in tasks.into_iter().enumerate() {
        let opened = decryptor.decrypt(&task.await.unwrap()).await.unwrap();
        assert!(opened.expose(|bytes| bytes == (number as u32).to_be_bytes()));
    }
    assert_eq!((keeper.asked("/v1/data-key"), keeper.asked("/v1/decrypt")), (1, 1));
}

#[tokio::test]
async fn cache_gives_one_callers_data_keys_to_nobody_else() {
    let keeper = Keeper::start().await;
    let cache = DataKeyCache::new(CacheLimits::default());
    let envelope = encryptor(&keeper).cache(&cache).encrypt(b"text").await.unwrap();
    for (token, asked) in [("one", 1), ("one", 1), ("two", 2), ("one", 2)] {
        let client = lastkey_client::Client::new(&keeper.config(token)).unwrap();
        Decryptor::new(&client).cache(&cache).decrypt(&envelope).await.unwrap();
        assert_eq!(keeper.asked("/v1/decrypt"), asked, "{token}");
    }
}

#[tokio::test]
async fn failure_of_the_writer_behind_is_passed_on_and_can_be_tried_again() {
    /// Fails every other time, and takes three bytes the other times.
    struct Moody(Vec<u8>, bool);
    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Write::write(&mut self.0, &bytes[..bytes.len().min(3_000)])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let keeper = Keeper::start().await;
    let plaintext = sample(3 * SEGMENT_LEN + 5);
    let mut writer = encryptor(&keeper).writer(Moody(Vec::new(), false)).await.unwrap();
    let (mut left, mut failures) = (&plaintext[..], 0);
    while !left.is_empty() {
        match Write::write(&mut writer, left) {
            Ok(len) => left = &left[len..],
            Err(_) => failures += 1,
        }
    }
    while writer.try_finish().is_err() {
        failures += 1;
    }
    assert!(failures > 4);
    let envelope = &writer.get_ref().0;
    let opened = Decryptor::new(&keeper.client()).decrypt(envelope).await.unwrap();
    assert!(opened.expose(|bytes| bytes == plaintext));
}
