// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Result of the call of a case: replies, a value, an error, or a failure of the runner.

use latentserve::{
    Error, Images, ImagesResult, SampleChunk, SampleResult, ServedBy, Tensor, Timings,
};

/// Reply of GenerativeService, or one message of a stream.
#[derive(Default)]
pub struct Part {
    pub images: Option<Images>,
    pub latents: Option<Tensor>,
    pub log_variance: Option<Tensor>,
    pub squared_error: Option<Tensor>,
    pub seed: Option<u64>,
    pub offset: i64,
    pub served_by: ServedBy,
    pub timings: Timings,
}

/// Result of a call.
pub enum Outcome {
    Parts(Vec<Part>),
    /// Reply of ModelService or health, with the names of the .proto files.
    Value(serde_json::Value),
    Failure(Error),
    /// Error of the runner or of the case.
    Runner(String),
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        Self::Failure(error)
    }
}

impl From<tonic::Status> for Outcome {
    fn from(status: tonic::Status) -> Self {
        Self::Failure(status.into())
    }
}

impl From<String> for Outcome {
    fn from(reason: String) -> Self {
        Self::Runner(reason)
    }
}

/// Outcome of a call; `Ok` if it succeeded.
pub type CallResult = Result<Outcome, Outcome>;

impl From<ImagesResult> for Part {
    fn from(reply: ImagesResult) -> Self {
        Self {
            images: Some(reply.images),
            served_by: reply.served_by,
            timings: reply.timings,
            ..Self::default()
        }
    }
}

impl From<SampleResult> for Part {
    fn from(reply: SampleResult) -> Self {
        Self {
            images: Some(reply.images),
            latents: reply.latents,
            seed: Some(reply.seed),
            served_by: reply.served_by,
            timings: reply.timings,
            ..Self::default()
        }
    }
}

impl From<SampleChunk> for Part {
    fn from(chunk: SampleChunk) -> Self {
        Self {
            images: Some(chunk.images),
            latents: chunk.latents,
            seed: Some(chunk.seed),
            offset: chunk.offset,
            served_by: chunk.served_by,
            timings: chunk.timings,
            ..Self::default()
        }
    }
}
