// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Retry policy of gRPC (gRFC A6) with the rules that all latentserve clients share.
//!
//! Needed because tonic does not support a service config.

use std::sync::Mutex;
use std::time::Duration;

use tonic::Code;

use crate::error::{Error, ErrorKind};

/// Maximum attempts of one call, including the first.
pub(crate) const MAX_ATTEMPTS: u32 = 4;

const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Service of a call, which determines the errors that are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Generative,
    Models,
    /// A health check reports the current state.
    Never,
}

impl Policy {
    fn retries(self, error: &Error) -> bool {
        match error.code() {
            // Only the server can cause CANCELLED: the client cancels by dropping the future.
            Code::Unavailable | Code::Cancelled => self != Self::Never,
            // The same code also means a message above the size limit, which fails again.
            Code::ResourceExhausted => {
                self == Self::Generative && error.kind() == ErrorKind::QueueFull
            }
            _ => false,
        }
    }
}

/// Retry advice of the server, from the trailer `grpc-retry-pushback-ms`.
#[derive(Debug, PartialEq, Eq)]
enum Pushback {
    Absent,
    Wait(Duration),
    Never,
}

fn pushback(error: &Error) -> Pushback {
    let trailer = error
        .status()
        .and_then(|status| status.metadata().get("grpc-retry-pushback-ms"));
    let Some(value) = trailer else {
        return Pushback::Absent;
    };
    // A value that is not a number of milliseconds means no retry (gRFC A6).
    let ms = value.to_str().ok().and_then(|text| text.parse().ok());
    ms.map_or(Pushback::Never, |ms: u32| {
        Pushback::Wait(Duration::from_millis(ms.into()))
    })
}

/// Retry throttle, shared by all calls of a client: stops retries while most calls fail.
///
/// A worker that crashes fails all calls in flight at once; half of the tokens must cover these.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// In tenths of a token, so that a success adds one.
    tokens: Mutex<u32>,
}

const MAX_TOKENS: u32 = 2000;
const PER_FAILURE: u32 = 10;
const PER_SUCCESS: u32 = 1;

impl Throttle {
    pub(crate) fn new() -> Self {
        Self {
            tokens: Mutex::new(MAX_TOKENS),
        }
    }

    pub(crate) fn succeeded(&self) {
        let mut tokens = self.lock();
        *tokens = MAX_TOKENS.min(*tokens + PER_SUCCESS);
    }

