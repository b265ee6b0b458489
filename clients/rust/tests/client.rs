// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Tests of calls, streams and deadlines against a fake server on a TCP connection.

mod fake;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fake::{Fake, TEST_TIMEOUT};
use latentserve::{
    Client, Code, DecodeRequest, EncodeRequest, Error, ErrorKind, Format, HealthStatus, Images,
    SampleChunk, SampleRequest, Tensor,
};
use tokio_stream::StreamExt;

async fn connected(fake: Fake) -> (Client, Arc<Fake>) {
    let (address, fake) = fake::start(fake).await;
    let client = Client::builder(address.to_string())
        .timeout(TEST_TIMEOUT)
        .build()
        .unwrap();
    (client, fake)
}

fn one_pixel() -> Images {
    Images::uint8(vec![7], [1, 1, 1, 1])
}

#[tokio::test]
async fn encode_returns_all_fields_of_the_reply() {
    let (client, _) = connected(Fake::default()).await;
    let request = EncodeRequest {
        images: one_pixel(),
        seed: Some(u64::MAX),
        ..Default::default()
    };
    let result = client.encode(request).await.unwrap();
    assert_eq!(result.latents.row(0), [1.0]);
    assert!(result.log_variance.is_some());
    assert_eq!(result.seed, Some(u64::MAX));
    assert_eq!(
        (result.served_by.name.as_str(), result.served_by.version),
        ("mnist-vae", 2)
    );
    let timings = result.timings;
    assert_eq!(
        (
            timings.queue.as_nanos(),
            timings.compute.as_nanos(),
            timings.batch_rows
        ),
        (1, 2, 3)
    );
    let mean = client.encode(one_pixel()).await.unwrap();
    assert_eq!((mean.log_variance, mean.seed), (None, None));
}

#[tokio::test]
async fn images_are_returned_in_the_requested_format() {
    let (client, _) = connected(Fake::default()).await;
    let latents = Tensor::latents(vec![1.0, 2.0], 1);
    let request = DecodeRequest {
        latents,
        format: Format::Png,
        ..Default::default()
    };
    let decoded = client.decode(request).await.unwrap();
    assert_eq!(decoded.images.files()[0].as_ref(), [4]); // the number of PNG
    let reconstructed = client.reconstruct(one_pixel()).await.unwrap();
    assert_eq!(
        (reconstructed.images, reconstructed.squared_error),
        (one_pixel(), vec![0.5])
    );
    assert_eq!(
        client.denoise(one_pixel()).await.unwrap().images,
        one_pixel()
    );
}

#[tokio::test]
async fn absent_fields_are_not_sent_but_zero_is() {
    let (client, fake) = connected(Fake::default()).await;
    let result = client
        .sample(SampleRequest {
            count: 1,
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!((result.seed, result.latents), (9, None));
    let sent = fake.sampled.lock().unwrap().take().unwrap();
    assert_eq!((sent.seed, sent.temperature), (None, None));
    let request = SampleRequest {
        model: "mnist-vae:3".to_owned(),
        count: 1,
        seed: Some(0),
        temperature: Some(0.0),
        ..Default::default()
    };
    client.sample(request).await.unwrap();
    let sent = fake.sampled.lock().unwrap().take().unwrap();
    assert_eq!((sent.seed, sent.temperature), (Some(0), Some(0.0)));
    assert_eq!(sent.model.unwrap().version, 3);
}

#[tokio::test]
async fn invalid_requests_are_not_sent() {
    let (client, fake) = connected(Fake::default()).await;
    let good = SampleRequest {
        count: 1,
        ..Default::default()
    };
    for (field, request) in [
        (
            "count",
            SampleRequest {
                count: 0,
                ..good.clone()
            },
        ),
        (
            "count",
            SampleRequest {
                count: 1 << 40,
                ..good.clone()
            },
        ),
        (
            "offset",
            SampleRequest {
                offset: -1,
                ..good.clone()
            },
        ),
        (
            "offset",
            SampleRequest {
                offset: (1 << 62) + 1,
                ..good.clone()
            },
        ),
        (
            "temperature",
            SampleRequest {
                temperature: Some(f32::NAN),
                ..good.clone()
            },
        ),
        (
            "temperature",
            SampleRequest {
                temperature: Some(10.5),
                ..good.clone()
            },
        ),
        (
            "chunk_rows",
            SampleRequest {
                chunk_rows: -1,
                ..good.clone()
            },
        ),
        (
            "model",
            SampleRequest {
                model: "mnist-vae:0".to_owned(),
                ..good.clone()
            },
        ),
    ] {
        let error = client.sample(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.violations()[0].field, field);
    }
    assert_eq!(fake.attempts.load(Ordering::SeqCst), 0);
}

async fn offsets(client: &Client, offset: i64, count: i64) -> (Vec<SampleChunk>, Option<Error>) {
    let request = SampleRequest {
        count,
        offset,
        seed: Some(7),
        ..Default::default()
    };
    let mut stream = client.sample_stream(request).await.unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => chunks.push(chunk),
            Err(error) => {
                assert!(stream.next().await.is_none(), "an error is the last item");
                return (chunks, Some(error));
            }
        }
    }
    (chunks, None)
}

