//! Decryption on this machine, with data keys that the server recovers.
//!
//! Room      `client`.
//! Source    `docs/formats/envelope.md`.

use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use lastkey_crypto::{
    context::EncryptionContext,
    digest::sha256,
    envelope::{
        AgeIdentity, EnvelopeError as FormatError, Header, Opener, PREFIX_LEN, PayloadKeys,
        Recipient,
    },
    stream::{StreamError, decrypt_slice, decrypt_slice_into, read_header},
};
use lastkey_secret::{SecretArray, SecretVec};
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroize;

use crate::{
    cache::{CacheId, DataKeyCache, Loan, ProtectedKey},
    client::Client,
    encryptor::wrong,
    envelope::EnvelopeError,
    range::RangeReader,
    reader::DecryptReader,
};

/// Decrypts envelopes on this machine; the server recovers the data key and never sees the
/// data. Cheap to clone; one decryptor may serve many tasks at once. See [`crate::Encryptor`].
///
/// What needs no server is tried first: identities of age, then the passphrase; then the
/// servers, in the order in which they were added.
#[derive(Clone, Default)]
pub struct Decryptor {
    clients: Vec<Client>,
    identities: Option<Arc<Vec<AgeIdentity>>>,
    passphrase: Option<Arc<SecretVec>>,
    context: Option<EncryptionContext>,
    cache: Option<DataKeyCache>,
}

impl fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decryptor")
            .field("clients", &self.clients)
            .field("identities", &self.identities)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

