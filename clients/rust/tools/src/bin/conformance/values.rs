// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Replies of ModelService and health as JSON with the names of the .proto files, and their checks.

use latentserve::{HealthStatus, Model, ModelList, ReloadOutcome};
use serde_json::{Value, json};

use crate::cases::{Case, Expect};

pub fn list(list: &ModelList) -> Value {
    let models: Vec<Value> = list.models.iter().map(describe).collect();
    json!({"models": models, "default_model": list.default_model})
}

pub fn one(model: &Model) -> Value {
    json!({"model": describe(model)})
}

pub fn outcomes(outcomes: &[ReloadOutcome]) -> Value {
    let outcomes: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "name": outcome.name,
                "version": outcome.version,
                "action": outcome.action.to_uppercase(),
                "reason": outcome.reason,
            })
        })
        .collect();
    json!({"outcomes": outcomes})
}

pub fn health(status: HealthStatus) -> Value {
    let name = match status {
        HealthStatus::Serving => "SERVING",
        HealthStatus::NotServing => "NOT_SERVING",
        HealthStatus::ServiceUnknown => "SERVICE_UNKNOWN",
    };
    json!({"status": name})
}

fn describe(model: &Model) -> Value {
    let operations: Vec<String> = model.operations.iter().map(|o| o.to_uppercase()).collect();
    let likelihood = model.likelihood.as_ref();
    let mut metrics: Vec<_> = model.metrics.iter().collect();
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    let metrics: Vec<Value> = metrics
        .iter()
        .map(|metric| {
            json!({
                "name": metric.name,
                "value": metric.value,
                "unit": metric.unit,
                "baseline": metric.baseline,
                "baseline_name": metric.baseline_name,
                "samples": metric.samples,
                "estimator": metric.estimator,
            })
        })
        .collect();
    json!({
        "name": model.name,
        "version": model.version,
        "state": model.state.to_uppercase(),
        "reason": model.reason,
        "digest": model.digest,
        "kind": model.kind,
        "description": model.description,
        "image": {
            "channels": model.image.channels,
            "height": model.image.height,
            "width": model.image.width,
        },
        "latent": {
            "dim": model.latent.dim,
            "prior": model.latent.prior,
            "has_log_variance": model.latent.has_log_variance,
            "mixture_components": model.latent.mixture_components,
        },
        "operations": operations,
        "likelihood": likelihood.map(|l| json!({"family": l.family, "sigma": l.sigma})),
        "limits": {
            "max_request_rows": model.limits.max_request_rows,
            "max_stream_rows": model.limits.max_stream_rows,
            "max_batch_rows": model.limits.max_batch_rows,
        },
        "provider": model.provider,
        "metrics": metrics,
    })
}

pub fn check(case: &Case, got: &Value) -> Result<(), String> {
    let Expect::Ok(expected) = &case.expect else {
        return Err(format!("the call returned {got}, expected an error"));
    };
    for (key, wanted) in expected {
        match (key.as_str(), wanted) {
            ("model", wanted) => given(key, &got[key], wanted)?,
            ("models", Value::Array(wanted)) => {
                let models = got[key].as_array().map_or(&[][..], Vec::as_slice);
                if models.len() != wanted.len() {
                    return Err(format!(
                        "{} models, expected {}",
                        models.len(),
                        wanted.len()
                    ));
                }
                for (model, wanted) in models.iter().zip(wanted) {
                    given(&wanted["name"].to_string(), model, wanted)?;
                }
            }
            _ if same(&got[key], wanted) => {}
            _ => return Err(format!("{key} is {}, expected {wanted}", got[key])),
        }
    }
    Ok(())
}

/// Compares only the expected fields of a model.
fn given(name: &str, got: &Value, expected: &Value) -> Result<(), String> {
    let fields = expected
        .as_object()
        .ok_or("the expected model is not an object")?;
    for (key, wanted) in fields {
        let value = got
            .get(key)
            .ok_or_else(|| format!("this runner does not know {key}"))?;
        if !same(value, wanted) {
            return Err(format!("{name}: {key} is {value}, expected {wanted}"));
        }
    }
    Ok(())
}

/// Whether two values are equal; the numbers 1 and 1.0 are.
fn same(got: &Value, wanted: &Value) -> bool {
    match (got, wanted) {
        (Value::Number(got), Value::Number(wanted)) => {
            got == wanted || (got.is_f64() != wanted.is_f64()) && got.as_f64() == wanted.as_f64()
        }
        (Value::Array(got), Value::Array(wanted)) => {
            got.len() == wanted.len() && got.iter().zip(wanted).all(|(a, b)| same(a, b))
        }
        (Value::Object(got), Value::Object(wanted)) => {
            got.len() == wanted.len()
                && got
                    .iter()
                    .all(|(key, value)| wanted.get(key).is_some_and(|w| same(value, w)))
        }
        _ => got == wanted,
    }
}
