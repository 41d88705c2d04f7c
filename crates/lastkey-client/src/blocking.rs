//! The library for programs without an async runtime.
//!
//! Room      `client`. The same types, which wait; one thread in the background does the network.
//! Holds     No panic where waiting is not possible: inside a runtime, and in a forked child,
//!           whose parent kept the thread, it is an error.

use std::{
    fmt,
    future::Future,
    io::{Read, Seek},
    mem::ManuallyDrop,
    path::Path,
    pin::pin,
    process,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use lastkey_crypto::{
    context::EncryptionContext,
    envelope::{AgeIdentity, AgeRecipient, Suite},
    stream::read_header,
};
use lastkey_secret::SecretVec;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{
    cache::DataKeyCache,
    config::{ClientConfig, SetupError},
    envelope::EnvelopeError,
    error::Error,
    range::RangeReader,
    reader::DecryptReader,
    rewrap::Rewrapped,
    writer::EncryptWriter,
};

/// A client that waits. A clone shares connections and thread.
///
/// ```no_run
/// use lastkey_client::blocking::{Client, Decryptor, Encryptor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect()?;
/// let envelope = Encryptor::new(&client, "alias/app").encrypt(b"text")?;
/// let text = Decryptor::new(&client).decrypt(&envelope)?;
/// assert!(text.expose(|text| text == b"text"));
///
/// // Every call of the async client, awaited here:
/// let key = client.wait(client.api().rotate_key("alias/app").send())?;
/// println!("primary version {:?}", key.primary_version);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    api: crate::Client,
    engine: Arc<Engine>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.api.fmt(f)
    }
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn connect() -> Result<Self, SetupError> {
        Self::new(&ClientConfig::discover()?)
    }

    /// As [`crate::Client::new`]; starts a thread.
    ///
    /// # Errors
    /// [`SetupError::Client`], [`SetupError::Runtime`].
    pub fn new(config: &ClientConfig) -> Result<Self, SetupError> {
        let engine = Arc::new(Engine::start().map_err(SetupError::Runtime)?);
        Ok(Self { api: crate::Client::new(config)?, engine })
    }

    /// The async client, for calls to [`Self::wait`] for.
    #[must_use]
    pub fn api(&self) -> &crate::Client {
        &self.api
    }

    /// Waits for a call.
    ///
    /// # Errors
    /// That of the call; [`Error::CannotWait`] inside an async runtime and in a forked child.
    pub fn wait<T, E: From<Error>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.engine.wait(call)
    }
}

/// Encrypts on this machine; see [`crate::Encryptor`].
#[derive(Clone, Debug)]
pub struct Encryptor {
    inner: crate::Encryptor,
    engine: Waiter,
}

impl Encryptor {
    /// As [`crate::Encryptor::new`].
    #[must_use]
    pub fn new(client: &Client, key: impl Into<String>) -> Self {
        Self { inner: crate::Encryptor::new(&client.api, key), engine: Waiter::of(client) }
    }

    /// As [`crate::Encryptor::for_age`].
    #[must_use]
    pub fn for_age(recipient: AgeRecipient) -> Self {
        Self { inner: crate::Encryptor::for_age(recipient), engine: Waiter::default() }
    }

    /// As [`crate::Encryptor::for_passphrase`].
    #[must_use]
    pub fn for_passphrase(passphrase: impl Into<Arc<SecretVec>>) -> Self {
        Self { inner: crate::Encryptor::for_passphrase(passphrase), engine: Waiter::default() }
    }

    /// As [`crate::Encryptor::add_key`].
    #[must_use]
    pub fn add_key(self, client: &Client, key: impl Into<String>) -> Self {
        Self { inner: self.inner.add_key(&client.api, key), engine: self.engine.or(client) }
    }

    /// As [`crate::Encryptor::add_age`].
    #[must_use]
    pub fn add_age(self, recipient: AgeRecipient) -> Self {
        Self { inner: self.inner.add_age(recipient), ..self }
    }

    /// As [`crate::Encryptor::add_passphrase`].
    #[must_use]
    pub fn add_passphrase(self, passphrase: impl Into<Arc<SecretVec>>) -> Self {
        Self { inner: self.inner.add_passphrase(passphrase), ..self }
    }

    /// As [`crate::Encryptor::suite`].
    #[must_use]
    pub fn suite(self, suite: Suite) -> Self {
        Self { inner: self.inner.suite(suite), ..self }
    }

    /// As [`crate::Encryptor::context`].
    #[must_use]
    pub fn context(self, context: EncryptionContext) -> Self {
        Self { inner: self.inner.context(context), ..self }
    }

