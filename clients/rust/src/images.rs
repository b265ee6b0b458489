// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use bytes::Bytes;

use crate::error::Error;
use crate::pb;
use crate::tensor::{Tensor, Values};

/// Images as pixels or as encoded files.
#[derive(Clone, Debug, PartialEq)]
pub enum Images {
    /// `[n, channels, height, width]`: floats in \[0, 1\], or bytes.
    Pixels(Tensor),
    /// One PNG or JPEG file per image, of exactly the model's size. The server converts between
    /// greyscale and colour as the model requires. Files in results are PNG.
    Files(Vec<Bytes>),
}

impl Default for Images {
    /// Contains no images; every call refuses it.
    fn default() -> Self {
        Self::Files(Vec::new())
    }
}

impl Images {
    /// Creates images from intensities in \[0, 1\]; the shape is `[n, channels, height, width]`.
    pub fn float32(values: Vec<f32>, shape: [usize; 4]) -> Self {
        Self::pixels_of(shape, Values::Float32(values))
    }

    /// Creates images from levels from 0 to 255; the shape is `[n, channels, height, width]`.
    pub fn uint8(levels: Vec<u8>, shape: [usize; 4]) -> Self {
        Self::pixels_of(shape, Values::Uint8(levels))
    }

    /// Creates images from PNG or JPEG files, which are sent unchanged.
    pub fn encoded<F: Into<Bytes>>(files: impl IntoIterator<Item = F>) -> Self {
        Self::Files(files.into_iter().map(Into::into).collect())
    }

    fn pixels_of(shape: [usize; 4], values: Values) -> Self {
        Self::Pixels(Tensor {
            shape: shape.to_vec(),
            values,
        })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        match self {
            Self::Pixels(tensor) => tensor.rows(),
            Self::Files(files) => files.len(),
        }
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pixels; `None` if the images are files. Results contain pixels unless PNG was requested.
    pub fn pixels(&self) -> Option<&Tensor> {
        match self {
            Self::Pixels(tensor) => Some(tensor),
            Self::Files(_) => None,
        }
    }

    /// The encoded files; empty if the images are pixels.
    pub fn files(&self) -> &[Bytes] {
        match self {
            Self::Pixels(_) => &[],
            Self::Files(files) => files,
        }
    }

    pub(crate) fn to_proto(&self) -> Result<pb::Images, Error> {
        let form = match self {
            Self::Pixels(tensor) => pb::images::Form::Tensor(tensor.to_proto("images.tensor", 4)?),
            Self::Files(files) if files.is_empty() => {
                return Err(Error::invalid("images", "no images; expected at least one"));
            }
            Self::Files(files) => pb::images::Form::Encoded(pb::EncodedImages {
                files: files.clone(),
            }),
        };
        Ok(pb::Images { form: Some(form) })
    }

    pub(crate) fn from_proto(message: Option<pb::Images>) -> Result<Self, Error> {
        match message.and_then(|images| images.form) {
            Some(pb::images::Form::Tensor(tensor)) => {
                Ok(Self::Pixels(Tensor::from_proto(tensor, 4)?))
            }
            Some(pb::images::Form::Encoded(encoded)) => Ok(Self::Files(encoded.files)),
            None => Err(Error::bad_reply("the reply has no images")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sent_unchanged() {
        let images = Images::encoded([vec![1, 2], vec![3]]);
        assert_eq!(images.len(), 2);
        let back = Images::from_proto(Some(images.to_proto().unwrap())).unwrap();
        assert_eq!(
            back.files(),
            [Bytes::from(vec![1, 2]), Bytes::from(vec![3])]
        );
        assert!(back.pixels().is_none());
    }

    #[test]
    fn empty_and_mismatched_images_are_refused() {
        let error = Images::default().to_proto().unwrap_err();
        assert_eq!(error.violations()[0].field, "images");
        let error = Images::uint8(vec![0; 3], [1, 1, 2, 2])
            .to_proto()
            .unwrap_err();
        assert_eq!(error.violations()[0].field, "images.tensor");
        assert!(Images::from_proto(None).is_err());
    }
}
