// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Test of the example against a fake server that returns grey images.

#[path = "../examples/digits.rs"]
mod digits;
mod fake;

#[tokio::test]
async fn the_example_prints_and_writes_its_images() {
    let (address, _) = fake::start(fake::Fake::default()).await;
    let folder = std::env::temp_dir().join(format!("latentserve-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let printed = digits::run(&address.to_string(), "mnist-vae", &folder)
        .await
        .unwrap();
    for wanted in [
        "8 digits",
        "seed 7",
        "squared error 0.500",
        "images.tensor.shape: too tall",
    ] {
        assert!(printed.contains(wanted), "{wanted} is not in {printed}");
    }
    for (name, width, level) in [
        ("samples.png", 8 * 32 - 4, 100),
        ("reconstructed.png", 28, 50),
    ] {
        let file = std::io::BufReader::new(std::fs::File::open(folder.join(name)).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut levels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut levels).unwrap();
        assert_eq!(
            (frame.width, frame.height, levels[0]),
            (width, 28, level),
            "{name}"
        );
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
