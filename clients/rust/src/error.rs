// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// An invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Dotted path in the request, for example `images.tensor.shape`.
    pub field: String,
    /// The value received and the value expected.
    pub description: String,
}

/// Kind of an [`Error`], more specific than its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The queue of the model is full; retry after [`Error::retry_after`].
    QueueFull,
    /// The request or the reply exceeds a size limit. A retry fails again: send fewer images,
    /// request [`crate::Format::Uint8`] or [`crate::Format::Png`], or raise
    /// [`crate::Builder::max_message_bytes`].
    MessageTooLarge,
    /// The model lacks the operation; `metadata()["operations"]` lists those it supports.
    OperationNotSupported,
    /// Unknown model or version; `metadata()["models"]` lists the available models.
    ModelNotFound,
    /// The reply violates the protocol; the versions of server and client differ.
    BadReply,
    /// Any other error; see its code.
    Other,
}

/// Error of a call: returned by the server, raised by the transport, or found before anything was
/// sent (the code is then [`Code::InvalidArgument`]).
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    kind: ErrorKind,
    message: String,
    reason: String,
    domain: String,
    metadata: HashMap<String, String>,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    status: Option<Status>,
}

impl Error {
    /// The gRPC status code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The name of the code in the gRPC specification, for example `INVALID_ARGUMENT`.
    pub fn code_name(&self) -> &'static str {
        code_name(self.0.code)
    }

    /// The kind of the error, more specific than its code.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The cause, the expected value, and a remedy.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The server's name of the error, for example `QUEUE_FULL`; empty if the error does not come
    /// from the server.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// `latentserve` if the server sent a reason.
    pub fn domain(&self) -> &str {
        &self.0.domain
    }

    /// Details of the reason; `request_id` identifies the call in the server's log.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.0.metadata
    }

    /// The invalid fields of the request.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// The delay before a retry that the server requests, if any.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The gRPC status with its trailers; `None` if nothing was sent.
    pub fn status(&self) -> Option<&Status> {
        self.0.status.as_ref()
    }

    fn new(code: Code, message: String) -> Self {
        Self(Box::new(Inner {
            code,
            kind: ErrorKind::Other,
            message,
            reason: String::new(),
            domain: String::new(),
            metadata: HashMap::new(),
            violations: Vec::new(),
            retry_after: None,
            status: None,
        }))
    }

    /// Returns the error for an argument that is invalid before anything is sent.
    pub(crate) fn invalid(field: &str, description: impl Into<String>) -> Self {
        let description = description.into();
        let mut error = Self::new(Code::InvalidArgument, format!("{field}: {description}"));
        error.0.violations.push(Violation {
            field: field.to_owned(),
            description,
        });
        error
    }

    pub(crate) fn bad_reply(message: impl fmt::Display) -> Self {
        let advice = "the versions of the server and this client differ: update the older one";
        let mut error = Self::new(Code::Internal, format!("{message}; {advice}"));
        error.0.kind = ErrorKind::BadReply;
        error
    }

    pub(crate) fn too_large(size: usize, limit: usize) -> Self {
        let message =
            format!("the request has {size} bytes; the limit of this client is {limit} bytes");
        let mut error = Self::new(Code::ResourceExhausted, message);
        error.0.kind = ErrorKind::MessageTooLarge;
        error
    }

    pub(crate) fn deadline_exceeded(timeout: Duration) -> Self {
        Self::new(
            Code::DeadlineExceeded,
            format!("no reply within {timeout:?}"),
        )
    }

    /// Sets the message of an error for which the server sent none.
    pub(crate) fn with_default_message(mut self, message: impl FnOnce() -> String) -> Self {
        if self
            .0
            .status
            .as_ref()
            .is_some_and(|status| status.message().is_empty())
        {
            self.0.message = message();
        }
        self
    }

    /// Whether the server could not be reached, so that nothing was sent.
    pub(crate) fn is_connect(&self) -> bool {
        let mut source = self.0.status.as_ref().and_then(std::error::Error::source);
        while let Some(error) = source {
            if error.is::<tonic::ConnectError>() {
                return true;
            }
            source = error.source();
        }
        false
    }
}

/// Also converts the errors of calls made with the stubs of [`crate::pb`].
impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let mut error = Self::new(code_of(&status), message_of(&status));
        let inner = &mut *error.0;
        // Details that cannot be parsed come from a proxy that rewrote the status.
        let details = status.get_error_details();
        if let Some(info) = details.error_info() {
            inner.reason.clone_from(&info.reason);
            inner.domain.clone_from(&info.domain);
            inner.metadata.clone_from(&info.metadata);
        }
        if let Some(bad) = details.bad_request() {
            let violations = bad.field_violations.iter().map(|violation| Violation {
                field: violation.field.clone(),
                description: violation.description.clone(),
            });
            inner.violations.extend(violations);
        }
        inner.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        inner.kind = kind_of(inner);
        inner.status = Some(status);
        error
    }
}

