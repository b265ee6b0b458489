// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::client::Client;
use crate::error::Error;
use crate::model_ref::model_ref;
use crate::retry::MAX_ATTEMPTS;

/// Timeout of a call, unless [`Builder::timeout`] or [`Client::with_timeout`] sets another.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Minimum timeout of [`Client::reload_models`], because the server loads and checks models.
pub const DEFAULT_RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Maximum size of a request or reply in bytes, unless [`Builder::max_message_bytes`] sets another.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 64 << 20;

/// TLS settings of the connection.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    config: ClientTlsConfig,
    own_authority: bool,
}

impl Tls {
    /// Trusts the certificate authorities of the operating system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts only the certificate authorities in this PEM file.
    pub fn authority(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.config = self.config.ca_certificate(Certificate::from_pem(pem));
        self.own_authority = true;
        self
    }

    /// Sets the client certificate and its key (PEM), for servers that require one.
    pub fn identity(mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.config = self.config.identity(Identity::from_pem(certificate, key));
        self
    }

    /// Verifies the server's certificate against this name instead of the address.
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
    /// Writes only the address, so that no token reaches a log.
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
    /// Sets the model of requests that name none: `NAME` or `NAME:VERSION`. If unset, they use the
    /// server's default model.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// Sets the timeout of calls. It includes all attempts and backoff, and for a stream all of its
    /// chunks.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes calls wait until their deadline for a server that cannot be reached, instead of
    /// failing after their last attempt.
    pub fn wait_for_ready(mut self) -> Self {
        self.wait_for_ready = true;
        self
    }

    /// Sets the maximum size of a request or reply in bytes.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Sets the maximum number of attempts of a call, including the first; 1 disables retries.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Encrypts the connection with TLS. If unset, the connection is plaintext.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sends a bearer token with each call. Requires [`Builder::tls`], because a token on a
    /// plaintext connection can be intercepted.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self.plain_text_token = false;
        self
    }

    /// Sends a bearer token with or without TLS, for a connection that something else protects,
    /// such as a sidecar on the same machine.
    pub fn insecure_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self.plain_text_token = true;
        self
    }

    /// Returns the client, which connects on its first call. Requires a Tokio runtime. The error
    /// names the invalid setting.
    pub fn build(self) -> Result<Client, Error> {
        if self.timeout.is_zero() {
            return Err(Error::invalid("timeout", "0 s; expected more than 0 s"));
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
        model_ref(&self.model)?; // fail here, not in the first call
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
            let description = "a token on a plaintext connection can be intercepted; use tls(), \
                               or insecure_token() if something else protects the connection";
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
                "expected at least one character, all of them visible ASCII",
            )),
        }
    }
}

fn endpoint(address: &str, tls: Option<Tls>) -> Result<Endpoint, Error> {
    let wrong =
        |why: String| Error::invalid("address", format!("{address:?}: {why}; expected HOST:PORT"));
    if address.contains('/') {
        return Err(wrong("has a scheme or a path".to_owned()));
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|error| wrong(error.to_string()))?;
    if endpoint.uri().port().is_none() {
        return Err(wrong("has no port".to_owned()));
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
        // Detect a dead peer within 40 s while a call is open; send no pings on idle connections.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(false)
        // With the default of 64 KiB, the server would wait for window updates within one reply.
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20))
}
