// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! The example shows the server's refusal; everything before it needs a real model.

#[path = "../examples/digits.rs"]
mod digits;
mod fake;

#[tokio::test]
async fn the_example_says_which_call_failed() {
    let (address, _) = fake::start(fake::Fake::default()).await;
    let folder = std::env::temp_dir().join(format!("latentserve-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    // The fake server answers with pixels, where the example asked for files.
    let error = digits::run(&address.to_string(), "mnist-vae", &folder)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no picture");
    std::fs::remove_dir_all(&folder).unwrap();
}
