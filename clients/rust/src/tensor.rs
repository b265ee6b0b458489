// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use bytes::Bytes;
use half::f16;

use crate::error::Error;
use crate::pb;

/// Dense array of values in row-major order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Size of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The values.
    pub values: Values,
}

/// Values of a [`Tensor`], in one of three data types.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Single precision.
    Float32(Vec<f32>),
    /// Half precision.
    Float16(Vec<f16>),
    /// Bytes; in images, 0 to 255 represent 0 to 1.
    Uint8(Vec<u8>),
}

impl Default for Values {
    fn default() -> Self {
        Self::Float32(Vec::new())
    }
}

impl Values {
    /// The number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Float32(values) => values.len(),
            Self::Float16(values) => values.len(),
            Self::Uint8(values) => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Tensor {
    /// Creates latents for [`crate::DecodeRequest`]: `n` rows of `values.len() / n` values.
    pub fn latents(values: Vec<f32>, n: usize) -> Self {
        let dim = values.len().checked_div(n).unwrap_or(0);
        Self {
            shape: vec![n, dim],
            values: Values::Float32(values),
        }
    }

    /// The size of the first dimension.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// The values if they are single precision, as latents are; empty otherwise.
    pub fn floats(&self) -> &[f32] {
        match &self.values {
            Values::Float32(values) => values,
            _ => &[],
        }
    }

    /// Row `k` of [`Tensor::floats`]. Panics if `k` is out of range.
    pub fn row(&self, k: usize) -> &[f32] {
        let size = self.floats().len() / self.rows();
        &self.floats()[k * size..(k + 1) * size]
    }

    /// The values converted to single precision; bytes are divided by 255.
    pub fn to_floats(&self) -> Vec<f32> {
        match &self.values {
            Values::Float32(values) => values.clone(),
            Values::Float16(values) => values.iter().map(|value| value.to_f32()).collect(),
            Values::Uint8(values) => values
                .iter()
                .map(|&level| f32::from(level) / 255.0)
                .collect(),
        }
    }

    /// The values of images as 0 to 255, clamped and rounded half to even as the server does.
    pub fn to_levels(&self) -> Vec<u8> {
        match &self.values {
            Values::Uint8(values) => values.clone(),
            // `as` clamps, and converts NaN to 0.
            _ => self
                .to_floats()
                .iter()
                .map(|value| (255.0 * value).round_ties_even() as u8)
                .collect(),
        }
    }

    /// Converts to the message; an error names the field.
    pub(crate) fn to_proto(&self, field: &str, rank: usize) -> Result<pb::Tensor, Error> {
        let shape_field = format!("{field}.shape");
        let shape = &self.shape;
        if shape.len() != rank {
            let description = format!("{shape:?}; expected {rank} dimensions");
            return Err(Error::invalid(&shape_field, description));
        }
        let size = elements(shape.iter().copied()).filter(|&size| size > 0);
        let Some(size) = size else {
            let description = format!("{shape:?}; every dimension must be at least 1");
            return Err(Error::invalid(&shape_field, description));
        };
        let length = self.values.len();
        if size != length {
            let description = format!("{length} values for the shape {shape:?}; expected {size}");
            return Err(Error::invalid(field, description));
        }
        let (data_type, data) = match &self.values {
            Values::Float32(values) => (
                pb::DataType::Float32,
                little_endian(values, |value| value.to_le_bytes()),
            ),
            Values::Float16(values) => (
                pb::DataType::Float16,
                little_endian(values, |value| value.to_le_bytes()),
            ),
            Values::Uint8(values) => (pb::DataType::Uint8, values.clone()),
        };
        Ok(pb::Tensor {
            data_type: data_type.into(),
            shape: shape.iter().map(|&n| n as i64).collect(),
            data: data.into(),
        })
    }

    /// Checks and converts the tensor of a reply.
    pub(crate) fn from_proto(message: pb::Tensor, rank: usize) -> Result<Self, Error> {
        let shape: Option<Vec<usize>> = message.shape.iter().map(|&n| n.try_into().ok()).collect();
        let shape = shape.filter(|shape| shape.len() == rank);
        let size = shape.as_ref().and_then(|s| elements(s.iter().copied()));
        let (Some(shape), Some(size)) = (shape, size) else {
            return Err(Error::bad_reply(format!(
                "the reply has a tensor of shape {:?}; expected {rank} dimensions",
                message.shape
            )));
        };
        let values = match pb::DataType::try_from(message.data_type) {
            Ok(pb::DataType::Float32) => {
                numbers(&message.data, f32::from_le_bytes).map(Values::Float32)
            }
            Ok(pb::DataType::Float16) => {
                numbers(&message.data, f16::from_le_bytes).map(Values::Float16)
            }
            Ok(pb::DataType::Uint8) => Some(Values::Uint8(message.data.into())),
            _ => {
                return Err(Error::bad_reply(format!(
                    "the reply has a tensor of unknown data type {}",
                    message.data_type
                )));
            }
        };
        match values {
            Some(values) if values.len() == size => Ok(Self { shape, values }),
            _ => Err(Error::bad_reply(format!(
                "the reply has a tensor whose byte count does not match its shape {shape:?}"
            ))),
        }
    }
}

/// Returns the product of the dimensions; `None` on overflow.
fn elements(shape: impl Iterator<Item = usize>) -> Option<usize> {
    let mut lengths = shape;
    lengths.try_fold(1_usize, |product, n| product.checked_mul(n))
}

fn little_endian<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut data = vec![0; values.len() * N];
    for (chunk, &value) in data.chunks_exact_mut(N).zip(values) {
        chunk.copy_from_slice(&bytes(value));
    }
    data
}