    /// As [`crate::Encryptor::cache`].
    #[must_use]
    pub fn cache(self, cache: &DataKeyCache) -> Self {
        Self { inner: self.inner.cache(cache), ..self }
    }

    /// As [`crate::Encryptor::segment_log2`].
    #[must_use]
    pub fn segment_log2(self, segment_log2: u8) -> Self {
        Self { inner: self.inner.segment_log2(segment_log2), ..self }
    }

    /// Encrypts bytes that are in memory.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        self.engine.wait(self.inner.encrypt(plaintext))
    }

    /// As [`crate::Encryptor::encrypt_into`].
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn encrypt_into(&self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        self.engine.wait(self.inner.encrypt_into(plaintext, out))
    }

    /// Encrypts what is written to a [`std::io::Write`], in constant memory. Finish it by
    /// [`EncryptWriter::finish`].
    ///
    /// ```no_run
    /// use std::{fs::File, io};
    /// use lastkey_client::blocking::{Client, Encryptor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let encryptor = Encryptor::new(&Client::connect()?, "alias/app");
    /// let mut writer = encryptor.writer(File::create("report.lk")?)?;
    /// io::copy(&mut File::open("report.txt")?, &mut writer)?;
    /// writer.finish()?.sync_all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`EnvelopeError`]. Nothing was written then.
    pub fn writer<W>(&self, inner: W) -> Result<EncryptWriter<W>, EnvelopeError> {
        self.engine.wait(self.inner.writer(inner))
    }
}

/// Decrypts on this machine; see [`crate::Decryptor`].
#[derive(Clone, Debug, Default)]
pub struct Decryptor {
    inner: crate::Decryptor,
    engine: Waiter,
}

impl Decryptor {
    /// As [`crate::Decryptor::new`].
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self::default().add_client(client)
    }

    /// As [`crate::Decryptor::offline`].
    #[must_use]
    pub fn offline(identities: Vec<AgeIdentity>) -> Self {
        Self::default().identities(identities)
    }

    /// As [`crate::Decryptor::with_passphrase`].
    #[must_use]
    pub fn with_passphrase(passphrase: impl Into<Arc<SecretVec>>) -> Self {
        Self::default().passphrase(passphrase)
    }

    /// As [`crate::Decryptor::add_client`].
    #[must_use]
    pub fn add_client(self, client: &Client) -> Self {
        Self { inner: self.inner.add_client(&client.api), engine: self.engine.or(client) }
    }

    /// As [`crate::Decryptor::identities`].
    #[must_use]
    pub fn identities(self, identities: Vec<AgeIdentity>) -> Self {
        Self { inner: self.inner.identities(identities), ..self }
    }

    /// As [`crate::Decryptor::passphrase`].
    #[must_use]
    pub fn passphrase(self, passphrase: impl Into<Arc<SecretVec>>) -> Self {
        Self { inner: self.inner.passphrase(passphrase), ..self }
    }

    /// As [`crate::Decryptor::expect_context`].
    #[must_use]
    pub fn expect_context(self, context: EncryptionContext) -> Self {
        Self { inner: self.inner.expect_context(context), ..self }
    }

    /// As [`crate::Decryptor::cache`].
    #[must_use]
    pub fn cache(self, cache: &DataKeyCache) -> Self {
        Self { inner: self.inner.cache(cache), ..self }
    }

    /// Decrypts an envelope that is in memory as a whole.
    ///
    /// # Errors
    /// [`EnvelopeError`]; nothing of the plaintext is given then.
    pub fn decrypt(&self, envelope: &[u8]) -> Result<SecretVec, EnvelopeError> {
        self.engine.wait(self.inner.decrypt(envelope))
    }

    /// As [`crate::Decryptor::decrypt_into`].
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn decrypt_into(&self, envelope: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        self.engine.wait(self.inner.decrypt_into(envelope, out))
    }

    /// Reads the header from a [`std::io::Read`] and decrypts what follows, in constant memory.
    ///
    /// # Errors
    /// [`EnvelopeError`]; reading fails later where a segment is not authentic.
    pub fn reader<R: Read>(&self, mut inner: R) -> Result<DecryptReader<R>, EnvelopeError> {
        let header = read_header(&mut inner)?;
        self.engine.wait(self.inner.reader_behind(header, inner))
    }

    /// Opens an envelope for reading anywhere in it.
    ///
    /// ```no_run
    /// use std::fs::File;
    /// use lastkey_client::blocking::{Client, Decryptor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut video = Decryptor::new(&Client::connect()?).seekable(File::open("video.lk")?)?;
    /// let end = video.len();
    /// let tail = video.range(end.saturating_sub(1_000)..end)?;
    /// # let _ = tail;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn seekable<R: Read + Seek>(&self, inner: R) -> Result<RangeReader<R>, EnvelopeError> {
        self.engine.wait(self.inner.seekable(inner))
    }
}

