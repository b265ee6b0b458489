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

/// The last row that a stream may start at.
const MAX_OFFSET: i64 = 1 << 62;

/// Asks for images drawn from the model. The latent of image k depends on the seed, `offset` + k
/// and the temperature alone.
#[derive(Clone, Debug, Default)]
pub struct SampleRequest {
    /// As in [`crate::EncodeRequest`].
    pub model: String,
    /// At least 1; for [`Client::sample`] at most the model's `limits.max_request_rows`.
    pub count: i64,
    /// None: the server draws one and returns it.
    pub seed: Option<u64>,
    /// The first row of the seed's stream, up to 2^62.
    pub offset: i64,
    /// 0 to 10; below 1 draws nearer the mode. None: 1.
    pub temperature: Option<f32>,
    /// The form of the images in the reply.
    pub format: Format,
    /// Whether the reply has the latents, too.
    pub include_latents: bool,
    /// Images per chunk, for [`Client::sample_stream`]; 0: the server chooses.
    pub chunk_rows: i32,
}

/// Images drawn from the model.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleResult {
    /// The images, in the form that was asked for.
    pub images: Images,
    /// The request's seed, or the one that the server drew.
    pub seed: u64,
    /// Single precision, `[n, dim]`: what the images were decoded from; none unless asked for.
    pub latents: Option<Tensor>,
    /// Which model answered.
    pub served_by: ServedBy,
    /// Where the time went.
    pub timings: Timings,
}

/// Some consecutive images of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleChunk {
    /// The row of the seed's stream that the first image is.
    pub offset: i64,
    /// The images of this chunk, in the form that was asked for.
    pub images: Images,
    /// The request's seed, or the one that the server drew.
    pub seed: u64,
    /// As in [`SampleResult`].
    pub latents: Option<Tensor>,
    /// Which model answered.
    pub served_by: ServedBy,
    /// Where the time of this chunk went.
    pub timings: Timings,
}

impl SampleChunk {
    /// Where to resume after this chunk: [`SampleRequest::offset`], with the same seed.
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
    /// Refuses what can be judged here.
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
    /// Draws images from the model.
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

    /// Draws many images, in chunks that hold what [`Client::sample`] gives. Returns as soon as
    /// the first chunk is there, after other attempts where needed; what fails later is an item
    /// of the stream, its last.
    ///
    /// Dropping the stream cancels the rest. After a break, go on with the seed of the last chunk
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

/// The chunks of [`Client::sample_stream`]; a [`Stream`], which `StreamExt` of tokio-stream or
/// futures goes through.
#[derive(Debug)]
pub struct SampleStream {
    first: Option<Result<SampleChunk, Error>>,
    /// None once the stream has ended.
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
        // First, or a server that never pauses would go on for ever.
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
            self.messages = None; // dropping it cancels what goes on
        }
        Poll::Ready(item)
    }
}
