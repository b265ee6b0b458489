// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::{Sleep, sleep_until};
use tonic::Streaming;

use crate::client::Client;
use crate::error::Error;
use crate::generative::{Format, ServedBy, Timings};
use crate::images::Images;
use crate::pb;
use crate::retry::Policy;
use crate::tensor::Tensor;

/// Highest row at which a stream may start.
const MAX_OFFSET: i64 = 1 << 62;

/// Request to sample images. The latents of image k depend only on the seed, `offset` + k and the
/// temperature.
#[derive(Clone, Debug, Default)]
pub struct SampleRequest {
    /// As in [`crate::EncodeRequest`].
    pub model: String,
    /// At least 1; for [`Client::sample`] at most the model's `limits.max_request_rows`.
    pub count: i64,
    /// `None` lets the server choose a seed, which the reply contains.
    pub seed: Option<u64>,
    /// First row of the seed's sequence of samples, at most 2^62.
    pub offset: i64,
    /// 0 to 10; values below 1 sample closer to the mode. `None` means 1.
    pub temperature: Option<f32>,
    /// Format of the images in the reply.
    pub format: Format,
    /// Whether the reply contains the latents.
    pub include_latents: bool,
    /// Images per chunk of [`Client::sample_stream`]; 0 lets the server choose.
    pub chunk_rows: i32,
}

/// Sampled images.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleResult {
    /// The images, in the requested format.
    pub images: Images,
    /// The request's seed, or the one that the server chose.
    pub seed: u64,
    /// Latents of the images, single precision, `[n, dim]`; `None` unless requested.
    pub latents: Option<Tensor>,
    /// The model version that served the call.
    pub served_by: ServedBy,
    /// Durations on the server.
    pub timings: Timings,
}

/// Consecutive images of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleChunk {
    /// Row of the first image in the seed's sequence of samples.
    pub offset: i64,
    /// The images of this chunk, in the requested format.
    pub images: Images,
    /// The request's seed, or the one that the server chose.
    pub seed: u64,
    /// As in [`SampleResult`].
    pub latents: Option<Tensor>,
    /// The model version that served the call.
    pub served_by: ServedBy,
    /// Durations of this chunk on the server.
    pub timings: Timings,
}

impl SampleChunk {
    /// Returns the [`SampleRequest::offset`] that resumes after this chunk, with the same seed.
    pub fn next_offset(&self) -> i64 {
        self.offset + self.images.len() as i64
    }

    fn from_proto(message: pb::SampleStreamResponse) -> Result<Self, Error> {
        Ok(Self {
            offset: message.offset,
            images: Images::from_proto(message.images)?,
            seed: message.seed,
            latents: message
                .latents
                .map(|t| Tensor::from_proto(t, 2))
                .transpose()?,
            served_by: ServedBy::from_proto(message.served_by),
            timings: Timings::from_proto(message.timings),
        })
    }
}

impl SampleRequest {
    /// Refuses values that are invalid for every model.
    fn check(&self, max_count: i64) -> Result<(), Error> {
        let Self {
            count,
            offset,
            chunk_rows,
            ..
        } = self;
        if !(1..=max_count).contains(count) {
            return Err(Error::invalid(
                "count",
                format!("{count}; expected 1 to {max_count}"),
            ));
        }
        if !(0..=MAX_OFFSET).contains(offset) {
            return Err(Error::invalid(
                "offset",
                format!("{offset}; expected 0 to 2^62"),
            ));
        }
        if let Some(temperature) = self.temperature.filter(|t| !(0.0..=10.0).contains(t)) {
            let description = format!("{temperature}; expected 0 to 10");
            return Err(Error::invalid("temperature", description));
        }
        if *chunk_rows < 0 {
            return Err(Error::invalid(
                "chunk_rows",
                format!("{chunk_rows}; expected 0 or more"),
            ));
        }
        Ok(())
    }
}

impl Client {
    /// Samples images.
    pub async fn sample(&self, request: SampleRequest) -> Result<SampleResult, Error> {
        request.check(i32::MAX.into())?;
        let message = pb::SampleRequest {
            model: Some(self.model_ref(&request.model)?),
            count: request.count as i32,
            seed: request.seed,
            offset: request.offset,
            temperature: request.temperature,
            output_format: request.format.to_proto(),
            include_latents: request.include_latents,
        };
        let (reply, _) = self
            .call(Policy::Generative, self.timeout, message, |message| {
                let mut stub = self.generative.clone();
                async move { stub.sample(message).await.map(tonic::Response::into_inner) }
            })
            .await?;
        Ok(SampleResult {
            images: Images::from_proto(reply.images)?,
            seed: reply.seed,
            latents: reply
                .latents
                .map(|t| Tensor::from_proto(t, 2))
                .transpose()?,
            served_by: ServedBy::from_proto(reply.served_by),
            timings: Timings::from_proto(reply.timings),
        })
    }

    /// Samples many images, in chunks. The images are those of [`Client::sample`]. Returns when the
    /// first chunk has arrived, after retries if necessary; a later error is the last item of the
    /// stream.
    ///
    /// Dropping the stream cancels the call. After an error, resume with the seed of the last chunk
    /// and its [`SampleChunk::next_offset`].
    pub async fn sample_stream(&self, request: SampleRequest) -> Result<SampleStream, Error> {
        request.check(i64::MAX)?;
        let message = pb::SampleStreamRequest {
            model: Some(self.model_ref(&request.model)?),
            count: request.count,
            seed: request.seed,
            offset: request.offset,
            temperature: request.temperature,
            output_format: request.format.to_proto(),
            include_latents: request.include_latents,
            chunk_rows: request.chunk_rows,
        };
        let ((first, messages), deadline) = self
            .call(Policy::Generative, self.timeout, message, |message| {
                let mut stub = self.generative.clone();
                async move {
                    let mut messages = stub.sample_stream(message).await?.into_inner();
                    Ok((messages.message().await?, messages))
                }
            })
            .await?;
        Ok(SampleStream {
            first: first.map(SampleChunk::from_proto),
            messages: Some(messages),
            timeout: self.timeout,
            end: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
        })
    }
}

/// Chunks of [`Client::sample_stream`] as a [`Stream`]; iterate with `StreamExt` of tokio-stream or
/// futures.
#[derive(Debug)]
pub struct SampleStream {
    first: Option<Result<SampleChunk, Error>>,
    /// `None` after the end of the stream.
    messages: Option<Streaming<pb::SampleStreamResponse>>,
    timeout: Duration,
    end: Option<Pin<Box<Sleep>>>,
}

impl SampleStream {
    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<SampleChunk, Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let Some(messages) = &mut self.messages else {
            return Poll::Ready(None);
        };
        // Checked first, because a server that always has a message ready would never reach it.
        if let Some(end) = &mut self.end
            && end.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(Error::deadline_exceeded(self.timeout))));
        }
        let message = ready!(Pin::new(messages).poll_next(context));
        Poll::Ready(message.map(|message| SampleChunk::from_proto(message?)))
    }
}

impl Stream for SampleStream {
    type Item = Result<SampleChunk, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.poll_message(context));
        if !matches!(item, Some(Ok(_))) {
            self.messages = None; // dropping it cancels the call
        }
        Poll::Ready(item)
    }
}
