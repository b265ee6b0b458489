// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Calls that bypass the client: through the generated stubs, or with raw bytes as the request.
//!
//! They send requests that the client refuses, or check trailers.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use latentserve::pb;
use latentserve::pb::generative_service_client::GenerativeServiceClient;
use latentserve::pb::model_service_client::ModelServiceClient;
use latentserve::{Images, ServedBy, Tensor, Timings, Values, f16};
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::cases::{Case, Folder, ImagesCase, TensorCase, Through};
use crate::outcome::{CallResult, Outcome, Part};

pub async fn call(folder: &Folder, channel: Channel, case: &Case) -> CallResult {
    let timeout = Duration::from_millis(case.deadline_ms);
    let call = async {
        if case.through == Through::Bytes {
            as_bytes(folder, channel, case).await
        } else {
            by_stub(folder, channel, case).await
        }
    };
    let late = |_| Err(Status::deadline_exceeded("no reply before the deadline").into());
    tokio::time::timeout(timeout, call)
        .await
        .unwrap_or_else(late)
}

/// Adds the timeout and the metadata of a case to its request.
fn prepared<M>(case: &Case, message: M) -> Result<Request<M>, String> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_millis(case.deadline_ms));
    for (key, value) in &case.metadata {
        let key: tonic::metadata::AsciiMetadataKey = key
            .parse()
            .map_err(|_| format!("{key} is not a valid metadata key"))?;
        let value = value
            .parse()
            .map_err(|_| format!("the value of {key} is not valid metadata"))?;
        request.metadata_mut().insert(key, value);
    }
    Ok(request)
}

async fn by_stub(folder: &Folder, channel: Channel, case: &Case) -> CallResult {
    let given = &case.request;
    let model = given.model.as_ref().map(|model| pb::ModelRef {
        name: model.name.clone(),
        version: model.version,
    });
    let output_format = enumerated(&given.output_format, |name| {
        pb::ImageFormat::from_str_name(&format!("IMAGE_FORMAT_{name}")).map(i32::from)
    })?;
    let images = images(folder, case)?;
    let latents = given
        .latents
        .as_ref()
        .map(|tensor| message(folder, tensor))
        .transpose()?;
    let mut generative = GenerativeServiceClient::new(channel.clone());
    let mut models = ModelServiceClient::new(channel);
    match case.method() {
        "Encode" => {
            let request = pb::EncodeRequest {
                model,
                images,
                seed: given.seed,
            };
            generative.encode(prepared(case, request)?).await?;
        }
        "Decode" => {
            let request = pb::DecodeRequest {
                model,
                latents,
                output_format,
            };
            generative.decode(prepared(case, request)?).await?;
        }
        "Reconstruct" => {
            let request = pb::ReconstructRequest {
                model,
                images,
                output_format,
            };
            generative.reconstruct(prepared(case, request)?).await?;
        }
        "Denoise" => {
            let request = pb::DenoiseRequest {
                model,
                images,
                output_format,
            };
            generative.denoise(prepared(case, request)?).await?;
        }
        "Sample" => {
            let request = pb::SampleRequest {
                model,
                count: given.count as i32,
                seed: given.seed,
                offset: given.offset,
                temperature: given.temperature,
                output_format,
                include_latents: given.include_latents,
            };
            generative.sample(prepared(case, request)?).await?;
        }
        "SampleStream" => {
            let request = pb::SampleStreamRequest {
                model,
                count: given.count,
                seed: given.seed,
                offset: given.offset,
                temperature: given.temperature,
                output_format,
                include_latents: given.include_latents,
                chunk_rows: given.chunk_rows,
            };
            let mut messages = generative.sample_stream(prepared(case, request)?).await?;
            while messages.get_mut().message().await?.is_some() {}
        }
        "ListModels" => {
            models
                .list_models(prepared(case, pb::ListModelsRequest {})?)
                .await?;
        }
        "GetModel" => {
            models
                .get_model(prepared(case, pb::GetModelRequest { model })?)
                .await?;
        }
        "ReloadModels" => {
            let request = pb::ReloadModelsRequest {
                names: given.names.clone(),
            };
            models.reload_models(prepared(case, request)?).await?;
        }
        _ => return Err(format!("the stubs have no method {}", case.rpc).into()),
    }
    Err(format!(
        "{} succeeded, but this runner checks only its errors",
        case.rpc
    )
    .into())
}

fn images(folder: &Folder, case: &Case) -> Result<Option<pb::Images>, String> {
    let form = match &case.request.images {
        None => return Ok(None),
        Some(ImagesCase::Tensor(tensor)) => pb::images::Form::Tensor(message(folder, tensor)?),
        Some(ImagesCase::Encoded(paths)) => {
            let files: Result<_, _> = paths
                .iter()
                .map(|path| folder.file(path).map(Bytes::from))
                .collect();
            pb::images::Form::Encoded(pb::EncodedImages { files: files? })
        }
    };
    Ok(Some(pb::Images { form: Some(form) }))
}

