// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Conformance runner of the Rust client; see clients/conformance/README.md.

mod calls;
mod cases;
mod checks;
mod failures;
mod outcome;
mod stub_calls;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use calls::Caller;
use cases::{Case, Folder};
use outcome::Outcome;

const CASE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Default, Serialize)]
struct Counts {
    passed: usize,
    failed: usize,
}

impl Counts {
    fn add(&mut self, passed: bool) {
        *(if passed {
            &mut self.passed
        } else {
            &mut self.failed
        }) += 1;
    }
}

#[derive(Serialize)]
struct Entry {
    name: String,
    passed: bool,
    reason: String,
}

#[derive(Serialize)]
struct Report {
    language: &'static str,
    #[serde(flatten)]
    all: Counts,
    groups: BTreeMap<String, Counts>,
    cases: Vec<Entry>,
}

#[derive(Deserialize)]
struct Servers {
    servers: HashMap<String, String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(report) => {
            println!("{} passed, {} failed", report.all.passed, report.all.failed);
            ExitCode::from(u8::from(report.all.failed > 0))
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<Report, Box<dyn std::error::Error>> {
    let arguments = latentserve_tools::arguments(&["cases", "servers", "groups", "report"])?;
    let required = |name: &str| arguments.get(name).ok_or(format!("--{name} is missing"));
    let groups: Vec<&str> = match arguments.get("groups") {
        Some(names) => names.split(',').filter(|name| !name.is_empty()).collect(),
        None => Vec::new(),
    };
    let folder = Folder::new(required("cases")?);
    let cases = folder.read(&groups)?;
    let servers: Servers = serde_json::from_slice(&std::fs::read(required("servers")?)?)?;
    let caller = Arc::new(Caller::new(servers.servers, folder));
    let mut report = Report {
        language: "rust",
        all: Counts::default(),
        groups: BTreeMap::new(),
        cases: Vec::new(),
    };
    for case in cases {
        let (name, group) = (case.name.clone(), case.group().to_owned());
        let reason = guarded(caller.clone(), case).await.err();
        if let Some(reason) = &reason {
            println!("FAILED {name}: {reason}");
        }
        report.all.add(reason.is_none());
        report
            .groups
            .entry(group)
            .or_default()
            .add(reason.is_none());
        let passed = reason.is_none();
        report.cases.push(Entry {
            name,
            passed,
            reason: reason.unwrap_or_default(),
        });
    }
    if let Some(path) = arguments.get("report") {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(report)
}

/// Runs one case in its own task, so that a panic or a hang fails only this case.
async fn guarded(caller: Arc<Caller>, case: Case) -> Result<(), String> {
    let mut task = tokio::spawn(async move { attempt(&caller, &case).await });
    match tokio::time::timeout(CASE_LIMIT, &mut task).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(panic.to_string()),
        Err(_) => {
            task.abort();
            Err(format!("the case did not finish within {CASE_LIMIT:?}"))
        }
    }
}

/// Executes the call of a case and checks the result.
async fn attempt(caller: &Caller, case: &Case) -> Result<(), String> {
    match caller.call(case).await {
        Outcome::Parts(parts) => checks::parts(&caller.folder, case, &parts),
        Outcome::Value(value) => values::check(case, &value),
        Outcome::Failure(error) => failures::check(case, &error),
        Outcome::Runner(reason) => Err(reason),
    }
}
