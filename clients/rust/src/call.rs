// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Status};

use crate::client::Client;
use crate::error::Error;
use crate::retry::{Attempts, Policy};

/// Deadline of a call; `None` if it is beyond the range of [`Instant`].
pub(crate) type Deadline = Option<Instant>;

impl Client {
    /// Makes one call, whose attempts share one deadline and send copies of the message.
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
        // Checked here because tonic would report it as a broken connection.
        let (size, limit) = (message.encoded_len(), self.max_message_bytes);
        if size > limit {
            return Err(Error::too_large(size, limit));
        }
        let deadline = Instant::now().checked_add(timeout);
        let attempts = self.attempts(policy, deadline, message, send);
        let reply = match deadline {
            None => attempts.await,
            Some(instant) => match timeout_at(instant, attempts).await {
                // The transport has the same timeout, but reports its expiry as CANCELLED.
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
                Some(attempts.next_backoff()) // nothing was sent, so it does not count
            } else {
                attempts.after(&error)
            };
            match delay {
                // If the delay exceeds the deadline, report this error, not DEADLINE_EXCEEDED.
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
            // As gRPC's built-in retries do (gRFC A6).
            request
                .metadata_mut()
                .insert("grpc-previous-rpc-attempts", previous.into());
        }
        request
    }
}

fn has_passed(deadline: Instant) -> bool {
    // The transport's timer may fire up to a millisecond early because timers are rounded.
    deadline.saturating_duration_since(Instant::now()) <= Duration::from_millis(2)
}
