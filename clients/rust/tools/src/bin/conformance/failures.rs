// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Comparison of an error with the expectation of a case.

use latentserve::Error;

use crate::cases::{Case, Expect, ExpectedError, Through};

pub fn check(case: &Case, error: &Error) -> Result<(), String> {
    let Expect::Error(expected) = &case.expect else {
        return Err(error.to_string());
    };
    let mut codes = expected.codes.iter().chain(&expected.code);
    if !codes.any(|code| code == error.code_name()) {
        return Err(format!(
            "{error}, expected {:?}{:?}",
            expected.code, expected.codes
        ));
    }
    // The client replaces an empty message, so check the message of the status.
    let may_be_empty = ["CANCELLED", "DEADLINE_EXCEEDED"].contains(&error.code_name())
        || case.rpc.starts_with("grpc.health.");
    let message = error
        .status()
        .map_or(error.message(), |status| status.message());
    if message.is_empty() && !may_be_empty {
        return Err("the error has no message".to_owned());
    }
    match &expected.reason {
        None => Ok(()), // such an error comes from gRPC itself
        Some(reason) => {
            details(expected, reason, error)?;
            retry(case, expected, error)
        }
    }
}

fn details(expected: &ExpectedError, reason: &str, error: &Error) -> Result<(), String> {
    if error.reason() != reason || error.domain() != expected.domain {
        let got = (error.reason(), error.domain());
        return Err(format!(
            "reason and domain are {got:?}, expected {reason} and {}",
            expected.domain
        ));
    }
    let fields: Vec<&str> = error
        .violations()
        .iter()
        .map(|v| v.field.as_str())
        .collect();
    if fields != expected.violations {
        return Err(format!(
            "violations are {fields:?}, expected {:?}",
            expected.violations
        ));
    }
    if let Some(silent) = error.violations().iter().find(|v| v.description.is_empty()) {
        return Err(format!(
            "the violation of {} has no description",
            silent.field
        ));
    }
    let metadata = error.metadata();
    for key in &expected.metadata_keys {
        if metadata.get(key).is_none_or(String::is_empty) {
            return Err(format!("the error's metadata has no {key}: {metadata:?}"));
        }
    }
    for (key, value) in &expected.metadata {
        if metadata.get(key) != Some(value) {
            return Err(format!(
                "metadata {key} is {:?}, expected {value}",
                metadata.get(key)
            ));
        }
    }
    match expected
        .message_lacks
        .iter()
        .find(|text| error.message().contains(*text))
    {
        Some(text) => Err(format!(
            "the message contains {text:?}: {}",
            error.message()
        )),
        None => Ok(()),
    }
}

fn retry(case: &Case, expected: &ExpectedError, error: &Error) -> Result<(), String> {
    let delay = error.retry_after().filter(|delay| !delay.is_zero());
    if delay.is_some() != expected.retry_info {
        let wanted = if expected.retry_info {
            "a delay above 0"
        } else {
            "none"
        };
        return Err(format!(
            "the delay of RetryInfo is {delay:?}, expected {wanted}"
        ));
    }
    if case.through != Through::Stub {
        return Ok(());
    }
    let trailers = error.status().map(tonic::Status::metadata);
    let pushback: Vec<&str> = trailers
        .iter()
        .flat_map(|trailers| trailers.get_all("grpc-retry-pushback-ms"))
        .map(|value| value.to_str().unwrap_or("unreadable"))
        .collect();
    let wanted: Vec<String> = delay
        .iter()
        .map(|delay| delay.as_millis().to_string())
        .collect();
    if pushback != wanted {
        return Err(format!(
            "grpc-retry-pushback-ms is {pushback:?}, expected {wanted:?}"
        ));
    }
    Ok(())
}
