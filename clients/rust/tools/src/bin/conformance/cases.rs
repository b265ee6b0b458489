// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Conformance cases in the format of clients/conformance/README.md.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use latentserve::{Tensor, Values, f16};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

// Unknown fields are errors, because this runner would not check them.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub server: String,
    pub rpc: String,
    pub through: Through,
    #[serde(default)]
    pub request: Request,
    pub body: Option<Data>,
    #[serde(default)]
    pub metadata: HashMap<String, String>,
    #[serde(default = "twenty_seconds")]
    pub deadline_ms: u64,
    #[serde(default)]
    pub retry: bool,
    pub cancel_after_ms: Option<u64>,
    pub stream: Option<StreamCase>,
    pub expect: Expect,
}

fn twenty_seconds() -> u64 {
    20_000
}

impl Case {
    pub fn group(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The method's name without package and service.
    pub fn method(&self) -> &str {
        self.rpc.rsplit('/').next().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Through {
    Client,
    Stub,
    Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamCase {
    pub cancel_after: usize,
    pub resume: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    pub model: Option<ModelCase>,
    pub images: Option<ImagesCase>,
    pub latents: Option<TensorCase>,
    pub output_format: String,
    #[serde(deserialize_with = "integer")]
    pub count: i64,
    #[serde(deserialize_with = "seed")]
    pub seed: Option<u64>,
    #[serde(deserialize_with = "integer")]
    pub offset: i64,
    #[serde(deserialize_with = "temperature")]
    pub temperature: Option<f32>,
    pub include_latents: bool,
    pub chunk_rows: i32,
    pub service: String,
    pub names: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelCase {
    pub name: String,
    pub version: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum ImagesCase {
    Tensor(TensorCase),
    Encoded(Vec<String>),
}

/// Bytes of a file, or zero bytes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Data {
    File(String),
    Zeros(usize),
}

/// Tensor of a request, or an expected tensor with its tolerance.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorCase {
    pub dtype: String,
    pub shape: Vec<i64>,
    pub data: Option<Data>,
    #[serde(default = "once")]
    pub repeat: usize,
    #[serde(default)]
    pub atol: f64,
    #[serde(default)]
    pub rtol: f64,
}

fn once() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Expect {
    Ok(Map<String, Value>),
    Error(ExpectedError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct ExpectedError {
    pub code: Option<String>,
    pub codes: Vec<String>,
    pub reason: Option<String>,
    pub domain: String,
    pub violations: Vec<String>,
    pub retry_info: bool,
    pub metadata_keys: Vec<String>,
    pub metadata: HashMap<String, String>,
    pub message_lacks: Vec<String>,
}

fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn seed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn temperature<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) if text == "NaN" => Ok(Some(f32::NAN)),
        value => match value.as_f64() {
            Some(number) => Ok(Some(number as f32)),
            None => Err(serde::de::Error::custom(format!(
                "{value} is not a temperature"
            ))),
        },
    }
}

/// Folder that holds the cases.
pub struct Folder(PathBuf);

#[derive(Deserialize)]
struct Index {
    groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    group: String,
    cases: Vec<Case>,
}

impl Folder {
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().to_owned())
    }

    /// Returns the cases of these groups, or of all groups if none is given.
    pub fn read(&self, groups: &[&str]) -> Result<Vec<Case>, String> {
        let index: Index = self.decode("index.json")?;
        let mut known = Vec::new();
        let mut cases = Vec::new();
        for file in &index.groups {
            let document: Group = self.decode(file)?;
            if groups.is_empty() || groups.contains(&document.group.as_str()) {
                cases.extend(document.cases);
            }
            known.push(document.group);
        }
        match groups
            .iter()
            .find(|&&group| !known.iter().any(|name| name == group))
        {
            Some(group) => Err(format!(
                "unknown group {group}; available: {}",
                known.join(", ")
            )),
            None => Ok(cases),
        }
    }

    fn decode<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T, String> {
        serde_json::from_slice(&self.file(name)?).map_err(|error| format!("{name}: {error}"))
    }

    pub fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        std::fs::read(self.0.join(path)).map_err(|error| format!("{path}: {error}"))
    }

    pub fn bytes(&self, data: &Data) -> Result<Vec<u8>, String> {
        match data {
            Data::File(path) => self.file(path),
            Data::Zeros(n) => Ok(vec![0; *n]),
        }
    }

    pub fn tensor_bytes(&self, case: &TensorCase) -> Result<Vec<u8>, String> {
        let data = case.data.as_ref().ok_or("the tensor has no data")?;
        Ok(self.bytes(data)?.repeat(case.repeat))
    }

    /// Returns the client's tensor for a case, with the shape of the case.
    pub fn tensor(&self, case: &TensorCase) -> Result<Tensor, String> {
        let data = self.tensor_bytes(case)?;
        let values = match case.dtype.as_str() {
            "FLOAT32" => Values::Float32(numbers(&data, f32::from_le_bytes)),
            "FLOAT16" => Values::Float16(numbers(&data, f16::from_le_bytes)),
            "UINT8" => Values::Uint8(data),
            other => return Err(format!("the client has no data type {other}")),
        };
        let lengths: Result<_, _> = case.shape.iter().map(|&n| usize::try_from(n)).collect();
        let shape = lengths
            .map_err(|_| format!("the client cannot represent the shape {:?}", case.shape))?;
        Ok(Tensor { shape, values })
    }
}

fn numbers<T, const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>()
        .0
        .iter()
        .map(|&chunk| number(chunk))
        .collect()
}
