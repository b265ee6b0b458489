// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tonic::Streaming;
use tonic_health::pb;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::client::Client;
use crate::error::Error;
use crate::retry::Policy;

/// Health status of the server, a service or a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    /// Accepts calls.
    Serving,
    /// Is starting, loading or draining.
    NotServing,
    /// Is unknown; only [`Client::watch_health`] returns this status.
    ServiceUnknown,
}

impl HealthStatus {
    fn from_proto(reply: pb::HealthCheckResponse) -> Result<Self, Error> {
        match ServingStatus::try_from(reply.status) {
            Ok(ServingStatus::Serving) => Ok(Self::Serving),
            Ok(ServingStatus::NotServing) => Ok(Self::NotServing),
            Ok(ServingStatus::ServiceUnknown) => Ok(Self::ServiceUnknown),
            _ => Err(Error::bad_reply(format!(
                "the reply has the unknown health status {}",
                reply.status
            ))),
        }
    }
}

impl Client {
    /// Returns the health of the server (an empty name), or of a service or model by name. The call
    /// is never retried. Fails with NOT_FOUND if the server does not know the name.
    pub async fn health(&self, service: &str) -> Result<HealthStatus, Error> {
        let message = pb::HealthCheckRequest {
            service: service.to_owned(),
        };
        let reply = self
            .call(Policy::Never, self.timeout, message, |message| {
                let mut stub = self.health.clone();
                async move { stub.check(message).await.map(tonic::Response::into_inner) }
            })
            .await;
        let (reply, _) = reply.map_err(|error| match error.code() {
            tonic::Code::NotFound => {
                error.with_default_message(|| format!("unknown service or model {service:?}"))
            }
            _ => error,
        })?;
        HealthStatus::from_proto(reply)
    }

    /// Streams the current health and every change, until the stream is dropped or fails. It has no
    /// deadline.
    pub async fn watch_health(&self, service: &str) -> Result<HealthStream, Error> {
        let message = pb::HealthCheckRequest {
            service: service.to_owned(),
        };
        let request = self.request(message, None, 0);
        let replies = self.health.clone().watch(request).await?.into_inner();
        Ok(HealthStream { replies })
    }
}

/// Stream of health statuses, returned by [`Client::watch_health`].
#[derive(Debug)]
pub struct HealthStream {
    replies: Streaming<pb::HealthCheckResponse>,
}

impl Stream for HealthStream {
    type Item = Result<HealthStatus, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let reply = Pin::new(&mut self.replies).poll_next(context);
        reply.map(|reply| reply.map(|reply| HealthStatus::from_proto(reply?)))
    }
}
