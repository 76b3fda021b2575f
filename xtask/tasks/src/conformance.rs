//! `cargo xtask conformance`: the validation suite of opencontainers/runtime-tools, for this project's runtime beside others, so
//! that a failure which all share is visible. What still fails for ours is explained in `docs/conformance.md`.
//!
//! - [`suite`]: the suite's source, from Debian, and how it is built; [`tap`]: what its programs print.

mod suite;
mod tap;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;

use self::{suite::Suite, tap::Outcome};
use crate::run::{cargo, find_program, programs, step, workspace};

/// Name of this project's runtime in the report.
const OURS: &str = "tucano_oci";
/// Where every failing assertion of ours is explained.
const EXPLANATIONS: &str = "docs/conformance.md";

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Conformance {
    /// Another runtime to put beside ours: a program of the PATH, or name=path.
    #[arg(long = "beside", default_values = ["runc", "crun"])]
    beside: Vec<String>,
    /// Only these programs of the suite, such as `mounts`.
    tests: Vec<String>,
}

/// Failing assertions, by program of the suite.
type Failures = BTreeMap<String, Outcome>;

/// Runs the suite for each runtime and prints a table; fails where ours fails otherwise than is explained.
pub(crate) fn run(wanted: &Conformance) -> anyhow::Result<()> {
    let mut build = cargo();
    build.args(["build", "--locked", "--package", "tucano_oci_runtime"]);
    step("building the runtime", &mut build)?;
    let suite = Suite::get(&workspace().join("target/conformance"))?;
    let tests = if wanted.tests.is_empty() {
        suite.tests()?
    } else {
        wanted.tests.clone()
    };
    let ours = programs().join("tucano_oci");
    let mut runtimes = vec![(OURS.to_owned(), ours)];
    for name in &wanted.beside {
        runtimes.push(runtime(name)?);
    }
    let mut results = Vec::new();
    for (name, program) in &runtimes {
        eprintln!("xtask: the suite for {name}");
        results.push((name.clone(), run_all(&suite, program, &tests)?));
    }
    println!("{}", table(&results));
    let explained = explained(&fs::read_to_string(workspace().join(EXPLANATIONS))?);
    judge(&results[0].1, &explained)
}

fn runtime(name: &str) -> anyhow::Result<(String, PathBuf)> {
    if let Some((name, path)) = name.split_once('=') {
        return Ok((name.to_owned(), path.into()));
    }
    let program = find_program(name).with_context(|| format!("there is no {name} in the PATH"))?;
    Ok((name.to_owned(), program))
}

fn run_all(suite: &Suite, runtime: &Path, tests: &[String]) -> anyhow::Result<Failures> {
    let mut failures = Failures::new();
    for test in tests {
        let output = suite
            .command(test, runtime)
            .output()
            .context("cannot run unshare")?;
        let outcome = Outcome::of(&output);
        if !outcome.failed.is_empty() {
            eprintln!("  {test}: {} failed", outcome.failed.len());
        }
        failures.insert(test.clone(), outcome);
        remove_cgroups();
    }
    Ok(failures)
}

/// What the suite's containers leave when a runtime fails them: empty cgroups, by the names that it gives them.
fn remove_cgroups() {
    let below = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let top = Path::new("/sys/fs/cgroup");
    for hierarchy in below(top).into_iter().chain([top.to_owned()]) {
        for name in [
            "testdir/runtime-test/container",
            "testdir/runtime-test",
            "testdir",
        ] {
            // Absent, or in use by another run of the suite.
            fs::remove_dir(hierarchy.join(name)).ok();
        }
    }
}

/// A line for each program that fails for some runtime, and the sums.
fn table(results: &[(String, Failures)]) -> String {
    let names: Vec<&str> = results.iter().map(|(name, _)| name.as_str()).collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(
        [vec!["failing"], names]
            .concat()
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
    );
    text += &format!("|---|{}\n", "---|".repeat(results.len()));
    let count =
        |failures: &Failures, test: &str| failures.get(test).map_or(0, |one| one.failed.len());
    for test in results.iter().take(1).flat_map(|(_, all)| all.keys()) {
        let counts: Vec<usize> = results.iter().map(|(_, all)| count(all, test)).collect();
        if counts.iter().any(|count| *count > 0) {
            let cells = counts.iter().map(usize::to_string);
            text += &line([format!("`{test}`")].into_iter().chain(cells).collect());
        }
    }
    let sums = |of: fn(&Outcome) -> usize| -> Vec<String> {
        let sum = |all: &Failures| all.values().map(of).sum::<usize>().to_string();
        results.iter().map(|(_, all)| sum(all)).collect()
    };
    text += &line(
        [
            vec!["all that fail".to_owned()],
            sums(|one| one.failed.len()),
        ]
        .concat(),
    );
    text + &line([vec!["all that hold".to_owned()], sums(|one| one.passed)].concat())
}

/// The numbers of failing assertions that the page explains: its table's first and second cells.
fn explained(page: &str) -> BTreeMap<String, usize> {
    page.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let test = cells.next()?.strip_suffix('`')?;
            Some((test.to_owned(), cells.next()?.trim().parse().ok()?))
        })
        .collect()
}

fn judge(ours: &Failures, explained: &BTreeMap<String, usize>) -> anyhow::Result<()> {
    let mut unexplained = Vec::new();
    for (test, outcome) in ours {
        let known = explained.get(test).copied().unwrap_or_default();
        if outcome.failed.len() > known {
            unexplained.push(format!("{test}: {}", outcome.failed.join("; ")));
        }
    }
    if unexplained.is_empty() {
        return Ok(());
    }
    bail!(
        "{OURS} fails what {EXPLANATIONS} does not explain:\n{}",
        unexplained.join("\n")
    )
}

#[cfg(test)]
mod tests;
