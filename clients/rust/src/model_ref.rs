// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

use crate::error::Error;
use crate::pb;

/// Parses `NAME` or `NAME:VERSION`; an empty string means the server's default model.
pub(crate) fn model_ref(model: &str) -> Result<pb::ModelRef, Error> {
    let Some((name, text)) = model.split_once(':') else {
        return Ok(pb::ModelRef {
            name: model.to_owned(),
            version: 0,
        });
    };
    match text.parse() {
        Ok(version) if version >= 1 => Ok(pb::ModelRef {
            name: name.to_owned(),
            version,
        }),
        _ => {
            let expected = "expected NAME or NAME:VERSION with a version of at least 1";
            Err(Error::invalid("model", format!("{model:?}; {expected}")))
        }
    }
}
