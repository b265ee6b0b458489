// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Fake server on a TCP connection, whose replies a test configures.

#![allow(dead_code)] // each test uses only a part

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use latentserve::pb;
use latentserve::pb::generative_service_server::{GenerativeService, GenerativeServiceServer};
use latentserve::pb::model_service_server::{ModelService, ModelServiceServer};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Refuses the first attempts of a call, then returns its input.
#[derive(Default)]
pub struct Fake {
    pub refusal: Option<Refusal>,
    /// Never replies.
    pub held: bool,
    /// Number of chunks after which a stream fails; `None`: it ends normally.
    pub breaks_after: Option<i64>,
    /// Number of chunks after which a stream stalls; `None`: it ends normally.
    pub pauses_after: Option<i64>,
    pub attempts: AtomicU32,
    /// Metadata of the last call.
    pub metadata: Mutex<MetadataMap>,
    pub sampled: Mutex<Option<pb::SampleRequest>>,
    /// Number of streams that the client cancelled.
    pub dropped: Arc<AtomicU32>,
}

pub struct Refusal {
    pub status: Status,
    pub times: u32,
}

impl Refusal {
    pub fn new(code: Code, times: u32, pushback: &str) -> Self {
        let mut trailers = MetadataMap::new();
        trailers.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
        let status = Status::with_metadata(code, "refused", trailers);
        Self { status, times }
    }
}

impl Fake {
    async fn receive<M>(&self, request: Request<M>) -> Result<M, Status> {
        let (metadata, _, message) = request.into_parts();
        *self.metadata.lock().unwrap() = metadata;
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
        match &self.refusal {
            Some(refusal) if attempt < refusal.times => return Err(refusal.status.clone()),
            _ => {}
        }
        if self.held {
            std::future::pending::<()>().await;
        }
        Ok(message)
    }

    /// Returns a metadata value of the last call.
    pub fn saw(&self, key: &str) -> Option<String> {
        let metadata = self.metadata.lock().unwrap();
        metadata
            .get(key)
            .map(|value| value.to_str().unwrap().to_owned())
    }
}

/// Starts a server on a free port; it stops with the runtime.
pub async fn start(fake: Fake) -> (SocketAddr, Arc<Fake>) {
    start_with(fake, None).await
}

pub async fn start_with(fake: Fake, tls: Option<ServerTlsConfig>) -> (SocketAddr, Arc<Fake>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = Arc::new(fake);
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let limit = 64 << 20;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let router = server
        .add_service(health)
        .add_service(
            GenerativeServiceServer::from_arc(fake.clone()).max_decoding_message_size(limit),
        )
        .add_service(ModelServiceServer::from_arc(fake.clone()));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, fake)
}

pub fn pixel(level: u8) -> Option<pb::Images> {
    let tensor = pb::Tensor {
        data_type: pb::DataType::Uint8.into(),
        shape: vec![1, 1, 1, 1],
        data: vec![level].into(),
    };
    Some(pb::Images {
        form: Some(pb::images::Form::Tensor(tensor)),
    })
}

/// Returns images as files.
pub fn files(files: impl IntoIterator<Item = Vec<u8>>) -> Option<pb::Images> {
    let files = files.into_iter().map(Into::into).collect();
    let form = pb::images::Form::Encoded(pb::EncodedImages { files });
    Some(pb::Images { form: Some(form) })
}

/// Returns a grey PNG file of 28 x 28 pixels.
pub fn grey_file() -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 28, 28);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[100; 28 * 28]).unwrap();
    writer.finish().unwrap();
    file
}

/// Refuses images whose height is not 1, 28 or 1024.
fn check_height(images: &Option<pb::Images>) -> Result<(), Status> {
    let form = images.as_ref().and_then(|images| images.form.as_ref());
    match form {
        Some(pb::images::Form::Tensor(tensor)) if ![1, 28, 1024].contains(&tensor.shape[2]) => {
            let field = "images.tensor.shape";
            let details = ErrorDetails::with_bad_request_violation(field, "too tall");
            Err(Status::with_error_details(
                Code::InvalidArgument,
                "wrong",
                details,
            ))
        }
        _ => Ok(()),
    }
}

fn served_by() -> Option<pb::ServedBy> {
    Some(pb::ServedBy {
        name: "mnist-vae".to_owned(),
        version: 2,
        digest: "d".to_owned(),
        provider: "p".to_owned(),
    })
}

#[tonic::async_trait]
impl GenerativeService for Fake {
    async fn encode(
        &self,
        request: Request<pb::EncodeRequest>,
    ) -> Result<Response<pb::EncodeResponse>, Status> {
        let request = self.receive(request).await?;
        check_height(&request.images)?;
        let latents = pb::Tensor {
            data_type: pb::DataType::Float32.into(),
            shape: vec![1, 1],
            data: 1_f32.to_le_bytes().to_vec().into(),
        };
        Ok(Response::new(pb::EncodeResponse {
            log_variance: request.seed.map(|_| latents.clone()),
            latents: Some(latents),
            seed: request.seed,
            served_by: served_by(),
            timings: Some(pb::Timings {
                queue_ns: 1,
                compute_ns: 2,
                batch_rows: 3,
            }),
        }))
    }

