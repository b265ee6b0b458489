// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Client of latentserve, a gRPC server for generative models of images: encodes images to latents,
//! decodes latents, reconstructs, denoises and samples images.
//!
//! ```no_run
//! use latentserve::{Client, DecodeRequest, Format, Images, SampleRequest};
//!
//! # async fn example(pixels: Vec<u8>) -> Result<(), latentserve::Error> {
//! let client = Client::builder("127.0.0.1:50051").model("mnist-vae").build()?;
//! let x = Images::uint8(pixels, [10, 1, 28, 28]);
//! let z = client.encode(x).await?.latents; // z.shape, z.floats(), z.row(3)
//! let request = DecodeRequest { latents: z, format: Format::Png, ..Default::default() };
//! let y = client.decode(request).await?.images; // y.files()
//! let request = SampleRequest { count: 16, seed: Some(7), ..Default::default() };
//! let samples = client.sample(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Every call is a future: dropping it cancels the call on the server. A call that fails returns an
//! [`Error`].

mod builder;
mod call;
mod client;
mod error;
mod generative;
mod health;
mod images;
mod model_ref;
mod models;
mod retry;
mod sample;
mod tensor;

pub use builder::{
    Builder, DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_RELOAD_TIMEOUT, DEFAULT_TIMEOUT, Tls,
};
pub use client::Client;
pub use error::{Error, ErrorKind, Violation};
pub use generative::{
    DecodeRequest, DenoiseRequest, EncodeRequest, EncodeResult, Format, ImagesResult,
    ReconstructRequest, ReconstructResult, ServedBy, Timings,
};
pub use half::f16;
pub use health::{HealthStatus, HealthStream};
pub use images::Images;
pub use models::{
    ImageSpec, LatentSpec, Likelihood, Limits, Metric, Model, ModelList, ReloadOutcome,
};
pub use sample::{SampleChunk, SampleRequest, SampleResult, SampleStream};
pub use tensor::{Tensor, Values};
pub use tonic::Code;

/// The generated messages and stubs, for use with [`Client::channel`] where the client lacks a
/// feature.
#[allow(missing_docs, clippy::all)]
pub mod pb {
    tonic::include_proto!("latentserve.v1");
}
