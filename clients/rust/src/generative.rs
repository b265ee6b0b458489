// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::images::Images;
use crate::pb;
use crate::retry::Policy;
use crate::tensor::Tensor;

/// The form in which images come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Floats in \[0, 1\].
    #[default]
    Float32,
    /// Half-precision floats in \[0, 1\].
    Float16,
    /// 0 to 255.
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

/// Which model answered, and on what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedBy {
    /// The model's name.
    pub name: String,
    /// Its version.
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

/// Where the time of one call went on the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Until the first batch with rows of this call began.
    pub queue: Duration,
    /// In ONNX Runtime.
    pub compute: Duration,
    /// Rows of the largest of its batches, other callers' included.
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

/// Asks for the latents of images.
#[derive(Clone, Debug, Default)]
pub struct EncodeRequest {
    /// `NAME` or `NAME:VERSION`; empty: the client's, or else the server's default.
    pub model: String,
    /// The images.
    pub images: Images,
    /// None: the mean of q(z|x); else a draw from it.
    pub seed: Option<u64>,
}

/// Latents, in the order of the images.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodeResult {
    /// Single precision, `[n, dim]`.
    pub latents: Tensor,
    /// Single precision, `[n, dim]`: ln of the variance; none where the model has none.
    pub log_variance: Option<Tensor>,
    /// Of the draw; none where there was none.
    pub seed: Option<u64>,
    /// Which model answered.
    pub served_by: ServedBy,
    /// Where the time went.
    pub timings: Timings,
}

/// Asks for the images of latents.
#[derive(Clone, Debug, Default)]
pub struct DecodeRequest {
    /// As in [`EncodeRequest`].
    pub model: String,
    /// Single or half precision, `[n, dim]`; see [`Tensor::latents`].
    pub latents: Tensor,
    /// The form of the images in the reply.
    pub format: Format,
}

/// Images, in the order of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct ImagesResult {
    /// The images, in the form that was asked for.
    pub images: Images,
    /// Which model answered.
    pub served_by: ServedBy,
    /// Where the time went.
    pub timings: Timings,
}

/// Asks for images to be encoded and decoded again.
#[derive(Clone, Debug, Default)]
pub struct ReconstructRequest {
    /// As in [`EncodeRequest`].
    pub model: String,
    /// The images.
    pub images: Images,
    /// The form of the images in the reply.
    pub format: Format,
}

/// Reconstructions, in the order of the images.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconstructResult {
    /// The reconstructions, in the form that was asked for.
    pub images: Images,
    /// Of each image: summed over channels and pixels of \[0, 1\] images.
    pub squared_error: Vec<f32>,
    /// Which model answered.
    pub served_by: ServedBy,
    /// Where the time went.
    pub timings: Timings,
}

/// Asks for noise to be removed.
#[derive(Clone, Debug, Default)]
pub struct DenoiseRequest {
    /// As in [`EncodeRequest`].
    pub model: String,
    /// The noisy images; floats may be from -10 to 10 here.
    pub images: Images,
    /// The form of the images in the reply.
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
    /// Maps images to latents: the mean, or with a seed a draw from q(z|x).
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
            .ok_or_else(|| Error::bad_reply("no latents"))?;
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

    /// Maps latents to images: the mean of p(x|z).
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

    /// Encodes images to the mean latent and decodes it.
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
