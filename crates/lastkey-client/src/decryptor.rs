//! Decryption on this machine, with data keys that the server recovers.
//!
//! Room      `client`.
//! Source    `docs/formats/envelope.md`.

use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom},
};

use lastkey_crypto::{
    context::EncryptionContext,
    envelope::{
        EnvelopeError as FormatError, Header, KIND_LASTKEY, Opener, PREFIX_LEN, PayloadKeys,
    },
    stream::{StreamError, read_header},
};
use lastkey_secret::SecretVec;
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroize;

use crate::{
    cache::{CacheId, DataKeyCache, ProtectedKey},
    client::Client,
    envelope::EnvelopeError,
    range::RangeReader,
    reader::DecryptReader,
    whole,
};

/// Decrypts envelopes on this machine; the server recovers the data key and never sees the
/// data. Cheap to clone; one decryptor may serve many tasks at once. See [`crate::Encryptor`].
#[derive(Clone)]
pub struct Decryptor {
    client: Client,
    context: Option<EncryptionContext>,
    cache: Option<DataKeyCache>,
}

impl fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decryptor").field("context", &self.context).finish_non_exhaustive()
    }
}

impl Decryptor {
    /// Decrypts what the caller of `client` may decrypt.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), context: None, cache: None }
    }

    /// Refuses envelopes with another context than this, before the server is asked. Without
    /// it the context of the envelope is accepted, whatever it is.
    #[must_use]
    pub fn expect_context(mut self, context: EncryptionContext) -> Self {
        self.context = Some(context);
        self
    }

    /// Keeps recovered data keys for a while; see [`DataKeyCache`].
    #[must_use]
    pub fn cache(mut self, cache: &DataKeyCache) -> Self {
        self.cache = Some(cache.clone());
        self
    }

    /// Decrypts an envelope that is in memory as a whole. It works on the caller's thread, as
    /// [`crate::Encryptor::encrypt`] does.
    ///
    /// # Errors
    /// [`EnvelopeError`]; nothing of the plaintext is given then.
    pub async fn decrypt(&self, envelope: &[u8]) -> Result<SecretVec, EnvelopeError> {
        let (keys, segments, len) = self.unlock_whole(envelope).await?;
        SecretVec::try_fill(len, |out| whole::open(&keys, segments, out)).map_err(wrong)
    }

    /// [`Self::decrypt`] into a buffer, which is used again when it is large enough, and which
    /// the caller wipes. Its content is replaced; after an error it is wiped and empty.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub async fn decrypt_into(
        &self,
        envelope: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let unlocked = self.unlock_whole(envelope).await.inspect_err(|_| out.zeroize());
        let (keys, segments, len) = unlocked?;
        if out.capacity() < len {
            // The old buffer is given back below, and may hold an older plaintext.
            out.zeroize();
        }
        whole::fit(out, len);
        whole::open(&keys, segments, out).inspect_err(|_| out.zeroize()).map_err(wrong)
    }

    /// Reads the header from an `AsyncRead` and decrypts what follows, in constant memory.
    ///
    /// ```no_run
    /// use lastkey_client::{Client, Decryptor};
    ///
    /// # async fn example(inner: impl tokio::io::AsyncRead + Unpin)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let mut reader = Decryptor::new(&Client::connect()?).reader(inner).await?;
    /// tokio::io::copy(&mut reader, &mut tokio::io::sink()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`EnvelopeError`]; reading fails later where a segment is not authentic.
    pub async fn reader<R: AsyncRead + Unpin>(
        &self,
        mut inner: R,
    ) -> Result<DecryptReader<R>, EnvelopeError> {
        let header = read_header_async(&mut inner).await?;
        self.reader_behind(header, inner).await
    }

    /// Decrypts what follows a header that was read already, by `Read` or `AsyncRead`.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub async fn reader_behind<R>(
        &self,
        header: Header,
        inner: R,
    ) -> Result<DecryptReader<R>, EnvelopeError> {
        let keys = self.unlock(&header).await?;
        Ok(DecryptReader::new(inner, header, Opener::new(&keys).map_err(wrong)?))
    }

    /// Opens an envelope for reading anywhere in it. The last segment is verified here. Reads
    /// the header and that segment on the caller's thread.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub async fn seekable<R: Read + Seek>(
        &self,
        mut inner: R,
    ) -> Result<RangeReader<R>, EnvelopeError> {
        inner.seek(SeekFrom::Start(0)).map_err(StreamError::Read)?;
        let header = read_header(&mut inner)?;
        let keys = self.unlock(&header).await?;
        RangeReader::open(inner, header, &keys).map_err(read_failure)
    }

    async fn unlock_whole<'a>(
        &self,
        envelope: &'a [u8],
    ) -> Result<(PayloadKeys, &'a [u8], usize), EnvelopeError> {
        let (header, segments) = whole::split(envelope).map_err(wrong)?;
        let len = whole::plaintext_len(&header, segments).map_err(wrong)?;
        Ok((self.unlock(&header).await?, segments, len))
    }

    async fn unlock(&self, header: &Header) -> Result<PayloadKeys, EnvelopeError> {
        if self.context.as_ref().is_some_and(|context| context != header.context()) {
            return Err(EnvelopeError::Context);
        }
        let Some(cache) = &self.cache else {
            let data_key = self.client.envelope_data_key(header).await?;
            return header.unlock(&data_key).map_err(wrong);
        };
        let fetch = || async {
            let data_key = self.client.envelope_data_key(header).await?;
            Ok(ProtectedKey { data_key, recipients: Vec::new() })
        };
        let loan = cache.obtain(self.cache_id(header), fetch).await?;
        header.unlock(&loan.key.data_key).map_err(wrong)
    }

    fn cache_id(&self, header: &Header) -> CacheId {
        let caller = self.client.identity();
        let mut parts: Vec<&[u8]> = vec![b"decrypt", caller, header.context().encoded()];
        let ours = header.recipients().iter().filter(|recipient| recipient.kind == KIND_LASTKEY);
        parts.extend(ours.map(|recipient| recipient.body.as_slice()));
        CacheId::of(&parts)
    }
}

/// Reads a header and leaves the reader at the first segment.
async fn read_header_async<R: AsyncRead + Unpin>(inner: &mut R) -> Result<Header, EnvelopeError> {
    let mut prefix = [0; PREFIX_LEN];
    read_whole(inner, &mut prefix, FormatError::Malformed).await?;
    let mut header = vec![0; Header::len_from_prefix(&prefix).map_err(wrong)?];
    let (front, rest) = header
        .split_first_chunk_mut::<PREFIX_LEN>()
        .ok_or_else(|| wrong(FormatError::Malformed))?;
    *front = prefix;
    read_whole(inner, rest, FormatError::Truncated).await?;
    Header::parse(&header).map_err(wrong)
}

async fn read_whole<R: AsyncRead + Unpin>(
    inner: &mut R,
    dest: &mut [u8],
    too_short: FormatError,
) -> Result<(), EnvelopeError> {
    match inner.read_exact(dest).await {
        Ok(_) => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Err(wrong(too_short)),
        Err(cause) => Err(StreamError::Read(cause).into()),
    }
}

fn wrong(failure: FormatError) -> EnvelopeError {
    StreamError::from(failure).into()
}

/// What is wrong with the envelope as such, and what with reading it.
fn read_failure(cause: io::Error) -> EnvelopeError {
    let about_the_format =
        cause.get_ref().and_then(|inner| inner.downcast_ref::<FormatError>()).copied();
    about_the_format.map_or_else(|| StreamError::Read(cause).into(), wrong)
}
