// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::client::Client;
use crate::error::Error;
use crate::model_ref::model_ref;
use crate::retry::MAX_ATTEMPTS;

/// The deadline of a call, unless [`Builder::timeout`] or [`Client::with_timeout`] says another.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// That of [`Client::reload_models`] at least, where models are loaded and checked.
pub const DEFAULT_RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Bounds one request and one reply, unless [`Builder::max_message_bytes`] says another.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 64 << 20;

/// How the connection is encrypted.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    config: ClientTlsConfig,
    own_authority: bool,
}

impl Tls {
    /// Trusts the authorities that this machine trusts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authority of these PEM certificates, and no other.
    pub fn authority(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.config = self.config.ca_certificate(Certificate::from_pem(pem));
        self.own_authority = true;
        self
    }

    /// Sends the PEM certificate of this client, for a server that asks for one.
    pub fn identity(mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.config = self.config.identity(Identity::from_pem(certificate, key));
        self
    }

    /// Expects the server's certificate to be for this name, not for that of the address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.config = self.config.domain_name(name);
        self
    }

    fn into_config(self) -> ClientTlsConfig {
        if self.own_authority {
            self.config
        } else {
            self.config.with_native_roots()
        }
    }
}

/// The settings of a [`Client`]; see [`Client::builder`].
#[derive(Clone)]
pub struct Builder {
    address: String,
    model: String,
    timeout: Duration,
    wait_for_ready: bool,
    max_message_bytes: usize,
    max_attempts: u32,
    tls: Option<Tls>,
    token: Option<String>,
    plain_text_token: bool,
}

impl std::fmt::Debug for Builder {
    /// Writes the address alone: a token belongs into no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Returns the settings of a client of the server at `HOST:PORT`.
    pub fn builder(address: impl Into<String>) -> Builder {
        Builder {
            address: address.into(),
            model: String::new(),
            timeout: DEFAULT_TIMEOUT,
            wait_for_ready: false,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            max_attempts: MAX_ATTEMPTS,
            tls: None,
            token: None,
            plain_text_token: false,
        }
    }
}

impl Builder {
    /// Names the model of calls that name none: `NAME`, or `NAME:VERSION`. Without it they go to
    /// the server's default model.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// Sets the deadline of calls, attempts and waiting included; of a stream, for the whole of
    /// it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes calls wait, within their deadline, for a server that cannot be reached yet, instead
    /// of failing soon.
    pub fn wait_for_ready(mut self) -> Self {
        self.wait_for_ready = true;
        self
    }

    /// Bounds one request and one reply.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Sets how many attempts a call has, the first one included; 1: nothing is tried again.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Encrypts the connection; without it, it is plain text.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sends a bearer token with each call. Needs [`Builder::tls`]: in plain text, whoever is on
    /// the way could read it.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self.plain_text_token = false;
        self
    }

    /// Sends a bearer token also without TLS: for a connection that something else protects, such
    /// as a sidecar on the same machine.
    pub fn insecure_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self.plain_text_token = true;
        self
    }

    /// Returns the client, which connects in its first call; needs a Tokio runtime. An error
    /// names the setting that is wrong.
    pub fn build(self) -> Result<Client, Error> {
        if self.timeout.is_zero() {
            return Err(Error::invalid("timeout", "0 s; expected more"));
        }
        if self.max_message_bytes == 0 {
            return Err(Error::invalid(
                "max_message_bytes",
                "0; expected at least 1",
            ));
        }
        if self.max_attempts == 0 {
            return Err(Error::invalid("max_attempts", "0; expected at least 1"));
        }
        model_ref(&self.model)?; // rather here than in the first call
        let metadata = self.metadata()?;
        let endpoint = endpoint(&self.address, self.tls)?;
        Ok(Client::new(
            endpoint.connect_lazy(),
            self.model,
            self.timeout,
            self.wait_for_ready,
            self.max_attempts,
            self.max_message_bytes,
            metadata,
        ))
    }

    fn metadata(&self) -> Result<MetadataMap, Error> {
        let mut metadata = MetadataMap::new();
        let Some(token) = &self.token else {
            return Ok(metadata);
        };
        if self.tls.is_none() && !self.plain_text_token {
            let description = "in plain text it can be read on the way; use tls(), or \
                               insecure_token() where something else protects the connection";
            return Err(Error::invalid("token", description));
        }
        let value: Result<MetadataValue<Ascii>, _> = format!("Bearer {token}").parse();
        match value {
            Ok(mut value) if !token.is_empty() => {
                value.set_sensitive(true);
                metadata.insert("authorization", value);
                Ok(metadata)
            }
            _ => Err(Error::invalid(
                "token",
                "empty, or not of visible ASCII characters",
            )),
        }
    }
}

fn endpoint(address: &str, tls: Option<Tls>) -> Result<Endpoint, Error> {
    let wrong =
        |why: String| Error::invalid("address", format!("{address:?}, {why}; expected HOST:PORT"));
    if address.contains('/') {
        return Err(wrong("with a scheme or a path".to_owned()));
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|error| wrong(error.to_string()))?;
    if endpoint.uri().port().is_none() {
        return Err(wrong("without a port".to_owned()));
    }
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls.into_config()).map_err(|error| {
            let why =
                std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
            Error::invalid("tls", why)
        })?;
    }
    Ok(endpoint
        .user_agent(concat!("latentserve-rust/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| wrong(error.to_string()))?
        .connect_timeout(Duration::from_secs(20))
        // Notice a dead peer within 40 s while a call is open; idle connections stay silent.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(false)
        // HTTP/2's 64 KiB would make the server wait for this client within one reply.
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20))
}
