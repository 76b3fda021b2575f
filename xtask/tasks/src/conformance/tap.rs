//! What the suite's programs print: the Test Anything Protocol.

use std::process::Output;

/// How one program went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Assertions that hold, or could not be made.
    pub(super) passed: usize,
    /// Those that do not, in the suite's words.
    pub(super) failed: Vec<String>,
}

impl Outcome {
    /// A program that bailed out counts one more failure.
    pub(super) fn of(output: &Output) -> Self {
        let mut outcome = Self::read(&String::from_utf8_lossy(&output.stdout));
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rfind(|line| !line.trim().is_empty());
            let why = last.unwrap_or("nothing was said");
            outcome
                .failed
                .push(format!("it gave up ({}): {why}", output.status));
        }
        outcome
    }

    fn read(text: &str) -> Self {
        let mut outcome = Self::default();
        for line in text.lines() {
            // What is marked so, the suite itself does not know how to test.
            if line.contains("# TODO") {
                continue;
            }
            if let Some(what) = line.strip_prefix("not ok ") {
                outcome.failed.push(what.to_owned());
            } else if line.starts_with("ok ") {
                outcome.passed += 1;
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    const PRINTED: &str = "TAP version 13\nok 1 - good\nnot ok 2 - bad\n  ---\n  {}\n  ...\n\
                           not ok 3 # TODO - unknown\nok 4 # SKIP none\n1..4\n";

    #[test]
    fn results_are_counted() {
        let outcome = Outcome::read(PRINTED);
        assert_eq!(
            (outcome.passed, outcome.failed),
            (2, vec!["2 - bad".into()])
        );
    }

    #[test]
    fn a_bail_out_counts_as_a_failure() {
        let output = Output {
            status: ExitStatus::from_raw(256),
            stdout: PRINTED.into(),
            stderr: "why\n\n".into(),
        };
        let outcome = Outcome::of(&output);
        assert_eq!(outcome.failed.len(), 2);
        assert!(outcome.failed[1].ends_with("why"), "{:?}", outcome.failed);
    }
}
