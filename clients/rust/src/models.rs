// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use crate::builder::DEFAULT_RELOAD_TIMEOUT;
use crate::client::Client;
use crate::error::Error;
use crate::pb;
use crate::retry::Policy;

/// Description of one version of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// The name.
    pub name: String,
    /// The version.
    pub version: i32,
    /// `ready`, `loading` or `refused`.
    pub state: String,
    /// Why the version was refused; empty otherwise.
    pub reason: String,
    /// SHA-256 of the manifest.
    pub digest: String,
    /// Kind of the model, for example `autoencoder`, `denoising` or `vae`.
    pub kind: String,
    /// Description in one sentence.
    pub description: String,
    /// Images of the requests and replies.
    pub image: ImageSpec,
    /// Latents of the model.
    pub latent: LatentSpec,
    /// Supported operations: a subset of `encode`, `decode`, `reconstruct`, `denoise`, `sample`.
    pub operations: Vec<String>,
    /// `None` if the model was not trained with a likelihood.
    pub likelihood: Option<Likelihood>,
    /// Limits of one call.
    pub limits: Limits,
    /// ONNX Runtime execution provider; empty until the model is loaded.
    pub provider: String,
    /// Metrics measured at export.
    pub metrics: Vec<Metric>,
}

impl Model {
    /// Returns `NAME:VERSION`, which selects exactly this version in a request.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.name, self.version)
    }
}

/// Image shape of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageSpec {
    /// 1 (greyscale) or 3 (RGB).
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

/// Latent space of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatentSpec {
    /// Number of latents per image.
    pub dim: usize,
    /// `standard_normal`, `gaussian_mixture`, or `none` if the model cannot sample.
    pub prior: String,
    /// Whether encode returns a log variance and accepts a seed.
    pub has_log_variance: bool,
    /// Number of components of a `gaussian_mixture`; 0 for other priors.
    pub mixture_components: i32,
}

/// Likelihood p(x|z), whose mean is the decoded image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Likelihood {
    /// `gaussian` or `bernoulli`.
    pub family: String,
    /// Standard deviation per pixel of images in \[0, 1\]; 0 unless the family is gaussian.
    pub sigma: f64,
}

/// Limits of one call to a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of images or latent vectors in one request.
    pub max_request_rows: i32,
    /// Maximum number of images in one stream.
    pub max_stream_rows: i64,
    /// Maximum batch size in rows; larger requests run in several batches.
    pub max_batch_rows: i32,
}

/// Metric of a model, measured at export.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric {
    /// Name, for example `test_mse`.
    pub name: String,
    /// Value in `unit`.
    pub value: f64,
    /// Unit, for example `dB`.
    pub unit: String,
    /// Comparison value, if any.
    pub baseline: Option<f64>,
    /// Name of the baseline.
    pub baseline_name: String,
    /// Number of images in the evaluation.
    pub samples: i64,
    /// Method of computation.
    pub estimator: String,
}

/// All versions of all models, sorted by name, then by version in descending order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelList {
    /// One entry per version.
    pub models: Vec<Model>,
    /// The model of requests that name none; empty if the server has no default.
    pub default_model: String,
}

/// Result of a reload for one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadOutcome {
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: i32,
    /// `unchanged`, `loaded`, `refused` or `removed`.
    pub action: String,
    /// Why the version was refused; empty otherwise.
    pub reason: String,
}

impl Client {
    /// Lists every version of every model, including refused ones.
    pub async fn list_models(&self) -> Result<ModelList, Error> {
        let message = pb::ListModelsRequest {};
        let (reply, _) = self
            .call(Policy::Models, self.timeout, message, |message| {
                let mut stub = self.models.clone();
                async move {
                    stub.list_models(message)
                        .await
                        .map(tonic::Response::into_inner)
                }
            })
            .await?;
        Ok(ModelList {
            models: reply.models.into_iter().map(Model::from).collect(),
            default_model: reply.default_model,
        })
    }

