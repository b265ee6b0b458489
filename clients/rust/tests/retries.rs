// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Tests of retries against a fake server that counts attempts.

mod fake;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fake::{Fake, Refusal, TEST_TIMEOUT};
use latentserve::{Client, Code, Error, Images, SampleRequest};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic_types::{ErrorDetails, StatusExt};

#[derive(Clone, Copy, Debug)]
enum Call {
    Reconstruct,
    Stream,
    Models,
}

async fn make(client: &Client, call: Call) -> Result<(), Error> {
    match call {
        Call::Reconstruct => {
            let images = Images::uint8(vec![7], [1, 1, 1, 1]);
            client.reconstruct(images).await.map(drop)
        }
        Call::Models => client.list_models().await.map(drop),
        Call::Stream => {
            let request = SampleRequest {
                count: 1,
                ..Default::default()
            };
            let stream = client.sample_stream(request).await?;
            stream.map(|chunk| chunk.map(drop)).collect().await
        }
    }
}

#[tokio::test]
async fn the_number_of_attempts_follows_the_policy() {
    use Call::{Models, Reconstruct, Stream};
    for (call, code, times, pushback, max_attempts, attempts, fails) in [
        (Reconstruct, Code::Unavailable, 3, "1", 4, 4, false),
        (Reconstruct, Code::Unavailable, 9, "1", 4, 4, true),
        (Reconstruct, Code::Cancelled, 1, "1", 4, 2, false),
        (Stream, Code::Unavailable, 1, "1", 4, 2, false),
        (Models, Code::Unavailable, 1, "1", 4, 2, false),
        (Reconstruct, Code::ResourceExhausted, 1, "1", 4, 1, true), // not a full queue
        (Reconstruct, Code::InvalidArgument, 1, "1", 4, 1, true),
        (Reconstruct, Code::Internal, 1, "1", 4, 1, true),
        (Reconstruct, Code::Unavailable, 1, "-1", 4, 1, true),
        (Reconstruct, Code::Unavailable, 1, "60000", 4, 1, true), // beyond the deadline
        (Reconstruct, Code::Unavailable, 1, "1", 1, 1, true),
    ] {
        let refusal = Some(Refusal::new(code, times, pushback));
        let (address, fake) = fake::start(Fake {
            refusal,
            ..Fake::default()
        })
        .await;
        let builder = Client::builder(address.to_string()).timeout(TEST_TIMEOUT);
        let client = builder.max_attempts(max_attempts).build().unwrap();
        let result = make(&client, call).await;
        let what = format!("{call:?} {code:?} {times} {pushback} {max_attempts}: {result:?}");
        assert_eq!(fake.attempts.load(Ordering::SeqCst), attempts, "{what}");
        assert_eq!(
            result.err().map(|error| error.code()),
            fails.then_some(code),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_full_queue_is_retried_but_not_for_models() {
    for (call, attempts) in [(Call::Reconstruct, 2), (Call::Models, 1)] {
        let details = ErrorDetails::with_error_info("QUEUE_FULL", "latentserve", HashMap::new());
        let status = tonic::Status::with_error_details(Code::ResourceExhausted, "full", details);
        let refusal = Some(Refusal { status, times: 1 });
        let (address, fake) = fake::start(Fake {
            refusal,
            ..Fake::default()
        })
        .await;
        let client = Client::builder(address.to_string())
            .timeout(TEST_TIMEOUT)
            .build()
            .unwrap();
        assert_eq!(make(&client, call).await.is_ok(), attempts > 1);
        assert_eq!(fake.attempts.load(Ordering::SeqCst), attempts);
    }
}

#[tokio::test]
async fn requests_carry_the_number_of_previous_attempts() {
    let refusal = Some(Refusal::new(Code::Unavailable, 2, "1"));
    let (address, fake) = fake::start(Fake {
        refusal,
        ..Fake::default()
    })
    .await;
    let client = Client::builder(address.to_string())
        .timeout(TEST_TIMEOUT)
        .build()
        .unwrap();
    make(&client, Call::Reconstruct).await.unwrap();
    assert_eq!(fake.saw("grpc-previous-rpc-attempts").as_deref(), Some("2"));
    make(&client, Call::Reconstruct).await.unwrap();
    assert_eq!(fake.saw("grpc-previous-rpc-attempts"), None);
}

#[tokio::test]
async fn a_closed_port_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = Client::builder(&address).max_attempts(1).build().unwrap();
    let error = make(&client, Call::Reconstruct).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_broken_connection_is_unavailable_and_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (accepted, mut connections) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        // Accepts connections and closes them.
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
            accepted.send(()).unwrap();
        }
    });
    let client = Client::builder(&address)
        .timeout(TEST_TIMEOUT)
        .max_attempts(2)
        .build()
        .unwrap();
    let error = make(&client, Call::Reconstruct).await.unwrap_err();
    assert!(
        [Code::Unavailable, Code::Cancelled].contains(&error.code()),
        "{error:?}"
    );
    connections.recv().await.unwrap();
    connections.recv().await.unwrap();
}

#[tokio::test]
async fn wait_for_ready_waits_for_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let builder = Client::builder(address.to_string()).timeout(TEST_TIMEOUT);
    let client = builder.max_attempts(1).wait_for_ready().build().unwrap();
    let mut call = tokio::spawn(async move { make(&client, Call::Reconstruct).await });
    // Without wait_for_ready the call would fail at once.
    let moment = Duration::from_millis(300);
    assert!(
        tokio::time::timeout(moment, &mut call).await.is_err(),
        "the call did not wait"
    );
    let Ok(listener) = TcpListener::bind(address).await else {
        return; // another process took the port
    };
    // The server lacks the method: UNIMPLEMENTED shows that the call reached it.
    let server = tonic::transport::Server::builder()
        .add_service(tonic_health::server::health_reporter().1)
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    tokio::spawn(server);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error}");
}
