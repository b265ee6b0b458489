// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Benchmark of single-image Reconstruct through the client.
//!
//! Measures the median latency with one call in flight, then calls per second with 32 in flight.
//! Prints one line of JSON.
//!
//! ```sh
//! cargo run --release -p latentserve-tools --bin bench -- --address 127.0.0.1:50051 \
//!     --model mnist-vae --seconds 5
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use latentserve::{Client, Error, ImageSpec, Images};

const IN_FLIGHT: usize = 32;
const WARM_UP_CALLS: usize = 200;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let arguments = latentserve_tools::arguments(&["address", "model", "seconds"])?;
    let given = |name: &str, default: &str| {
        arguments
            .get(name)
            .map_or(default, String::as_str)
            .to_owned()
    };
    let span = Duration::try_from_secs_f64(given("seconds", "5").parse()?)?;
    if span.is_zero() {
        return Err("--seconds is 0; expected more than 0".into());
    }
    let client = Client::builder(given("address", "127.0.0.1:50051"))
        .model(given("model", "mnist-vae"))
        .build()?;
    let image = ramp(client.get_model("").await?.image);
    for _ in 0..WARM_UP_CALLS {
        client.reconstruct(image.clone()).await?;
    }
    let p50 = one_by_one(&client, &image, span).await?;
    let per_s = together(&client, &image, span).await?;
    Ok(serde_json::json!({
        "language": "rust", "p50_us": p50.as_nanos() as f64 / 1000.0, "calls_per_s": per_s,
    }))
}

/// Returns one image with linearly increasing intensities.
fn ramp(spec: ImageSpec) -> Images {
    let n = spec.channels * spec.height * spec.width;
    let values = (0..n).map(|i| i as f32 / n as f32).collect();
    Images::float32(values, [1, spec.channels, spec.height, spec.width])
}

/// Returns the median latency with one call in flight.
async fn one_by_one(client: &Client, image: &Images, span: Duration) -> Result<Duration, Error> {
    let end = Instant::now() + span;
    let mut times = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        client.reconstruct(image.clone()).await?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// Returns the calls per second with 32 in flight.
async fn together(
    client: &Client,
    image: &Images,
    span: Duration,
) -> Result<f64, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let end = start + span;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (client, image) = (client.clone(), image.clone());
        callers.spawn(async move {
            let mut calls = 0_u64;
            while Instant::now() < end {
                client.reconstruct(image.clone()).await?;
                calls += 1;
            }
            Ok::<_, Error>(calls)
        });
    }
    let mut calls = 0;
    while let Some(caller) = callers.join_next().await {
        calls += caller??;
    }
    Ok(calls as f64 / start.elapsed().as_secs_f64())
}
