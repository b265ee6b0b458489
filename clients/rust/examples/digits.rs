// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Example: samples eight digits into a PNG file, reconstructs one, and prints the error of an
//! invalid request.
//!
//! ```sh
//! cargo run --example digits -- 127.0.0.1:50051 mnist-vae .
//! ```

use std::error::Error;
use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use latentserve::{Client, Format, Images, SampleRequest};

const GAP: usize = 4; // pixels between two images

#[tokio::main]
#[allow(dead_code)] // the test calls run()
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let word = |k: usize, default: &str| words.get(k).map_or(default, String::as_str).to_owned();
    let (address, model, folder) = (
        word(1, "127.0.0.1:50051"),
        word(2, "mnist-vae"),
        word(3, "."),
    );
    print!("{}", run(&address, &model, Path::new(&folder)).await?);
    Ok(())
}

/// Runs the example; returns the text to print.
pub async fn run(address: &str, model: &str, folder: &Path) -> Result<String, Box<dyn Error>> {
    let client = Client::builder(address).model(model).build()?;
    let request = SampleRequest {
        count: 8,
        seed: Some(7),
        format: Format::Png,
        ..Default::default()
    };
    let sampled = client.sample(request).await?;
    let path = folder.join("samples.png");
    let images: Result<Vec<_>, _> = sampled.images.files().iter().map(|f| decode(f)).collect();
    write_row(&path, &images?)?;
    let mut lines = format!(
        "{}: {} digits of {}:{}, seed {}\n",
        path.display(),
        sampled.images.len(),
        sampled.served_by.name,
        sampled.served_by.version,
        sampled.seed
    );

    // Any PNG or JPEG file of the model's size works; this one was sampled above.
    let file = sampled.images.files()[0].clone();
    let reconstruction = client.reconstruct(Images::encoded([file])).await?;
    let pixels = reconstruction
        .images
        .pixels()
        .ok_or("the reply has no pixels")?;
    let path = folder.join("reconstructed.png");
    write_row(
        &path,
        &[GreyImage {
            width: pixels.shape[3],
            levels: pixels.to_levels(),
        }],
    )?;
    lines += &format!(
        "{}: squared error {:.3} over {:?}\n",
        path.display(),
        reconstruction.squared_error[0],
        pixels.shape
    );

    let too_tall = Images::float32(vec![0.0; 32 * 28], [1, 1, 32, 28]);
    match client.encode(too_tall).await {
        Ok(_) => Err("the server accepted an image that is too tall".into()),
        Err(failure) => {
            lines += &format!("expected error: {failure}\n");
            for violation in failure.violations() {
                lines += &format!("  {}: {}\n", violation.field, violation.description);
            }
            Ok(lines)
        }
    }
}

/// Greyscale image in row-major order.
struct GreyImage {
    width: usize,
    levels: Vec<u8>,
}

fn decode(file: &[u8]) -> Result<GreyImage, Box<dyn Error>> {
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info()?;
    let size = reader
        .output_buffer_size()
        .ok_or("the PNG file is too large")?;
    let mut levels = vec![0; size];
    let frame = reader.next_frame(&mut levels)?;
    Ok(GreyImage {
        width: frame.width as usize,
        levels,
    })
}

/// Writes images of equal size side by side to a PNG file.
fn write_row(path: &Path, images: &[GreyImage]) -> Result<(), Box<dyn Error>> {
    let first = images.first().ok_or("no images")?;
    let height = first.levels.len() / first.width;
    let width = images.len() * (first.width + GAP) - GAP;
    let mut row = vec![0; width * height];
    for (k, image) in images.iter().enumerate() {
        let left = k * (first.width + GAP);
        for (y, line) in image.levels.chunks(image.width).enumerate() {
            row[y * width + left..][..line.len()].copy_from_slice(line);
        }
    }
    let mut encoder = png::Encoder::new(File::create(path)?, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&row)?;
    Ok(())
}