    async fn decode(
        &self,
        request: Request<pb::DecodeRequest>,
    ) -> Result<Response<pb::DecodeResponse>, Status> {
        let request = self.receive(request).await?;
        let file = vec![request.output_format as u8];
        let images = files([file]);
        Ok(Response::new(pb::DecodeResponse {
            images,
            ..Default::default()
        }))
    }

    async fn reconstruct(
        &self,
        request: Request<pb::ReconstructRequest>,
    ) -> Result<Response<pb::ReconstructResponse>, Status> {
        let mut images = self.receive(request).await?.images;
        if let Some(pb::images::Form::Encoded(_)) = images.as_ref().and_then(|i| i.form.as_ref()) {
            let tensor = pb::Tensor {
                data_type: pb::DataType::Uint8.into(),
                shape: vec![1, 1, 28, 28],
                data: vec![50; 28 * 28].into(),
            };
            images = Some(pb::Images {
                form: Some(pb::images::Form::Tensor(tensor)),
            });
        }
        let squared_error = vec![0.5];
        Ok(Response::new(pb::ReconstructResponse {
            images,
            squared_error,
            ..Default::default()
        }))
    }

    async fn denoise(
        &self,
        request: Request<pb::DenoiseRequest>,
    ) -> Result<Response<pb::DenoiseResponse>, Status> {
        let images = self.receive(request).await?.images;
        Ok(Response::new(pb::DenoiseResponse {
            images,
            ..Default::default()
        }))
    }

    async fn sample(
        &self,
        request: Request<pb::SampleRequest>,
    ) -> Result<Response<pb::SampleResponse>, Status> {
        let request = self.receive(request).await?;
        let seed = request.seed.unwrap_or(9);
        let images = if request.output_format == i32::from(pb::ImageFormat::Png) {
            files((0..request.count).map(|_| grey_file()))
        } else if request.count > 1000 {
            files([vec![0; request.count as usize]])
        } else {
            pixel(1)
        };
        *self.sampled.lock().unwrap() = Some(request);
        Ok(Response::new(pb::SampleResponse {
            images,
            seed,
            ..Default::default()
        }))
    }

    type SampleStreamStream = Chunks;

    async fn sample_stream(
        &self,
        request: Request<pb::SampleStreamRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let request = self.receive(request).await?;
        Ok(Response::new(Chunks {
            next: request.offset,
            end: request.offset + request.count,
            pauses_at: self.pauses_after.map(|n| request.offset + n),
            breaks_at: self.breaks_after.map(|n| request.offset + n),
            dropped: self.dropped.clone(),
        }))
    }
}

/// Stream of chunks with one image each, whose level is its row.
pub struct Chunks {
    next: i64,
    end: i64,
    breaks_at: Option<i64>,
    pauses_at: Option<i64>,
    dropped: Arc<AtomicU32>,
}

impl Stream for Chunks {
    type Item = Result<pb::SampleStreamResponse, Status>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let offset = self.next;
        if self.breaks_at == Some(offset) {
            return std::task::Poll::Ready(Some(Err(Status::unavailable("broken"))));
        }
        if self.pauses_at == Some(offset) {
            return std::task::Poll::Pending;
        }
        if offset == self.end {
            return std::task::Poll::Ready(None);
        }
        self.next += 1;
        let images = pixel(offset as u8);
        let chunk = pb::SampleStreamResponse {
            images,
            offset,
            seed: 7,
            ..Default::default()
        };
        std::task::Poll::Ready(Some(Ok(chunk)))
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl ModelService for Fake {
    async fn list_models(
        &self,
        request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        self.receive(request).await?;
        let model = pb::Model {
            name: "mnist-vae".to_owned(),
            version: 2,
            state: pb::model::State::Ready.into(),
            operations: vec![pb::Operation::Encode.into(), 77],
            metrics: vec![pb::Metric {
                baseline: Some(0.0),
                ..Default::default()
            }],
            ..Default::default()
        };
        let default_model = "mnist-vae".to_owned();
        Ok(Response::new(pb::ListModelsResponse {
            models: vec![model],
            default_model,
        }))
    }

    async fn get_model(
        &self,
        request: Request<pb::GetModelRequest>,
    ) -> Result<Response<pb::GetModelResponse>, Status> {
        let reference = self.receive(request).await?.model.unwrap_or_default();
        let (name, version) = (reference.name, reference.version);
        let model = Some(pb::Model {
            name,
            version,
            ..Default::default()
        });
        Ok(Response::new(pb::GetModelResponse { model }))
    }

    async fn reload_models(
        &self,
        request: Request<pb::ReloadModelsRequest>,
    ) -> Result<Response<pb::ReloadModelsResponse>, Status> {
        let names = self.receive(request).await?.names;
        let action = pb::reload_outcome::Action::Loaded.into();
        let outcomes = names.into_iter().map(|name| pb::ReloadOutcome {
            name,
            version: 1,
            action,
            reason: String::new(),
        });
        Ok(Response::new(pb::ReloadModelsResponse {
            outcomes: outcomes.collect(),
        }))
    }
}

/// Timeout of operations that are expected to finish.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(20);