    /// Describes one model: `NAME`, `NAME:VERSION`, or an empty string for the client's or the
    /// server's default.
    pub async fn get_model(&self, model: &str) -> Result<Model, Error> {
        let message = pb::GetModelRequest {
            model: Some(self.model_ref(model)?),
        };
        let (reply, _) = self
            .call(Policy::Models, self.timeout, message, |message| {
                let mut stub = self.models.clone();
                async move {
                    stub.get_model(message)
                        .await
                        .map(tonic::Response::into_inner)
                }
            })
            .await?;
        reply
            .model
            .map(Model::from)
            .ok_or_else(|| Error::bad_reply("the reply has no model"))
    }

    /// Makes the server rescan its model folder for these names or, without names, for all models.
    /// The timeout is that of the client, but at least 120 s.
    pub async fn reload_models<N: Into<String>>(
        &self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Vec<ReloadOutcome>, Error> {
        let names = names.into_iter().map(Into::into).collect();
        let timeout = self.timeout.max(DEFAULT_RELOAD_TIMEOUT);
        let (reply, _) = self
            .call(
                Policy::Models,
                timeout,
                pb::ReloadModelsRequest { names },
                |message| {
                    let mut stub = self.models.clone();
                    async move {
                        stub.reload_models(message)
                            .await
                            .map(tonic::Response::into_inner)
                    }
                },
            )
            .await?;
        let outcomes = reply.outcomes.into_iter().map(|outcome| ReloadOutcome {
            action: enum_name(
                outcome.action,
                "ACTION_",
                pb::reload_outcome::Action::as_str_name,
            ),
            name: outcome.name,
            version: outcome.version,
            reason: outcome.reason,
        });
        Ok(outcomes.collect())
    }
}

/// Returns `ready` for `STATE_READY`; for a value of a newer server, its number.
fn enum_name<E: TryFrom<i32>>(number: i32, prefix: &str, name: fn(&E) -> &'static str) -> String {
    E::try_from(number).map_or_else(
        |_| number.to_string(),
        |value| name(&value).trim_start_matches(prefix).to_lowercase(),
    )
}

fn size(length: i32) -> usize {
    length.try_into().unwrap_or(0)
}

impl From<pb::Model> for Model {
    fn from(message: pb::Model) -> Self {
        let image = message.image.unwrap_or_default();
        let latent = message.latent.unwrap_or_default();
        let limits = message.limits.unwrap_or_default();
        let operation = |&number: &i32| enum_name(number, "OPERATION_", pb::Operation::as_str_name);
        Self {
            state: enum_name(message.state, "STATE_", pb::model::State::as_str_name),
            operations: message.operations.iter().map(operation).collect(),
            name: message.name,
            version: message.version,
            reason: message.reason,
            digest: message.digest,
            kind: message.kind,
            description: message.description,
            image: ImageSpec {
                channels: size(image.channels),
                height: size(image.height),
                width: size(image.width),
            },
            latent: LatentSpec {
                dim: size(latent.dim),
                prior: latent.prior,
                has_log_variance: latent.has_log_variance,
                mixture_components: latent.mixture_components,
            },
            likelihood: message.likelihood.map(|likelihood| Likelihood {
                family: likelihood.family,
                sigma: likelihood.sigma,
            }),
            limits: Limits {
                max_request_rows: limits.max_request_rows,
                max_stream_rows: limits.max_stream_rows,
                max_batch_rows: limits.max_batch_rows,
            },
            provider: message.provider,
            metrics: message.metrics.into_iter().map(Metric::from).collect(),
        }
    }
}

impl From<pb::Metric> for Metric {
    fn from(message: pb::Metric) -> Self {
        Self {
            name: message.name,
            value: message.value,
            unit: message.unit,
            baseline: message.baseline,
            baseline_name: message.baseline_name,
            samples: message.samples,
            estimator: message.estimator,
        }
    }
}
