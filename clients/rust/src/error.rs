// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// One field of a request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// A dotted path in the request, for example `images.tensor.shape`.
    pub field: String,
    /// What was sent and what is expected.
    pub description: String,
}

/// What an [`Error`] is, beyond its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Too many rows wait for the model; [`Error::retry_after`] says how long to wait.
    QueueFull,
    /// The request or the reply exceeds a limit. Trying again does not help: send fewer images,
    /// ask for [`crate::Format::Uint8`] or [`crate::Format::Png`], or raise
    /// [`crate::Builder::max_message_bytes`].
    MessageTooLarge,
    /// The model lacks the operation; `metadata()["operations"]` lists what it has.
    OperationNotSupported,
    /// No such model or version; `metadata()["models"]` lists what there is.
    ModelNotFound,
    /// The reply breaks the contract; server and client differ in version.
    BadReply,
    /// What the code says.
    Other,
}

/// What can go wrong in a call: by the server's answer, on the way to it, or before anything was
/// sent (then with [`Code::InvalidArgument`]).
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

    /// The code as the protocol spells it, for example `INVALID_ARGUMENT`.
    pub fn code_name(&self) -> &'static str {
        code_name(self.0.code)
    }

    /// What it is, beyond its code.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was wrong, what is expected and what to do.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The server's own name for the error, for example `QUEUE_FULL`; empty where the error does
    /// not come from the server.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// `latentserve` where the server gave a reason.
    pub fn domain(&self) -> &str {
        &self.0.domain
    }

    /// What belongs to the reason; `request_id` finds the call in the server's log.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.0.metadata
    }

    /// The fields of the request that are wrong.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// How long the server asks to wait before another attempt, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The status as gRPC gave it, with its trailers; none where nothing was sent.
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

    /// Returns the error for an argument that is refused before anything is sent.
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
        let advice = "the server and this client are of different versions: update the older one";
        let mut error = Self::new(Code::Internal, format!("{message}; {advice}"));
        error.0.kind = ErrorKind::BadReply;
        error
    }

    pub(crate) fn too_large(size: usize, limit: usize) -> Self {
        let message = format!("a request of {size} bytes; this client sends at most {limit}");
        let mut error = Self::new(Code::ResourceExhausted, message);
        error.0.kind = ErrorKind::MessageTooLarge;
        error
    }

    pub(crate) fn deadline_exceeded(timeout: Duration) -> Self {
        Self::new(
            Code::DeadlineExceeded,
            format!("no answer within {timeout:?}"),
        )
    }

    /// Gives a message to an error whose server side sends none.
    pub(crate) fn unless_said(mut self, message: impl FnOnce() -> String) -> Self {
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

/// Also for calls that were made with the stubs of [`crate::pb`].
impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let mut error = Self::new(code_of(&status), message_of(&status));
        let inner = &mut *error.0;
        // Details that cannot be read belong to a status that a proxy on the way rewrote.
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

/// Returns the code that gRPC's other libraries give.
fn code_of(status: &Status) -> Code {
    let local = std::error::Error::source(status).is_some();
    match status.code() {
        // A connection that broke: tonic knows no code for it.
        Code::Unknown if local => Code::Unavailable,
        Code::OutOfRange if is_size_limit(status.message()) => Code::ResourceExhausted,
        code => code,
    }
}

fn is_size_limit(message: &str) -> bool {
    message.starts_with("Error, ") && message.contains("message length too large")
}

/// Returns the status's message, with the causes that tonic leaves out of it.
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
        message.push_str("the server gave no reason");
    }
    message
}

fn kind_of(inner: &Inner) -> ErrorKind {
    match inner.reason.as_str() {
        "QUEUE_FULL" => ErrorKind::QueueFull,
        "OPERATION_NOT_SUPPORTED" => ErrorKind::OperationNotSupported,
        "MODEL_NOT_FOUND" => ErrorKind::ModelNotFound,
        // gRPC itself answers here, with a text and nothing else.
        _ if inner.code == Code::ResourceExhausted
            && (inner.message.contains("larger than max") || is_size_limit(&inner.message)) =>
        {
            ErrorKind::MessageTooLarge
        }
        _ => ErrorKind::Other,
    }
}

impl fmt::Display for Error {
    /// Writes the code, the message, and what of the details the message lacks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message();
        write!(f, "{}: {message}", self.code_name())?;
        for violation in self.violations() {
            // A server often repeats its only violation as the message.
            if !message.contains(&violation.description) {
                write!(f, "; {}: {}", violation.field, violation.description)?;
            }
        }
        if let Some(id) = self.metadata().get("request_id")
            && self.code() == Code::Internal
            && !message.contains(id)
        {
            write!(f, "; the server's log says why, under request id {id}")?;
        }
        for key in ["models", "operations"] {
            if let Some(have) = self.metadata().get(key).filter(|have| !have.is_empty())
                && !message.contains(have)
            {
                write!(f, "; there are: {have}")?;
            }
        }
        if let Some(delay) = self.retry_after() {
            write!(f, "; try again in {delay:?}")?;
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
    fn the_details_are_kept() {
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
             model.version: negative; try again in 1.5s"
        );
    }

    #[test]
    fn kinds_follow_from_the_reason() {
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
    fn what_is_to_be_known_is_said_once() {
        let metadata = HashMap::from([
            ("models".to_owned(), "mnist-ae, mnist-vae".to_owned()),
            ("request_id".to_owned(), "abc".to_owned()),
        ]);
        let details = ErrorDetails::with_error_info("MODEL_NOT_FOUND", "latentserve", metadata);
        let text = failure(Code::NotFound, details).to_string();
        assert!(
            text.ends_with("wrong; there are: mnist-ae, mnist-vae"),
            "{text}"
        );
        let silent: Error = Status::new(Code::NotFound, "").into();
        assert_eq!(silent.message(), "the server gave no reason");
        assert_eq!(
            silent.unless_said(|| "no such model".to_owned()).message(),
            "no such model"
        );
    }
}
