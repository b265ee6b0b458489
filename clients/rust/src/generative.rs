// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::images::Images;
use crate::pb;
use crate::retry::Policy;
use crate::tensor::Tensor;

/// Format of the images in a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Floats in \[0, 1\].
    #[default]
    Float32,
    /// Half-precision floats in \[0, 1\].
    Float16,
    /// Integers from 0 to 255.
    Uint8,
    /// One PNG file per image.
    Png,
}

impl Format {
    pub(crate) fn to_proto(self) -> i32 {
        let format = match self {
            Self::Float32 => pb::ImageFormat::Float32,
            Self::Float16 => pb::ImageFormat::Float16,
            Self::Uint8 => pb::ImageFormat::Uint8,
            Self::Png => pb::ImageFormat::Png,
        };
        format.into()
    }
}

/// The model version that served a call, and its execution provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedBy {
    /// The model's name.
    pub name: String,
    /// The model's version.
    pub version: i32,
    /// SHA-256 of the model's manifest, which identifies the weights.
    pub digest: String,
    /// ONNX Runtime execution provider, for example `CPUExecutionProvider`.
    pub provider: String,
}

impl ServedBy {
    pub(crate) fn from_proto(message: Option<pb::ServedBy>) -> Self {
        let message = message.unwrap_or_default();
        Self {
            name: message.name,
            version: message.version,
            digest: message.digest,
            provider: message.provider,
        }
    }
}

/// Durations of one call on the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Time until the first batch with rows of this call started.
    pub queue: Duration,
    /// Time in ONNX Runtime.
    pub compute: Duration,
    /// Rows of the largest batch of this call, including rows of other calls.
    pub batch_rows: i32,
}

impl Timings {
    pub(crate) fn from_proto(message: Option<pb::Timings>) -> Self {
        let message = message.unwrap_or_default();
        let duration = |ns: i64| Duration::from_nanos(ns.try_into().unwrap_or(0));
        Self {
            queue: duration(message.queue_ns),
            compute: duration(message.compute_ns),
            batch_rows: message.batch_rows,
        }
    }
}

/// Request to encode images to latents.
#[derive(Clone, Debug, Default)]
pub struct EncodeRequest {
    /// `NAME` or `NAME:VERSION`; if empty, the client's model, or else the server's default.
    pub model: String,
    /// The images.
    pub images: Images,
    /// `None` returns the mean of q(z|x); a seed returns a sample from it.
    pub seed: Option<u64>,
}

/// Latents, in the order of the images.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodeResult {
    /// Single precision, `[n, dim]`.
    pub latents: Tensor,
    /// Natural logarithm of the variance, single precision, `[n, dim]`; `None` if there is none.
    pub log_variance: Option<Tensor>,
    /// Seed of the sample; `None` if the latents are the mean.
    pub seed: Option<u64>,
    /// The model version that served the call.
    pub served_by: ServedBy,
    /// Durations on the server.
    pub timings: Timings,
}

/// Request to decode latents to images.
#[derive(Clone, Debug, Default)]
pub struct DecodeRequest {
    /// As in [`EncodeRequest`].
    pub model: String,
    /// Single or half precision, `[n, dim]`; see [`Tensor::latents`].
    pub latents: Tensor,
    /// Format of the images in the reply.
    pub format: Format,
}

/// Images, in the order of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct ImagesResult {
    /// The images, in the requested format.
    pub images: Images,
    /// The model version that served the call.
    pub served_by: ServedBy,
    /// Durations on the server.
    pub timings: Timings,
}

/// Request to encode and decode images.
#[derive(Clone, Debug, Default)]
pub struct ReconstructRequest {
    /// As in [`EncodeRequest`].
    pub model: String,
    /// The images.
    pub images: Images,
    /// Format of the images in the reply.
    pub format: Format,
}

/// Reconstructions, in the order of the images.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconstructResult {
    /// The reconstructions, in the requested format.
    pub images: Images,
    /// Squared error of each image, summed over channels and pixels of images in \[0, 1\].
    pub squared_error: Vec<f32>,
    /// The model version that served the call.
    pub served_by: ServedBy,
    /// Durations on the server.
    pub timings: Timings,
}

/// Request to remove noise from images.
#[derive(Clone, Debug, Default)]
pub struct DenoiseRequest {
    /// As in [`EncodeRequest`].
    pub model: String,
    /// The noisy images; floats may range from -10 to 10.
    pub images: Images,
    /// Format of the images in the reply.
    pub format: Format,
}