/// Returns the tensor message of a case, valid or not.
fn message(folder: &Folder, tensor: &TensorCase) -> Result<pb::Tensor, String> {
    let data_type = enumerated(&tensor.dtype, |name| {
        pb::DataType::from_str_name(&format!("DATA_TYPE_{name}")).map(i32::from)
    })?;
    let data = folder.tensor_bytes(tensor)?.into();
    Ok(pb::Tensor {
        data_type,
        shape: tensor.shape.clone(),
        data,
    })
}

/// Returns the number of an enum value; unknown values are given as a number.
fn enumerated(name: &str, known: impl Fn(&str) -> Option<i32>) -> Result<i32, String> {
    if name.is_empty() {
        return Ok(0);
    }
    let number = known(name).or_else(|| name.parse().ok());
    number.ok_or_else(|| format!("{name} is not a value of the enum"))
}

async fn as_bytes(folder: &Folder, channel: Channel, case: &Case) -> CallResult {
    let body = case
        .body
        .as_ref()
        .ok_or_else(|| "the case has through = bytes, but no body".to_owned())?;
    let request = prepared(case, Bytes::from(folder.bytes(body)?))?;
    let path: http::uri::PathAndQuery = format!("/{}", case.rpc)
        .parse()
        .map_err(|_| format!("{} is not a valid path", case.rpc))?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| error.to_string())?;
    if case.method() == "SampleStream" {
        let codec = RequestAsBytes::<pb::SampleStreamResponse>::default();
        let mut messages = grpc.server_streaming(request, path, codec).await?;
        while messages.get_mut().message().await?.is_some() {}
        return Err(format!(
            "{} succeeded, but this runner checks only its errors",
            case.rpc
        )
        .into());
    }
    // No case expects any other reply type.
    let codec = RequestAsBytes::<pb::SampleResponse>::default();
    let reply = grpc.unary(request, path, codec).await?.into_inner();
    Ok(Outcome::Parts(vec![part(reply)?]))
}

fn part(reply: pb::SampleResponse) -> Result<Part, String> {
    let images = match reply.images.and_then(|images| images.form) {
        Some(pb::images::Form::Tensor(tensor)) => Images::Pixels(read(&tensor)?),
        Some(pb::images::Form::Encoded(encoded)) => Images::Files(encoded.files),
        None => return Err("the reply has no images".to_owned()),
    };
    let served_by = reply.served_by.unwrap_or_default();
    let timings = reply.timings.unwrap_or_default();
    Ok(Part {
        images: Some(images),
        latents: reply.latents.as_ref().map(read).transpose()?,
        seed: Some(reply.seed),
        served_by: ServedBy {
            name: served_by.name,
            version: served_by.version,
            digest: served_by.digest,
            provider: served_by.provider,
        },
        timings: Timings {
            queue: Duration::from_nanos(timings.queue_ns.try_into().map_err(|_| "queue_ns < 0")?),
            compute: Duration::from_nanos(timings.compute_ns.try_into().unwrap_or(0)),
            batch_rows: timings.batch_rows,
        },
        ..Part::default()
    })
}

fn read(tensor: &pb::Tensor) -> Result<Tensor, String> {
    let values = match tensor.data_type {
        1 => Values::Float32(floats(&tensor.data)),
        2 => Values::Float16(
            tensor
                .data
                .as_chunks()
                .0
                .iter()
                .map(|&b| f16::from_le_bytes(b))
                .collect(),
        ),
        3 => Values::Uint8(tensor.data.to_vec()),
        other => return Err(format!("a tensor of type {other}")),
    };
    let shape: Result<_, _> = tensor.shape.iter().map(|&n| usize::try_from(n)).collect();
    Ok(Tensor {
        shape: shape.map_err(|_| "a negative length")?,
        values,
    })
}

fn floats(data: &[u8]) -> Vec<f32> {
    data.as_chunks()
        .0
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect()
}

/// Codec that sends raw bytes and parses replies.
struct RequestAsBytes<Reply>(std::marker::PhantomData<Reply>);

impl<Reply> Default for RequestAsBytes<Reply> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<Reply: prost::Message + Default + Send + 'static> Codec for RequestAsBytes<Reply> {
    type Encode = Bytes;
    type Decode = Reply;
    type Encoder = RawEncoder;
    type Decoder = <ProstCodec<Reply, Reply> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        RawEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Reply, Reply>::default().decoder()
    }
}

struct RawEncoder;

impl Encoder for RawEncoder {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}
