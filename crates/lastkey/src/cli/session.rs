//! One command in progress: the client, and for whom to print.
//!
//! Room      `lastkey`.

use lastkey_client::{
    Addr, Call, Client, ClientConfig, ConfigError, Trust, identity_from_env, token_from_env,
    trust_from_env,
};
use lastkey_secret::SecretVec;
use lastkey_wire::native::Empty;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    args::{ConnectionArgs, DryRunArgs, Format},
    failure::Failure,
    input, output,
    table::Show,
};
use crate::node_key;

/// What every command of the client side gets.
pub(crate) struct Session {
    connection: ConnectionArgs,
    format: Format,
}

impl Session {
    pub(crate) fn new(connection: ConnectionArgs, format: Format) -> Self {
        Self { connection, format }
    }

    /// How to reach the server, as it was typed.
    pub(crate) fn connection(&self) -> &ConnectionArgs {
        &self.connection
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// A client by flags and environment; flags win.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let mut config = self.config()?;
        config.identity = match &self.connection.identity {
            Some(path) => Some(input::identity_file(path)?.0),
            None => match identity_from_env()? {
                Some(file) => Some(node_key::open(file, None)?.0),
                None => None,
            },
        };
        config.token = match &self.connection.token_file {
            Some(path) => Some(input::token_file(path)?),
            None => token_from_env(),
        };
        if config.token.is_some() {
            warn_if_exposed(&config.addr);
        }
        Ok(Client::new(&config)?)
    }

    /// A client by the credentials as their files have them now; the one before, when they cannot
    /// be read. For commands that outlive a token.
    pub(crate) fn client_anew(&self, before: &Client) -> Client {
        self.client().unwrap_or_else(|failure| {
            output::note(&format!("warning: the credentials cannot be read now: {failure}"));
            before.clone()
        })
    }

    /// A client of this certificate and key, and no token.
    pub(crate) fn client_as(&self, identity: SecretVec) -> Result<Client, Failure> {
        let mut config = self.config()?;
        config.identity = Some(identity);
        Ok(Client::new(&config)?)
    }

    /// A client without credentials, for a call that has the token of `--token-file` inside;
    /// and that token.
    pub(crate) fn client_and_token(&self) -> Result<(Client, SecretVec), Failure> {
        let path = self.connection.token_file.as_deref();
        let path = path.ok_or_else(|| Failure::Usage("give --token-file".to_owned()))?;
        let (config, token) = (self.config()?, input::token_file(path)?);
        warn_if_exposed(&config.addr);
        Ok((Client::new(&config)?, token))
    }

    fn config(&self) -> Result<ClientConfig, Failure> {
        let mut config = ClientConfig::new(self.addr()?);
        config.trust = self.trust()?;
        Ok(config)
    }

    fn addr(&self) -> Result<Addr, Failure> {
        let text = match &self.connection.addr {
            Some(text) => text.clone(),
            None => std::env::var(lastkey_client::ADDR_VARIABLE)
                .ok()
                .filter(|text| !text.is_empty())
                .ok_or(ConfigError::NoAddr)?,
        };
        text.parse().map_err(|error| Failure::Usage(format!("{text:?} is {error}")))
    }

    fn trust(&self) -> Result<Trust, Failure> {
        if let Some(path) = &self.connection.ca {
            let pem = input::Source::open(Some(path))?.read_plain()?;
            return Ok(Trust::Authority(pem));
        }
        match &self.connection.ca_fingerprint {
            Some(text) => text
                .parse()
                .map(Trust::Pinned)
                .map_err(|error| Failure::Usage(format!("--ca-fingerprint: {error}"))),
            None => Ok(trust_from_env()?),
        }
    }

    /// Sends a call, or only asks about it; then the answer is printed and there is no reply.
    pub(crate) async fn settle<B, R>(
        &self,
        call: Call<'_, B, R>,
        dry_run: DryRunArgs,
    ) -> Result<Option<R>, Failure>
    where
        B: Serialize + Send + Sync,
        R: DeserializeOwned,
    {
        if !dry_run.dry_run {
            return Ok(Some(call.send().await?));
        }
        let verdict = call.dry_run().await?;
        let is_allowed = verdict.allowed;
        self.show(&lastkey_wire::native::error::DryRunReply { dry_run: verdict })?;
        if is_allowed { Ok(None) } else { Err(Failure::WouldRefuse) }
    }

    /// Like [`Session::settle`], and prints the reply.
    pub(crate) async fn settle_and_show<B, R>(
        &self,
        call: Call<'_, B, R>,
        dry_run: DryRunArgs,
    ) -> Result<(), Failure>
    where
        B: Serialize + Send + Sync,
        R: DeserializeOwned + Serialize + Show,
    {
        match self.settle(call, dry_run).await? {
            Some(reply) => self.show(&reply),
            None => Ok(()),
        }
    }

    /// Like [`Session::settle`], for a reply that says nothing to a person.
    pub(crate) async fn settle_quietly<B>(
        &self,
        call: Call<'_, B, Empty>,
        dry_run: DryRunArgs,
    ) -> Result<(), Failure>
    where
        B: Serialize + Send + Sync,
    {
        match (self.settle(call, dry_run).await?, self.format) {
            (Some(empty), Format::Json) => self.show_json(&empty),
            (Some(_), Format::Table) | (None, _) => Ok(()),
        }
    }

    /// Prints a reply: as a table, or as the JSON of the API.
    pub(crate) fn show<T: Show + Serialize>(&self, reply: &T) -> Result<(), Failure> {
        match self.format {
            Format::Table => output::print(&reply.table()),
            Format::Json => self.show_json(reply),
        }
    }

    /// Prints JSON whatever the format is.
    pub(crate) fn show_json<T: Serialize>(&self, reply: &T) -> Result<(), Failure> {
        let stdout = std::io::stdout().lock();
        let mut text = std::io::BufWriter::new(stdout);
        serde_json::to_writer_pretty(&mut text, reply)
            .map_err(std::io::Error::from)
            .and_then(|()| std::io::Write::write_all(&mut text, b"\n"))
            .and_then(|()| std::io::Write::flush(&mut text))
            .map_err(|cause| Failure::io("write to standard output", cause))
    }
}

fn warn_if_exposed(addr: &Addr) {
    if addr.is_exposed() {
        output::note(&format!(
            "warning: {addr} is not encrypted; everyone on the way can read the token"
        ));
    }
}
