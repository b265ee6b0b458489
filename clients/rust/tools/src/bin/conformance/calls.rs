// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Executes the call of a case, through the client or through [`stub_calls`].

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use latentserve::{
    Client, DecodeRequest, DenoiseRequest, EncodeRequest, Error, Format, Images,
    ReconstructRequest, SampleRequest, Tensor, Values,
};
use tokio_stream::StreamExt;

use crate::cases::{Case, Folder, ImagesCase, Through};
use crate::outcome::{CallResult, Outcome, Part};
use crate::stub_calls;
use crate::values;

pub struct Caller {
    addresses: HashMap<String, String>,
    pub folder: Folder,
    clients: Mutex<HashMap<(String, bool), Client>>,
}

impl Caller {
    pub fn new(addresses: HashMap<String, String>, folder: Folder) -> Self {
        Self {
            addresses,
            folder,
            clients: Mutex::default(),
        }
    }

    pub async fn call(&self, case: &Case) -> Outcome {
        let call = async {
            let client = self.client(case)?;
            if case.through == Through::Client {
                self.through_client(&client, case).await
            } else {
                stub_calls::call(&self.folder, client.channel(), case).await
            }
        };
        let result = match case.cancel_after_ms {
            None => call.await,
            // In Rust, dropping the future cancels the call.
            Some(ms) => tokio::time::timeout(Duration::from_millis(ms), call)
                .await
                .unwrap_or_else(|_| Err(tonic::Status::cancelled("dropped").into())),
        };
        result.unwrap_or_else(|outcome| outcome)
    }

    /// Returns the client for a case; cases with the same server and retry setting share it.
    fn client(&self, case: &Case) -> Result<Client, Outcome> {
        let address = self.addresses.get(&case.server);
        let address =
            address.ok_or_else(|| format!("no address for the server {}", case.server))?;
        let mut clients = self.clients.lock().map_err(|error| error.to_string())?;
        let key = (case.server.clone(), case.retry);
        let mut client = match clients.get(&key) {
            Some(client) => client.clone(),
            None => {
                let attempts = if case.retry { 4 } else { 1 };
                let client = Client::builder(address).max_attempts(attempts).build()?;
                clients.insert(key, client.clone());
                client
            }
        };
        for (key, value) in &case.metadata {
            client = client.with_metadata(key, value)?;
        }
        Ok(client.with_timeout(Duration::from_millis(case.deadline_ms)))
    }

    async fn through_client(&self, client: &Client, case: &Case) -> CallResult {
        let request = &case.request;
        let model = match &request.model {
            Some(model) if model.version != 0 => format!("{}:{}", model.name, model.version),
            Some(model) => model.name.clone(),
            None => String::new(),
        };
        match case.method() {
            "ListModels" => Ok(Outcome::Value(values::list(&client.list_models().await?))),
            "GetModel" => Ok(Outcome::Value(values::one(
                &client.get_model(&model).await?,
            ))),
            "ReloadModels" => {
                let outcomes = client.reload_models(&request.names).await?;
                Ok(Outcome::Value(values::outcomes(&outcomes)))
            }
            "Check" => Ok(Outcome::Value(values::health(
                client.health(&request.service).await?,
            ))),
            "Watch" => {
                let mut statuses = client.watch_health(&request.service).await?;
                let first = statuses.next().await;
                let first = first.ok_or_else(|| "Watch ended without a status".to_owned())?;
                Ok(Outcome::Value(values::health(first?)))
            }
            "Sample" | "SampleStream" => samples(client, model, case).await,
            _ => self.images(client, model, case).await,
        }
    }

    async fn images(&self, client: &Client, model: String, case: &Case) -> CallResult {
        let format = format(&case.request.output_format)?;
        let images = match &case.request.images {
            Some(ImagesCase::Tensor(tensor)) => Images::Pixels(self.folder.tensor(tensor)?),
            Some(ImagesCase::Encoded(paths)) => {
                let files: Result<Vec<_>, _> = paths.iter().map(|p| self.folder.file(p)).collect();
                Images::encoded(files?)
            }
            None => Images::default(),
        };
        let part = match case.method() {
            "Encode" => {
                let seed = case.request.seed;
                let reply = client
                    .encode(EncodeRequest {
                        model,
                        images,
                        seed,
                    })
                    .await?;
                Part {
                    latents: Some(reply.latents),
                    log_variance: reply.log_variance,
                    seed: reply.seed,
                    served_by: reply.served_by,
                    timings: reply.timings,
                    ..Part::default()
                }
            }
            "Decode" => {
                let latents = case.request.latents.as_ref().map(|t| self.folder.tensor(t));
                let latents = latents.transpose()?.unwrap_or_default();
                client
                    .decode(DecodeRequest {
                        model,
                        latents,
                        format,
                    })
                    .await?
                    .into()
            }
            "Denoise" => client
                .denoise(DenoiseRequest {
                    model,
                    images,
                    format,
                })
                .await?
                .into(),
            "Reconstruct" => {
                let request = ReconstructRequest {
                    model,
                    images,
                    format,
                };
                let reply = client.reconstruct(request).await?;
                Part {
                    images: Some(reply.images),
                    squared_error: Some(Tensor {
                        shape: vec![reply.squared_error.len()],
                        values: Values::Float32(reply.squared_error),
                    }),
                    served_by: reply.served_by,
                    timings: reply.timings,
                    ..Part::default()
                }
            }
            _ => return Err(format!("the client has no method {}", case.rpc).into()),
        };
        Ok(Outcome::Parts(vec![part]))
    }
}

fn format(name: &str) -> Result<Format, String> {
    match name {
        "" | "FLOAT32" => Ok(Format::Float32),
        "FLOAT16" => Ok(Format::Float16),
        "UINT8" => Ok(Format::Uint8),
        "PNG" => Ok(Format::Png),
        other => Err(format!("the client has no format {other}")),
    }
}

async fn samples(client: &Client, model: String, case: &Case) -> CallResult {
    let given = &case.request;
    let mut request = SampleRequest {
        model,
        count: given.count,
        seed: given.seed,
        offset: given.offset,
        temperature: given.temperature,
        format: format(&given.output_format)?,
        include_latents: given.include_latents,
        chunk_rows: given.chunk_rows,
    };
    if case.method() == "Sample" {
        return Ok(Outcome::Parts(vec![client.sample(request).await?.into()]));
    }
    let Some(stream) = &case.stream else {
        return Ok(Outcome::Parts(chunks(client, request, usize::MAX).await?));
    };
    let mut parts = chunks(client, request.clone(), stream.cancel_after).await?;
    if parts.len() < stream.cancel_after {
        return Err(format!("the stream ended after {} chunks", parts.len()).into());
    }
    if stream.resume {
        let rows: usize = parts
            .iter()
            .flat_map(|part| &part.images)
            .map(Images::len)
            .sum();
        request.offset += rows as i64;
        request.count -= rows as i64;
        parts.extend(chunks(client, request, usize::MAX).await?);
    }
    Ok(Outcome::Parts(parts))
}

/// Reads at most `limit` chunks of a stream, then drops it.
async fn chunks(client: &Client, request: SampleRequest, limit: usize) -> Result<Vec<Part>, Error> {
    let stream = client.sample_stream(request).await?;
    let parts: Result<Vec<Part>, Error> = stream
        .take(limit)
        .map(|chunk| chunk.map(Part::from))
        .collect()
        .await;
    parts
}