/// A change of the recipients of envelopes; see [`crate::Rewrap`].
#[derive(Clone, Debug, Default)]
pub struct Rewrap {
    inner: crate::Rewrap,
    engine: Waiter,
}

impl Rewrap {
    /// As [`crate::Rewrap::new`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`crate::Rewrap::add_key`].
    #[must_use]
    pub fn add_key(self, client: &Client, key: impl Into<String>) -> Self {
        Self { inner: self.inner.add_key(&client.api, key), engine: self.engine.or(client) }
    }

    /// As [`crate::Rewrap::add_age`].
    #[must_use]
    pub fn add_age(self, recipient: AgeRecipient) -> Self {
        Self { inner: self.inner.add_age(recipient), ..self }
    }

    /// As [`crate::Rewrap::add_passphrase`].
    #[must_use]
    pub fn add_passphrase(self, passphrase: impl Into<Arc<SecretVec>>) -> Self {
        Self { inner: self.inner.add_passphrase(passphrase), ..self }
    }

    /// As [`crate::Rewrap::remove_key`].
    #[must_use]
    pub fn remove_key(self, key_id: impl Into<String>) -> Self {
        Self { inner: self.inner.remove_key(key_id), ..self }
    }

    /// As [`crate::Rewrap::remove_age`].
    #[must_use]
    pub fn remove_age(self, recipient: AgeRecipient) -> Self {
        Self { inner: self.inner.remove_age(recipient), ..self }
    }

    /// As [`crate::Rewrap::remove_passphrases`].
    #[must_use]
    pub fn remove_passphrases(self) -> Self {
        Self { inner: self.inner.remove_passphrases(), ..self }
    }

    /// As [`crate::Rewrap::refresh`].
    #[must_use]
    pub fn refresh(self, client: &Client) -> Self {
        Self { inner: self.inner.refresh(&client.api), engine: self.engine.or(client) }
    }

    /// As [`crate::Rewrap::rewrite`].
    #[must_use]
    pub fn rewrite(self) -> Self {
        Self { inner: self.inner.rewrite(), ..self }
    }

    /// As [`crate::Rewrap::server`].
    #[must_use]
    pub fn server(self, client: &Client) -> Self {
        Self { inner: self.inner.server(&client.api), engine: self.engine.or(client) }
    }

    /// As [`crate::Rewrap::file`].
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn file(&self, decryptor: &Decryptor, path: &Path) -> Result<Rewrapped, EnvelopeError> {
        let engine = self.engine.clone().or_waiter(&decryptor.engine);
        engine.wait(self.inner.file(&decryptor.inner, path))
    }
}

/// Waits: by the engine of a client, or without one where nothing goes over the network.
#[derive(Clone, Default)]
struct Waiter(Option<Arc<Engine>>);

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Waiter(engine)" } else { "Waiter" })
    }
}

impl Waiter {
    fn of(client: &Client) -> Self {
        Self(Some(Arc::clone(&client.engine)))
    }

    fn or(self, client: &Client) -> Self {
        if self.0.is_some() { self } else { Self::of(client) }
    }

    fn or_waiter(self, other: &Self) -> Self {
        if self.0.is_some() { self } else { other.clone() }
    }

    fn wait<T, E: From<Error>>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        match &self.0 {
            Some(engine) => engine.wait(call),
            None => park(call),
        }
    }
}

/// Sleeps between the polls of a future that needs no runtime.
fn park<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

/// A runtime with one thread, for this process.
struct Engine {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    process: u32,
}

impl Engine {
    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("lastkey-client")
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime), process: process::id() })
    }

    fn wait<T, E: From<Error>>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        if process::id() != self.process {
            return Err(Error::CannotWait("make a new client after a fork").into());
        }
        if Handle::try_current().is_ok() {
            return Err(Error::CannotWait("use the async client inside a runtime").into());
        }
        let runtime = self.runtime.as_ref();
        runtime.ok_or(Error::CannotWait("the client is gone"))?.block_on(call)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let runtime = self.runtime.take();
        if process::id() != self.process {
            // The thread stayed with the parent, and with it perhaps a lock that dropping takes.
            let _left_alone = ManuallyDrop::new(runtime);
        } else if let Some(runtime) = runtime {
            // Dropping it would wait, which panics inside another runtime.
            runtime.shutdown_background();
        }
    }
}