impl Decryptor {
    /// Decrypts what the caller of `client` may decrypt.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self::default().add_client(client)
    }

    /// Decrypts what was encrypted for keys of age, without any server.
    ///
    /// ```no_run
    /// use lastkey_client::{AgeIdentity, Decryptor, SecretVec};
    ///
    /// # async fn example(envelope: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = SecretVec::take(std::fs::read("recovery.key")?);
    /// let text = Decryptor::offline(AgeIdentity::parse_file(&file)?).decrypt(envelope).await?;
    /// # let _ = text;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn offline(identities: Vec<AgeIdentity>) -> Self {
        Self::default().identities(identities)
    }

    /// Decrypts what was encrypted under a passphrase, without any server.
    #[must_use]
    pub fn with_passphrase(passphrase: impl Into<Arc<SecretVec>>) -> Self {
        Self::default().passphrase(passphrase)
    }

    /// Asks one more server when those before did not recover the data key.
    #[must_use]
    pub fn add_client(mut self, client: &Client) -> Self {
        self.clients.push(client.clone());
        self
    }

    /// Tries these identities of age; they replace earlier ones.
    #[must_use]
    pub fn identities(mut self, identities: Vec<AgeIdentity>) -> Self {
        self.identities = Some(Arc::new(identities));
        self
    }

    /// Tries a passphrase. Costs what the envelope says, at most 1 GiB of memory, on the
    /// caller's thread.
    #[must_use]
    pub fn passphrase(mut self, passphrase: impl Into<Arc<SecretVec>>) -> Self {
        self.passphrase = Some(passphrase.into());
        self
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
        let header = header_of(envelope)?;
        let loan = self.loan(&header).await?;
        decrypt_slice(&header, &loan.key.data_key, envelope).map_err(wrong)
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
        let outcome = self.open_into(envelope, out).await;
        if outcome.is_err() {
            out.zeroize();
        }
        outcome
    }

    async fn open_into(&self, envelope: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        let header = header_of(envelope)?;
        let loan = self.loan(&header).await?;
        let keys = header.unlock(&loan.key.data_key).map_err(wrong)?;
        let len = keys.layout(envelope.len() as u64).map_err(wrong)?.plaintext_len();
        let len = usize::try_from(len).map_err(|_| wrong(FormatError::TooManySegments))?;
        if out.capacity() < len {
            // The buffer that is given back may hold an older plaintext.
            out.zeroize();
            *out = vec![0; len];
        }
        out.resize(len, 0);
        decrypt_slice_into(&header, &loan.key.data_key, envelope, out).map_err(wrong)
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

    async fn unlock(&self, header: &Header) -> Result<PayloadKeys, EnvelopeError> {
        let loan = self.loan(header).await?;
        header.unlock(&loan.key.data_key).map_err(wrong)
    }

    /// The data key of an envelope, for programs that decrypt by [`lastkey_crypto::stream`]: on
    /// many threads, for instance. A cached one is proven to be that of the header by
    /// [`Header::unlock`], which every way to decrypt begins with.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub async fn data_key(&self, header: &Header) -> Result<Arc<ProtectedKey>, EnvelopeError> {
        Ok(self.loan(header).await?.key)
    }

    /// The same, proven.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub async fn proven_key(&self, header: &Header) -> Result<Arc<ProtectedKey>, EnvelopeError> {
        let key = self.data_key(header).await?;
        header.unlock(&key.data_key).map_err(wrong)?;
        Ok(key)
    }

    /// The passphrase, when it is that of this recipient.
    pub(crate) fn known_passphrase(&self, recipient: &Recipient) -> Option<Arc<SecretVec>> {
        let passphrase = self.passphrase.as_ref()?;
        recipient.open_by_passphrase(passphrase).ok().map(|_| Arc::clone(passphrase))
    }

    /// The data key of an envelope, from the cache when there is one.
    async fn loan(&self, header: &Header) -> Result<Loan, EnvelopeError> {
        if self.context.as_ref().is_some_and(|context| context != header.context()) {
            return Err(EnvelopeError::Context);
        }
        let fetch = || async {
            let data_key = self.recover(header).await?;
            Ok(ProtectedKey { data_key, recipients: Vec::new() })
        };
        match &self.cache {
            Some(cache) => cache.obtain(self.cache_id(header), fetch).await,
            None => Ok(Loan::of(fetch().await?)),
        }
    }

    async fn recover(&self, header: &Header) -> Result<SecretArray<32>, EnvelopeError> {
        let mut failure = EnvelopeError::NoRecipient;
        let by_age = self.identities.as_ref().map(|identities| header.data_key_by_age(identities));
        let by_passphrase = || Some(header.data_key_by_passphrase(self.passphrase.as_ref()?));
        for attempt in by_age.into_iter().chain(std::iter::once_with(by_passphrase).flatten()) {
            match attempt {
                Ok(data_key) => return Ok(data_key),
                Err(FormatError::NoRecipient) => {}
                Err(other) => failure = wrong(other),
            }
        }
        for client in &self.clients {
            match client.envelope_data_key(header).await {
                Ok(data_key) => return Ok(data_key),
                Err(EnvelopeError::NoRecipient) => {}
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    /// Of what the caller has, and of the envelopes that one data key was used for: they have the
    /// same recipients and context.
    fn cache_id(&self, header: &Header) -> CacheId {
        let mut parts: Vec<&[u8]> = vec![b"decrypt", header.context().encoded()];
        parts.extend(self.clients.iter().map(|client| client.identity().as_slice()));
        parts.push(b"identities");
        let identities = self.identities.iter().flat_map(|identities| identities.iter());
        parts.extend(identities.map(|identity| identity.recipient().as_bytes().as_slice()));
        parts.push(b"passphrase");
        let passphrase = self.passphrase.as_ref().map(|passphrase| passphrase.expose(sha256));
        parts.extend(passphrase.iter().map(<[u8; 32]>::as_slice));
        parts.push(b"");
        parts.extend(header.recipients().iter().map(|recipient| recipient.body.as_slice()));
        CacheId::of(&parts)
    }
}

/// Parses the header of a whole envelope.
fn header_of(envelope: &[u8]) -> Result<Header, EnvelopeError> {
    let prefix = envelope.first_chunk().ok_or_else(|| wrong(FormatError::Malformed))?;
    let len = Header::len_from_prefix(prefix).map_err(wrong)?;
    let header = envelope.get(..len).ok_or_else(|| wrong(FormatError::Truncated))?;
    Header::parse(header).map_err(wrong)
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

/// What is wrong with the envelope as such, and what with reading it.
fn read_failure(cause: io::Error) -> EnvelopeError {
    let about_the_format =
        cause.get_ref().and_then(|inner| inner.downcast_ref::<FormatError>()).copied();
    about_the_format.map_or_else(|| StreamError::Read(cause).into(), wrong)
}
