// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Command-line parsing shared by the programs of this crate.

use std::collections::HashMap;

/// Parses a command line of `--NAME VALUE` pairs, with each NAME among `known`.
pub fn arguments(known: &[&str]) -> Result<HashMap<String, String>, String> {
    parse(known, std::env::args().skip(1))
}

fn parse(
    known: &[&str],
    words: impl Iterator<Item = String>,
) -> Result<HashMap<String, String>, String> {
    let mut words = words;
    let mut values = HashMap::new();
    while let Some(word) = words.next() {
        let name = word.strip_prefix("--").filter(|name| known.contains(name));
        let name = name.ok_or_else(|| {
            format!(
                "unknown argument {word}; available: --{} VALUE",
                known.join(" VALUE, --")
            )
        })?;
        let value = words
            .next()
            .ok_or_else(|| format!("{word} requires a value"))?;
        values.insert(name.to_owned(), value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn parsed(line: &str) -> Result<std::collections::HashMap<String, String>, String> {
        parse(
            &["cases", "servers"],
            line.split_whitespace().map(str::to_owned),
        )
    }

    #[test]
    fn pairs_are_parsed_and_invalid_arguments_refused() {
        assert_eq!(parsed("--servers a --cases b").unwrap()["cases"], "b");
        for bad in ["--other a", "cases a", "--cases"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