/// Returns the code that the other gRPC libraries report for this status.
fn code_of(status: &Status) -> Code {
    let local = std::error::Error::source(status).is_some();
    match status.code() {
        // A broken connection, for which tonic has no code.
        Code::Unknown if local => Code::Unavailable,
        Code::OutOfRange if is_size_limit(status.message()) => Code::ResourceExhausted,
        code => code,
    }
}

fn is_size_limit(message: &str) -> bool {
    message.starts_with("Error, ") && message.contains("message length too large")
}

/// Returns the message of the status, followed by the causes that tonic omits.
fn message_of(status: &Status) -> String {
    let mut message = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let text = error.to_string();
        if !message.contains(&text) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&text);
        }
        source = error.source();
    }
    if message.is_empty() {
        message.push_str("the server sent no message");
    }
    message
}

fn kind_of(inner: &Inner) -> ErrorKind {
    match inner.reason.as_str() {
        "QUEUE_FULL" => ErrorKind::QueueFull,
        "OPERATION_NOT_SUPPORTED" => ErrorKind::OperationNotSupported,
        "MODEL_NOT_FOUND" => ErrorKind::ModelNotFound,
        // This error comes from gRPC itself, which sends a message without details.
        _ if inner.code == Code::ResourceExhausted
            && (inner.message.contains("larger than max") || is_size_limit(&inner.message)) =>
        {
            ErrorKind::MessageTooLarge
        }
        _ => ErrorKind::Other,
    }
}

impl fmt::Display for Error {
    /// Writes the code, the message, and the details that the message does not contain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message();
        write!(f, "{}: {message}", self.code_name())?;
        for violation in self.violations() {
            // The server often uses its only violation as the message.
            if !message.contains(&violation.description) {
                write!(f, "; {}: {}", violation.field, violation.description)?;
            }
        }
        if let Some(id) = self.metadata().get("request_id")
            && self.code() == Code::Internal
            && !message.contains(id)
        {
            write!(
                f,
                "; for the cause, search the server's log for request id {id}"
            )?;
        }
        for key in ["models", "operations"] {
            if let Some(have) = self.metadata().get(key).filter(|have| !have.is_empty())
                && !message.contains(have)
            {
                write!(f, "; available: {have}")?;
            }
        }
        if let Some(delay) = self.retry_after() {
            write!(f, "; retry after {delay:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.status.as_ref().and_then(std::error::Error::source)
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn failure(code: Code, details: ErrorDetails) -> Error {
        Status::with_error_details(code, "two things are wrong", details).into()
    }

    #[test]
    fn details_of_the_status_are_kept() {
        let mut details = ErrorDetails::new();
        let metadata = HashMap::from([("request_id".to_owned(), "abc".to_owned())]);
        details.set_error_info("INVALID_REQUEST", "latentserve", metadata);
        details.add_bad_request_violation("images.tensor.shape", "too tall");
        details.add_bad_request_violation("model.version", "negative");
        details.set_retry_info(Some(Duration::from_millis(1500)));
        let error = failure(Code::InvalidArgument, details);
        assert_eq!(error.code_name(), "INVALID_ARGUMENT");
        assert_eq!(
            (error.reason(), error.domain()),
            ("INVALID_REQUEST", "latentserve")
        );
        assert_eq!(error.metadata()["request_id"], "abc");
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
        assert_eq!(error.violations()[1].field, "model.version");
        assert_eq!(
            error.to_string(),
            "INVALID_ARGUMENT: two things are wrong; images.tensor.shape: too tall; \
             model.version: negative; retry after 1.5s"
        );
    }

    #[test]
    fn the_reason_determines_the_kind() {
        for (reason, kind) in [
            ("QUEUE_FULL", ErrorKind::QueueFull),
            ("OPERATION_NOT_SUPPORTED", ErrorKind::OperationNotSupported),
            ("MODEL_NOT_FOUND", ErrorKind::ModelNotFound),
            ("NOT_READY", ErrorKind::Other),
        ] {
            let details = ErrorDetails::with_error_info(reason, "latentserve", HashMap::new());
            assert_eq!(failure(Code::FailedPrecondition, details).kind(), kind);
        }
    }

    #[test]
    fn display_contains_each_detail_once() {
        let metadata = HashMap::from([
            ("models".to_owned(), "mnist-ae, mnist-vae".to_owned()),
            ("request_id".to_owned(), "abc".to_owned()),
        ]);
        let details = ErrorDetails::with_error_info("MODEL_NOT_FOUND", "latentserve", metadata);
        let text = failure(Code::NotFound, details).to_string();
        assert!(
            text.ends_with("wrong; available: mnist-ae, mnist-vae"),
            "{text}"
        );
        let silent: Error = Status::new(Code::NotFound, "").into();
        assert_eq!(silent.message(), "the server sent no message");
        assert_eq!(
            silent
                .with_default_message(|| "unknown model".to_owned())
                .message(),
            "unknown model"
        );
    }
}
