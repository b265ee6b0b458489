// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Status};

use crate::client::Client;
use crate::error::Error;
use crate::retry::{Attempts, Policy};

/// A point in time that a call ends at, none where it is too far away to be told.
pub(crate) type Deadline = Option<Instant>;

impl Client {
    /// Makes one call: its attempts, all before one deadline, each with a copy of the message.
    pub(crate) async fn call<Message, Reply, Sent>(
        &self,
        policy: Policy,
        timeout: Duration,
        message: Message,
        send: impl Fn(Request<Message>) -> Sent,
    ) -> Result<(Reply, Deadline), Error>
    where
        Message: prost::Message + Clone,
        Sent: Future<Output = Result<Reply, Status>>,
    {
        // Here, because tonic would take it for a connection that broke.
        let (size, limit) = (message.encoded_len(), self.max_message_bytes);
        if size > limit {
            return Err(Error::too_large(size, limit));
        }
        let deadline = Instant::now().checked_add(timeout);
        let attempts = self.attempts(policy, deadline, message, send);
        let reply = match deadline {
            None => attempts.await,
            Some(instant) => match timeout_at(instant, attempts).await {
                // The connection keeps time, too, but calls the end of it a cancellation.
                Ok(Err(error)) if error.code() == Code::Cancelled && has_passed(instant) => {
                    Err(Error::deadline_exceeded(timeout))
                }
                Ok(done) => done,
                Err(_) => Err(Error::deadline_exceeded(timeout)),
            },
        };
        Ok((reply?, deadline))
    }

    async fn attempts<Message, Reply, Sent>(
        &self,
        policy: Policy,
        deadline: Deadline,
        message: Message,
        send: impl Fn(Request<Message>) -> Sent,
    ) -> Result<Reply, Error>
    where
        Message: Clone,
        Sent: Future<Output = Result<Reply, Status>>,
    {
        let mut attempts = Attempts::new(policy, &self.throttle, self.max_attempts);
        loop {
            let request = self.request(message.clone(), deadline, attempts.previous());
            let error = match send(request).await {
                Ok(reply) => {
                    self.throttle.succeeded();
                    return Ok(reply);
                }
                Err(status) => Error::from(status),
            };
            let delay = if self.wait_for_ready && error.is_connect() {
                Some(attempts.next_backoff()) // nothing was sent: this was no attempt
            } else {
                attempts.after(&error)
            };
            match delay {
                // The last failure says more than a deadline that is waited for in vain.
                Some(delay) if deadline.is_none_or(|end| Instant::now() + delay < end) => {
                    sleep(delay).await;
                }
                _ => return Err(error),
            }
        }
    }

    pub(crate) fn request<Message>(
        &self,
        message: Message,
        deadline: Deadline,
        previous: u32,
    ) -> Request<Message> {
        let mut request = Request::new(message);
        request.metadata_mut().clone_from(&self.metadata);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        if previous > 0 {
            // As gRPC's own retries do (gRFC A6).
            request
                .metadata_mut()
                .insert("grpc-previous-rpc-attempts", previous.into());
        }
        request
    }
}

fn has_passed(deadline: Instant) -> bool {
    // The connection's timer may be ahead by the rounding of timers, a millisecond.
    deadline.saturating_duration_since(Instant::now()) <= Duration::from_millis(2)
}
