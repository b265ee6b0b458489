// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Comparison of GenerativeService replies with the expectation of a case.

use latentserve::{Images, Tensor, Values};
use serde_json::{Map, Value};

use crate::cases::{Case, Expect, Folder, TensorCase};
use crate::outcome::Part;

const MAX_BATCH_ROWS: i32 = 64;
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const KNOWN: [&str; 7] = [
    "latents",
    "log_variance",
    "squared_error",
    "images",
    "seed",
    "served_by",
    "chunks",
];

/// Selects one tensor of a reply.
type Field = fn(&Part) -> Option<&Tensor>;

pub fn parts(folder: &Folder, case: &Case, parts: &[Part]) -> Result<(), String> {
    let Expect::Ok(expected) = &case.expect else {
        return Err("the call succeeded, expected an error".to_owned());
    };
    if let Some(key) = expected.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(format!("this runner does not know {key}"));
    }
    let first = parts.first().ok_or("no reply")?;
    for part in parts {
        signature(part, expected.get("served_by"))?;
        seed(part.seed, first.seed, expected.get("seed"))?;
    }
    if case.method() == "SampleStream" {
        chunks(case, parts, expected)?;
    }
    let fields: [(&str, Field); 3] = [
        ("latents", |part| part.latents.as_ref()),
        ("log_variance", |part| part.log_variance.as_ref()),
        ("squared_error", |part| part.squared_error.as_ref()),
    ];
    for (name, field) in fields {
        if let Some(wanted) = expected.get(name) {
            let got: Vec<_> = parts.iter().map(field).collect();
            optional(folder, &got, wanted).map_err(|reason| format!("{name}: {reason}"))?;
        }
    }
    match expected.get("images") {
        Some(wanted) => images(folder, parts, wanted).map_err(|reason| format!("images: {reason}")),
        None => Ok(()),
    }
}

fn signature(part: &Part, expected: Option<&Value>) -> Result<(), String> {
    let got = &part.served_by;
    if let Some(wanted) = expected {
        let equal = wanted["name"] == got.name.as_str()
            && wanted["version"] == got.version
            && wanted["digest"] == got.digest.as_str();
        if !equal {
            return Err(format!("served_by is {got:?}, expected {wanted}"));
        }
    }
    if got.provider.is_empty() {
        return Err("served_by.provider is empty".to_owned());
    }
    let timings = &part.timings;
    if timings.compute.is_zero() || !(1..=MAX_BATCH_ROWS).contains(&timings.batch_rows) {
        return Err(format!("timings are {timings:?}"));
    }
    Ok(())
}

fn seed(got: Option<u64>, first: Option<u64>, expected: Option<&Value>) -> Result<(), String> {
    let good = match expected {
        None => true,
        Some(Value::Null) => got.is_none(),
        Some(Value::String(any)) if any == "any" => got.is_some() && got == first,
        Some(wanted) => got.is_some_and(|seed| *wanted == seed.to_string().as_str()),
    };
    if good {
        return Ok(());
    }
    Err(format!(
        "the seed is {got:?}, expected {expected:?}; the seed of the first reply is {first:?}"
    ))
}

fn chunks(case: &Case, parts: &[Part], expected: &Map<String, Value>) -> Result<(), String> {
    let start = case.request.offset;
    let mut next = start;
    let mut got = Vec::new();
    for part in parts {
        let rows = part.images.as_ref().map_or(0, Images::len);
        if part.offset != next {
            return Err(format!(
                "a chunk has the offset {}, expected {next}",
                part.offset
            ));
        }
        if part
            .latents
            .as_ref()
            .is_some_and(|latents| latents.rows() != rows)
        {
            return Err(format!(
                "a chunk of {rows} images has another number of latents"
            ));
        }
        got.push(serde_json::json!({"offset": part.offset.to_string(), "rows": rows}));
        next += rows as i64;
    }
    if let Some(wanted) = expected.get("chunks") {
        let got = Value::Array(got);
        if got != *wanted {
            return Err(format!("the chunks are {got}, expected {wanted}"));
        }
    }
    let whole = case.stream.as_ref().is_none_or(|stream| stream.resume);
    if whole && next - start != case.request.count {
        return Err(format!(
            "{} rows in total, expected {}",
            next - start,
            case.request.count
        ));
    }
    Ok(())
}

