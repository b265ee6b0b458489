// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;

use crate::error::Error;
use crate::model_ref::model_ref;
use crate::pb;
use crate::pb::generative_service_client::GenerativeServiceClient;
use crate::pb::model_service_client::ModelServiceClient;
use crate::retry::Throttle;

/// Client of a latentserve server. Clones are cheap and share one connection.
///
/// Calls that fail with UNAVAILABLE, with CANCELLED by the server, or because the queue is full are
/// retried, up to four attempts in total within their deadline, after the delay that the server
/// requests. Dropping the future of a call cancels the call.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    pub(crate) generative: GenerativeServiceClient<Channel>,
    pub(crate) models: ModelServiceClient<Channel>,
    pub(crate) health: HealthClient<Channel>,
    pub(crate) model: String,
    pub(crate) timeout: Duration,
    pub(crate) wait_for_ready: bool,
    pub(crate) max_attempts: u32,
    pub(crate) max_message_bytes: usize,
    pub(crate) metadata: MetadataMap,
    pub(crate) throttle: Arc<Throttle>,
}

impl Client {
    pub(crate) fn new(
        channel: Channel,
        model: String,
        timeout: Duration,
        wait_for_ready: bool,
        max_attempts: u32,
        max_message_bytes: usize,
        metadata: MetadataMap,
    ) -> Self {
        Self {
            generative: GenerativeServiceClient::new(channel.clone())
                .max_decoding_message_size(max_message_bytes),
            models: ModelServiceClient::new(channel.clone())
                .max_decoding_message_size(max_message_bytes),
            health: HealthClient::new(channel.clone()),
            channel,
            model,
            timeout,
            wait_for_ready,
            max_attempts,
            max_message_bytes,
            metadata,
            throttle: Arc::new(Throttle::new()),
        }
    }

    /// Returns a client on the same connection whose calls have this timeout.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// Returns a client on the same connection that adds this metadata to its calls.
    pub fn with_metadata(&self, key: &str, value: &str) -> Result<Self, Error> {
        let name: AsciiMetadataKey = key.parse().map_err(|_| {
            Error::invalid(
                "metadata",
                format!("{key:?} is not a valid key of text metadata"),
            )
        })?;
        let value: AsciiMetadataValue = value.parse().map_err(|_| {
            Error::invalid(
                "metadata",
                format!("the value of {key} contains characters other than visible ASCII"),
            )
        })?;
        let mut client = self.clone();
        client.metadata.insert(name, value);
        Ok(client)
    }

    /// Parses the model of a request; an empty one means the client's.
    pub(crate) fn model_ref(&self, model: &str) -> Result<pb::ModelRef, Error> {
        model_ref(if model.is_empty() { &self.model } else { model })
    }

    /// Returns the connection, for the generated stubs in [`crate::pb`].
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}