#[tokio::test]
async fn a_failed_stream_resumes_at_its_offset() {
    let (client, fake) = connected(Fake {
        breaks_after: Some(3),
        ..Fake::default()
    })
    .await;
    let (first, error) = offsets(&client, 5, 5).await;
    assert_eq!(error.unwrap().code(), Code::Unavailable);
    assert_eq!(first.len(), 3);
    assert_eq!(
        fake.attempts.load(Ordering::SeqCst),
        1,
        "retried after a chunk"
    );
    let next = first.last().unwrap().next_offset();
    let (rest, error) = offsets(&client, next, 2).await;
    assert!(error.is_none());
    let rows: Vec<i64> = first
        .iter()
        .chain(&rest)
        .map(|chunk| chunk.offset)
        .collect();
    assert_eq!(rows, [5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn dropping_a_stream_cancels_it() {
    let (client, fake) = connected(Fake::default()).await;
    let request = SampleRequest {
        count: 1 << 40,
        ..Default::default()
    };
    let mut stream = client.sample_stream(request).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!(fake.dropped.load(Ordering::SeqCst), 0);
    drop(stream);
    let left = async {
        while fake.dropped.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, left)
        .await
        .expect("the server was still sending");
}

#[tokio::test]
async fn deadlines_end_calls_and_streams() {
    let (client, _) = connected(Fake {
        held: true,
        ..Fake::default()
    })
    .await;
    let short_timeout = client.with_timeout(Duration::from_millis(50));
    let request = SampleRequest {
        count: 1,
        ..Default::default()
    };
    let unary = short_timeout.sample(request.clone()).await.unwrap_err();
    let stream = short_timeout.sample_stream(request).await.unwrap_err();
    for error in [unary, stream] {
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    }
}

#[tokio::test]
async fn the_timeout_covers_the_whole_stream() {
    let (client, _) = connected(Fake {
        pauses_after: Some(2),
        ..Fake::default()
    })
    .await;
    let request = SampleRequest {
        count: 3,
        ..Default::default()
    };
    let short_timeout = client.with_timeout(Duration::from_millis(500));
    let stream = short_timeout.sample_stream(request).await.unwrap();
    let items = tokio::time::timeout(TEST_TIMEOUT, stream.collect::<Vec<_>>()).await;
    let items = items.expect("the stream did not end");
    assert_eq!(items.len(), 3);
    let error = items[2].as_ref().unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
}

#[tokio::test]
async fn models_are_listed_described_and_reloaded() {
    let (client, fake) = connected(Fake::default()).await;
    let list = client.list_models().await.unwrap();
    let model = &list.models[0];
    assert_eq!(
        (list.default_model.as_str(), model.reference().as_str()),
        ("mnist-vae", "mnist-vae:2")
    );
    assert_eq!(
        (model.state.as_str(), &model.operations[..]),
        ("ready", &["encode".to_owned(), "77".to_owned()][..])
    );
    assert_eq!(model.metrics[0].baseline, Some(0.0));
    assert_eq!(
        client.get_model("mnist-gan:4").await.unwrap().reference(),
        "mnist-gan:4"
    );
    let outcomes = client.reload_models(["mnist-gan"]).await.unwrap();
    assert_eq!(
        (outcomes[0].name.as_str(), outcomes[0].action.as_str()),
        ("mnist-gan", "loaded")
    );
    let timeout = fake.saw("grpc-timeout").unwrap();
    let (number, unit) = timeout.split_at(timeout.len() - 1);
    let unit_ns: u64 = match unit {
        "n" => 1,
        "u" => 1000,
        "m" => 1_000_000,
        _ => 1_000_000_000,
    };
    let seconds = number.parse::<u64>().unwrap() * unit_ns / 1_000_000_000;
    assert!((60..=120).contains(&seconds), "{timeout}");
}

#[tokio::test]
async fn health_of_known_and_unknown_names() {
    let (client, _) = connected(Fake::default()).await;
    assert_eq!(client.health("").await.unwrap(), HealthStatus::Serving);
    let error = client.health("x").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let mut statuses = client.watch_health("").await.unwrap();
    assert_eq!(
        statuses.next().await.unwrap().unwrap(),
        HealthStatus::Serving
    );
}

#[tokio::test]
async fn messages_are_limited_in_size() {
    let (address, _) = fake::start(Fake::default()).await;
    let large = Images::uint8(vec![1; 5 << 20], [5, 1, 1024, 1024]);
    let client = Client::builder(address.to_string())
        .timeout(TEST_TIMEOUT)
        .build()
        .unwrap();
    assert_eq!(
        client
            .reconstruct(large.clone())
            .await
            .unwrap()
            .images
            .len(),
        5
    );
    let builder = Client::builder(address.to_string());
    let small = builder
        .timeout(TEST_TIMEOUT)
        .max_message_bytes(1 << 20)
        .build()
        .unwrap();
    let sent = small.reconstruct(large).await.unwrap_err();
    assert!(sent.status().is_none(), "the request was sent: {sent}");
    // A small request with a reply of 5 MiB.
    let request = SampleRequest {
        count: 5 << 20,
        ..Default::default()
    };
    let received = small.sample(request).await.unwrap_err();
    for error in [sent, received] {
        assert_eq!(error.kind(), ErrorKind::MessageTooLarge, "{error}");
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    }
}

#[tokio::test]
async fn metadata_is_sent_with_calls() {
    let (client, fake) = connected(Fake::default()).await;
    let client = client.with_metadata("x-caller", "me").unwrap();
    client.denoise(one_pixel()).await.unwrap();
    assert_eq!(fake.saw("x-caller").as_deref(), Some("me"));
    assert!(client.with_metadata("not a key", "me").is_err());
    assert!(client.with_metadata("x-caller", "line\nbreak").is_err());
}