fn optional(folder: &Folder, got: &[Option<&Tensor>], expected: &Value) -> Result<(), String> {
    if expected.is_null() {
        return match got.iter().flatten().next() {
            Some(_) => Err("is present, expected none".to_owned()),
            None => Ok(()),
        };
    }
    let tensors: Option<Vec<&Tensor>> = got.iter().copied().collect();
    tensor(folder, &tensors.ok_or("is missing")?, expected)
}

fn images(folder: &Folder, parts: &[Part], expected: &Value) -> Result<(), String> {
    let png = expected.get("png");
    let wanted = png
        .or(expected.get("tensor"))
        .ok_or("the case expects neither a tensor nor PNG files")?;
    let mut tensors = Vec::new();
    for part in parts {
        match part.images.as_ref().ok_or("are missing")? {
            Images::Pixels(pixels) if png.is_none() => tensors.push(pixels.clone()),
            Images::Files(files) if png.is_some() => {
                for file in files {
                    tensors.push(pixels_of(file)?);
                }
            }
            _ => return Err(format!("have another form than {expected}")),
        }
    }
    tensor(folder, &tensors.iter().collect::<Vec<_>>(), wanted)
}

/// Returns a PNG file as a tensor of one row.
fn pixels_of(file: &[u8]) -> Result<Tensor, String> {
    if !file.starts_with(PNG_SIGNATURE) {
        return Err("a file is not a PNG file".to_owned());
    }
    let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let size = reader
        .output_buffer_size()
        .ok_or("a PNG file is too large")?;
    let mut buffer = vec![0; size];
    let frame = reader
        .next_frame(&mut buffer)
        .map_err(|error| error.to_string())?;
    let samples = frame.color_type.samples();
    if ![1, 3].contains(&samples) {
        return Err(format!("a PNG file has {samples} channels"));
    }
    let pixels = buffer[..frame.buffer_size()].chunks_exact(samples);
    let plane = |channel: usize| pixels.clone().map(move |pixel| pixel[channel]);
    Ok(Tensor {
        shape: vec![1, samples, frame.height as usize, frame.width as usize],
        values: Values::Uint8((0..samples).flat_map(plane).collect()),
    })
}

/// Compares concatenated tensors with the expected tensor.
fn tensor(folder: &Folder, parts: &[&Tensor], expected: &Value) -> Result<(), String> {
    let expected: TensorCase =
        serde_json::from_value(expected.clone()).map_err(|error| error.to_string())?;
    let mut shape: Vec<i64> = Vec::new();
    let mut got = Vec::new();
    for part in parts {
        let lengths: Vec<i64> = part.shape.iter().map(|&n| n as i64).collect();
        let (dtype, values) = values_of(part);
        if dtype != expected.dtype {
            return Err(format!(
                "the data type is {dtype}, expected {}",
                expected.dtype
            ));
        }
        got.extend(values);
        if shape.is_empty() {
            shape = lengths;
        } else if shape[1..] == lengths[1..] {
            shape[0] += lengths[0];
        } else {
            return Err(format!(
                "one reply has the shapes {shape:?} and {lengths:?}"
            ));
        }
    }
    if shape != expected.shape {
        return Err(format!(
            "the shape is {shape:?}, expected {:?}",
            expected.shape
        ));
    }
    if expected.data.is_none() {
        return Ok(());
    }
    let (_, wanted) = values_of(&folder.tensor(&expected)?);
    if got.len() != wanted.len() {
        return Err(format!("{} values, expected {}", got.len(), wanted.len()));
    }
    let close =
        |got: f64, want: f64| (got - want).abs() <= expected.atol + expected.rtol * want.abs();
    match got
        .iter()
        .zip(&wanted)
        .position(|(&got, &want)| !close(got, want))
    {
        Some(i) => Err(format!("value {i} is {}, expected {}", got[i], wanted[i])),
        None => Ok(()),
    }
}

/// Returns the data type and the values of a tensor; UINT8 values are 0 to 255.
fn values_of(tensor: &Tensor) -> (&'static str, Vec<f64>) {
    match &tensor.values {
        Values::Float32(values) => ("FLOAT32", values.iter().map(|&v| v.into()).collect()),
        Values::Float16(values) => ("FLOAT16", values.iter().map(|v| v.to_f64()).collect()),
        Values::Uint8(values) => ("UINT8", values.iter().map(|&v| v.into()).collect()),
    }
}