fn numbers<T, const N: usize>(data: &Bytes, number: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (chunks, rest) = data.as_chunks::<N>();
    rest.is_empty()
        .then(|| chunks.iter().map(|&chunk| number(chunk)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(tensor: &Tensor) -> Tensor {
        Tensor::from_proto(
            tensor.to_proto("t", tensor.shape.len()).unwrap(),
            tensor.shape.len(),
        )
        .unwrap()
    }

    #[test]
    fn every_dtype_survives_a_round_trip() {
        for values in [
            Values::Float32(vec![1.5, -0.0, f32::MIN_POSITIVE, 1e9]),
            Values::Float16(vec![f16::from_f32(0.1), f16::MAX, f16::ZERO, f16::NEG_ONE]),
            Values::Uint8(vec![0, 1, 254, 255]),
        ] {
            let tensor = Tensor {
                shape: vec![2, 2],
                values,
            };
            assert_eq!(round_trip(&tensor), tensor);
        }
    }

    #[test]
    fn bytes_are_little_endian() {
        let message = Tensor::latents(vec![1.0], 1)
            .to_proto("latents", 2)
            .unwrap();
        assert_eq!(message.data.as_ref(), [0, 0, 0x80, 0x3f]);
    }

    #[test]
    fn invalid_shapes_are_refused_with_their_field() {
        for (shape, field) in [
            (vec![4], "latents.shape"),
            (vec![0, 4], "latents.shape"),
            (vec![usize::MAX, 2], "latents.shape"),
            (vec![1, 3], "latents"),
        ] {
            let tensor = Tensor {
                shape,
                values: Values::Float32(vec![0.0; 4]),
            };
            let error = tensor.to_proto("latents", 2).unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument);
            assert_eq!(error.violations()[0].field, field);
        }
    }

    #[test]
    fn replies_that_violate_the_protocol_are_errors() {
        let good = pb::Tensor {
            data_type: 1,
            shape: vec![1, 2],
            data: vec![0; 8].into(),
        };
        assert!(Tensor::from_proto(good.clone(), 2).is_ok());
        for bad in [
            pb::Tensor {
                shape: vec![2],
                ..good.clone()
            },
            pb::Tensor {
                shape: vec![-1, -2],
                ..good.clone()
            },
            pb::Tensor {
                shape: vec![i64::MAX, i64::MAX],
                ..good.clone()
            },
            pb::Tensor {
                data: vec![0; 9].into(),
                ..good.clone()
            },
            pb::Tensor {
                data: vec![0; 4].into(),
                ..good.clone()
            },
            pb::Tensor {
                data_type: 0,
                ..good.clone()
            },
            pb::Tensor {
                data_type: 9,
                ..good
            },
        ] {
            let error = Tensor::from_proto(bad, 2).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::BadReply);
        }
    }

    #[test]
    fn levels_are_rounded_half_to_even_and_clamped() {
        let tensor = Tensor::latents(vec![0.5 / 255.0, 1.5 / 255.0, -1.0, 2.0, f32::NAN], 1);
        assert_eq!(tensor.to_levels(), [0, 2, 0, 255, 0]);
        let bytes = Tensor {
            shape: vec![1, 2],
            values: Values::Uint8(vec![0, 255]),
        };
        assert_eq!(bytes.to_floats(), [0.0, 1.0]);
    }

    #[test]
    fn rows_are_slices_of_the_values() {
        let tensor = Tensor::latents(vec![1.0, 2.0, 3.0, 4.0], 2);
        assert_eq!(tensor.row(1), [3.0, 4.0]);
    }
}
