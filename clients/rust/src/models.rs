// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use crate::builder::DEFAULT_RELOAD_TIMEOUT;
use crate::client::Client;
use crate::error::Error;
use crate::pb;
use crate::retry::Policy;

/// One version of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: i32,
    /// `ready`, `loading` or `refused`.
    pub state: String,
    /// Why it was refused; empty otherwise.
    pub reason: String,
    /// SHA-256 of its manifest.
    pub digest: String,
    /// For example `autoencoder`, `denoising`, `vae`.
    pub kind: String,
    /// One sentence.
    pub description: String,
    /// The images it takes and gives.
    pub image: ImageSpec,
    /// Its latents.
    pub latent: LatentSpec,
    /// Of `encode`, `decode`, `reconstruct`, `denoise`, `sample`.
    pub operations: Vec<String>,
    /// None where it was not trained as one.
    pub likelihood: Option<Likelihood>,
    /// How much one call may ask.
    pub limits: Limits,
    /// ONNX Runtime execution provider; empty until loaded.
    pub provider: String,
    /// What was measured when it was exported.
    pub metrics: Vec<Metric>,
}

impl Model {
    /// What names exactly this version in a request: `NAME:VERSION`.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.name, self.version)
    }
}

/// The images of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageSpec {
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
}

/// The latents of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatentSpec {
    /// Values per image.
    pub dim: usize,
    /// `standard_normal`, `gaussian_mixture`, or `none` where it cannot sample.
    pub prior: String,
    /// Whether encoding returns one and takes a seed.
    pub has_log_variance: bool,
    /// Of a `gaussian_mixture`; 0 with another prior.
    pub mixture_components: i32,
}

/// p(x|z), with the decoded image as its mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Likelihood {
    /// `gaussian` or `bernoulli`.
    pub family: String,
    /// Standard deviation per pixel of \[0, 1\] images; 0 unless gaussian.
    pub sigma: f64,
}

/// How much one call may ask of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Images or latents in one request.
    pub max_request_rows: i32,
    /// Images in one stream.
    pub max_stream_rows: i64,
    /// Rows of one batch of the engine; larger requests run in several.
    pub max_batch_rows: i32,
}

/// One figure that was measured when the model was exported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric {
    /// For example `test_mse`.
    pub name: String,
    /// In `unit`.
    pub value: f64,
    /// For example `dB`.
    pub unit: String,
    /// What the value is to be compared with; none where there is nothing.
    pub baseline: Option<f64>,
    /// What the baseline is.
    pub baseline_name: String,
    /// Images it was measured on.
    pub samples: i64,
    /// How it was computed.
    pub estimator: String,
}

/// All versions of all models, by name, then by version from high to low.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelList {
    /// One for each version.
    pub models: Vec<Model>,
    /// The name that a request without a model uses; empty where there is none.
    pub default_model: String,
}

/// What became of one version in a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadOutcome {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: i32,
    /// `unchanged`, `loaded`, `refused` or `removed`.
    pub action: String,
    /// Why it was refused; empty otherwise.
    pub reason: String,
}

impl Client {
    /// Lists every version of every model, the refused ones too.
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

    /// Describes one model: `NAME`, `NAME:VERSION`, or nothing for the client's or the server's
    /// default.
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
            .ok_or_else(|| Error::bad_reply("no model"))
    }

    /// Has the server look at its model folder again, for these names or, without any, for all.
    /// Has 120 s at least, whatever the client's timeout is.
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

/// Returns `ready` for `STATE_READY`, and the number of a value from a newer server.
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