    /// Counts a failure; returns whether more than half of the tokens are left.
    fn failed(&self) -> bool {
        let mut tokens = self.lock();
        *tokens = tokens.saturating_sub(PER_FAILURE);
        *tokens > MAX_TOKENS / 2
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, u32> {
        self.tokens
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The attempts of one call.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    policy: Policy,
    throttle: &'a Throttle,
    max_attempts: u32,
    /// Number of failed attempts.
    failed: u32,
    backoff: Duration,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(policy: Policy, throttle: &'a Throttle, max_attempts: u32) -> Self {
        Self {
            policy,
            throttle,
            max_attempts,
            failed: 0,
            backoff: INITIAL_BACKOFF,
        }
    }

    /// Number of attempts before the next one.
    pub(crate) fn previous(&self) -> u32 {
        self.failed
    }

    /// Records a failed attempt; returns the delay before the next one, or `None` for no retry.
    pub(crate) fn after(&mut self, error: &Error) -> Option<Duration> {
        self.failed += 1;
        let pushback = pushback(error);
        let retryable = self.policy.retries(error);
        // Other errors do not indicate an overloaded or failing server.
        let allowed = (retryable || pushback == Pushback::Never) && self.throttle.failed();
        if !retryable || !allowed || self.failed >= self.max_attempts {
            return None;
        }
        match pushback {
            Pushback::Never => None,
            Pushback::Wait(delay) => {
                self.backoff = INITIAL_BACKOFF;
                Some(delay)
            }
            Pushback::Absent => Some(self.next_backoff()),
        }
    }

    /// Returns a random fraction of a delay that doubles each time.
    pub(crate) fn next_backoff(&mut self) -> Duration {
        let delay = self.backoff.mul_f64(fastrand::f64());
        self.backoff = MAX_BACKOFF.min(2 * self.backoff);
        delay
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic::Status;
    use tonic::metadata::MetadataMap;
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn failure(code: Code, reason: &str, pushback: Option<&str>) -> Error {
        let mut trailers = MetadataMap::new();
        if let Some(value) = pushback {
            trailers.insert("grpc-retry-pushback-ms", value.parse().unwrap());
        }
        let details = ErrorDetails::with_error_info(reason, "latentserve", HashMap::new());
        Status::with_error_details_and_metadata(code, "refused", details, trailers).into()
    }

    fn is_retried(policy: Policy, error: &Error) -> bool {
        let throttle = Throttle::new();
        Attempts::new(policy, &throttle, MAX_ATTEMPTS)
            .after(error)
            .is_some()
    }

    #[test]
    fn retried_codes_depend_on_the_service() {
        use Policy::{Generative, Models, Never};
        for (code, reason, policies) in [
            (Code::Unavailable, "NOT_READY", &[Generative, Models][..]),
            (Code::Cancelled, "", &[Generative, Models]),
            (Code::ResourceExhausted, "QUEUE_FULL", &[Generative]),
            (Code::ResourceExhausted, "", &[]),
            (Code::Internal, "ENGINE_FAILURE", &[]),
            (Code::InvalidArgument, "INVALID_REQUEST", &[]),
            (Code::DeadlineExceeded, "", &[]),
        ] {
            for policy in [Generative, Models, Never] {
                let again = is_retried(policy, &failure(code, reason, None));
                assert_eq!(
                    again,
                    policies.contains(&policy),
                    "{code:?} {reason} {policy:?}"
                );
            }
        }
    }

    #[test]
    fn pushback_overrides_the_backoff() {
        for (text, delay) in [
            ("0", Some(Duration::ZERO)),
            ("7000", Some(Duration::from_secs(7))),
            ("-1", None),
            ("soon", None),
        ] {
            let throttle = Throttle::new();
            let mut attempts = Attempts::new(Policy::Generative, &throttle, MAX_ATTEMPTS);
            let error = failure(Code::Unavailable, "", Some(text));
            assert_eq!(attempts.after(&error), delay, "{text}");
        }
    }

    #[test]
    fn four_attempts_with_exponential_backoff() {
        let throttle = Throttle::new();
        let mut attempts = Attempts::new(Policy::Models, &throttle, MAX_ATTEMPTS);
        let error = failure(Code::Unavailable, "", None);
        for (previous, limit) in [(0, 100), (1, 200), (2, 400)] {
            assert_eq!(attempts.previous(), previous);
            assert!(attempts.after(&error).unwrap() <= Duration::from_millis(limit));
        }
        assert_eq!(attempts.after(&error), None);
        let bounds: Vec<_> = (0..9)
            .map(|_| {
                attempts.next_backoff();
                attempts.backoff
            })
            .collect();
        assert_eq!(bounds.last(), Some(&MAX_BACKOFF));
    }

    #[test]
    fn throttle_stops_retries_at_half_of_the_tokens() {
        let throttle = Throttle::new();
        let error = failure(Code::Unavailable, "", None);
        let again = || {
            Attempts::new(Policy::Generative, &throttle, MAX_ATTEMPTS)
                .after(&error)
                .is_some()
        };
        assert_eq!((0..150).filter(|_| again()).count(), 99);
        // An invalid request takes no tokens.
        for _ in 0..500 {
            Attempts::new(Policy::Generative, &throttle, MAX_ATTEMPTS).after(&failure(
                Code::InvalidArgument,
                "",
                None,
            ));
        }
        // 150 failures left 50 tokens; 520 successes raise them to 102; the next failure takes one.
        for _ in 0..520 {
            throttle.succeeded();
        }
        assert!(again());
        assert!(!again());
    }
}