impl From<Images> for EncodeRequest {
    fn from(images: Images) -> Self {
        Self {
            images,
            ..Self::default()
        }
    }
}

impl From<Tensor> for DecodeRequest {
    fn from(latents: Tensor) -> Self {
        Self {
            latents,
            ..Self::default()
        }
    }
}

impl From<Images> for ReconstructRequest {
    fn from(images: Images) -> Self {
        Self {
            images,
            ..Self::default()
        }
    }
}

impl From<Images> for DenoiseRequest {
    fn from(images: Images) -> Self {
        Self {
            images,
            ..Self::default()
        }
    }
}

impl Client {
    /// Encodes images to latents: the mean of q(z|x) or, with a seed, a sample from it.
    pub async fn encode(&self, request: impl Into<EncodeRequest>) -> Result<EncodeResult, Error> {
        let request = request.into();
        let message = pb::EncodeRequest {
            model: Some(self.model_ref(&request.model)?),
            images: Some(request.images.to_proto()?),
            seed: request.seed,
        };
        let (reply, _) = self
            .call(Policy::Generative, self.timeout, message, |message| {
                let mut stub = self.generative.clone();
                async move { stub.encode(message).await.map(tonic::Response::into_inner) }
            })
            .await?;
        let latents = reply
            .latents
            .ok_or_else(|| Error::bad_reply("the reply has no latents"))?;
        Ok(EncodeResult {
            latents: Tensor::from_proto(latents, 2)?,
            log_variance: reply
                .log_variance
                .map(|t| Tensor::from_proto(t, 2))
                .transpose()?,
            seed: reply.seed,
            served_by: ServedBy::from_proto(reply.served_by),
            timings: Timings::from_proto(reply.timings),
        })
    }

    /// Decodes latents to images: the mean of p(x|z).
    pub async fn decode(&self, request: impl Into<DecodeRequest>) -> Result<ImagesResult, Error> {
        let request = request.into();
        let message = pb::DecodeRequest {
            model: Some(self.model_ref(&request.model)?),
            latents: Some(request.latents.to_proto("latents", 2)?),
            output_format: request.format.to_proto(),
        };
        let (reply, _) = self
            .call(Policy::Generative, self.timeout, message, |message| {
                let mut stub = self.generative.clone();
                async move { stub.decode(message).await.map(tonic::Response::into_inner) }
            })
            .await?;
        Ok(ImagesResult {
            images: Images::from_proto(reply.images)?,
            served_by: ServedBy::from_proto(reply.served_by),
            timings: Timings::from_proto(reply.timings),
        })
    }

    /// Encodes images to their mean latents and decodes these.
    pub async fn reconstruct(
        &self,
        request: impl Into<ReconstructRequest>,
    ) -> Result<ReconstructResult, Error> {
        let request = request.into();
        let message = pb::ReconstructRequest {
            model: Some(self.model_ref(&request.model)?),
            images: Some(request.images.to_proto()?),
            output_format: request.format.to_proto(),
        };
        let (reply, _) = self
            .call(Policy::Generative, self.timeout, message, |message| {
                let mut stub = self.generative.clone();
                async move {
                    stub.reconstruct(message)
                        .await
                        .map(tonic::Response::into_inner)
                }
            })
            .await?;
        Ok(ReconstructResult {
            images: Images::from_proto(reply.images)?,
            squared_error: reply.squared_error,
            served_by: ServedBy::from_proto(reply.served_by),
            timings: Timings::from_proto(reply.timings),
        })
    }

    /// Removes the noise from images.
    pub async fn denoise(&self, request: impl Into<DenoiseRequest>) -> Result<ImagesResult, Error> {
        let request = request.into();
        let message = pb::DenoiseRequest {
            model: Some(self.model_ref(&request.model)?),
            images: Some(request.images.to_proto()?),
            output_format: request.format.to_proto(),
        };
        let (reply, _) = self
            .call(Policy::Generative, self.timeout, message, |message| {
                let mut stub = self.generative.clone();
                async move { stub.denoise(message).await.map(tonic::Response::into_inner) }
            })
            .await?;
        Ok(ImagesResult {
            images: Images::from_proto(reply.images)?,
            served_by: ServedBy::from_proto(reply.served_by),
            timings: Timings::from_proto(reply.timings),
        })
    }
}
