// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Samples eight digits, writes them to a PNG file, reconstructs the picture of one, and shows
//! what a bad call is answered with.
//!
//! ```sh
//! cargo run --example digits -- 127.0.0.1:50051 mnist-vae .
//! ```

use std::error::Error;
use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use latentserve::{Client, Format, Images, SampleRequest};

const GAP: usize = 4; // pixels between two pictures

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

/// Returns what is to be printed.
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
    let pictures: Result<Vec<_>, _> = sampled.images.files().iter().map(|f| decode(f)).collect();
    write_row(&path, &pictures?)?;
    let mut lines = format!(
        "{}: {} digits of {}:{}, seed {}\n",
        path.display(),
        sampled.images.len(),
        sampled.served_by.name,
        sampled.served_by.version,
        sampled.seed
    );

    // Any PNG or JPEG file of the model's size will do; this one has just been drawn.
    let file = sampled.images.files()[0].clone();
    let again = client.reconstruct(Images::encoded([file])).await?;
    let pixels = again.images.pixels().ok_or("no pixels")?;
    let path = folder.join("reconstructed.png");
    write_row(
        &path,
        &[Picture {
            width: pixels.shape[3],
            levels: pixels.to_levels(),
        }],
    )?;
    lines += &format!(
        "{}: squared error {:.3} over {:?}\n",
        path.display(),
        again.squared_error[0],
        pixels.shape
    );

    let too_tall = Images::float32(vec![0.0; 32 * 28], [1, 1, 32, 28]);
    match client.encode(too_tall).await {
        Ok(_) => Err("an image that is too tall was taken".into()),
        Err(failure) => {
            lines += &format!("as expected: {failure}\n");
            for violation in failure.violations() {
                lines += &format!("  {}: {}\n", violation.field, violation.description);
            }
            Ok(lines)
        }
    }
}

/// A grey picture, row by row.
struct Picture {
    width: usize,
    levels: Vec<u8>,
}

fn decode(file: &[u8]) -> Result<Picture, Box<dyn Error>> {
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info()?;
    let size = reader.output_buffer_size().ok_or("too large")?;
    let mut levels = vec![0; size];
    let frame = reader.next_frame(&mut levels)?;
    Ok(Picture {
        width: frame.width as usize,
        levels,
    })
}

/// Writes a PNG file of the pictures, all of one size, beside each other.
fn write_row(path: &Path, pictures: &[Picture]) -> Result<(), Box<dyn Error>> {
    let first = pictures.first().ok_or("no picture")?;
    let height = first.levels.len() / first.width;
    let width = pictures.len() * (first.width + GAP) - GAP;
    let mut row = vec![0; width * height];
    for (k, picture) in pictures.iter().enumerate() {
        let left = k * (first.width + GAP);
        for (y, line) in picture.levels.chunks(picture.width).enumerate() {
            row[y * width + left..][..line.len()].copy_from_slice(line);
        }
    }
    let mut encoder = png::Encoder::new(File::create(path)?, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&row)?;
    Ok(())
}
