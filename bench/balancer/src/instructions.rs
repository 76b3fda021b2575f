//! User-space instructions per request, which any machine counts the same: valgrind runs the balancer with few and with many
//! requests, and the difference is what the additional ones cost.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    contender::{Contender, valgrind},
    load::Load,
    origin::Origin,
};

/// What is counted, how often the balancer is asked, and the rise over what is recorded that is an error. Into how many parts a
/// large body falls depends on the machine.
const EXCHANGES: [(&str, usize, f64); 5] = [
    ("100", 2000, 0.05),
    ("short100", 2000, 0.05),
    ("16384", 1000, 0.05),
    ("1048576", 100, 0.5),
    ("post65536", 200, 0.5),
];

const CONNECTIONS: usize = 16;

/// Counts for the first of `ours` and compares with what is recorded.
pub(crate) fn check(ours: &[(String, PathBuf)], origin: &Origin, record: bool) -> Result<()> {
    let mut text = String::new();
    let mut risen = Vec::new();
    for (name, program) in ours {
        println!("{name}: user instructions per request, {CONNECTIONS} connections");
        for (exchange, count, tolerance) in EXCHANGES {
            let counted = per_request(program, origin, exchange, count)?;
            let recorded = recorded(exchange)?;
            let change = recorded.map_or_else(String::new, |recorded| {
                format!(" ({:+.1} %)", (counted / recorded - 1.0) * 100.0)
            });
            println!("{exchange:<12}{counted:>10.0}{change}");
            text.push_str(&format!("{exchange} {counted:.0}\n"));
            if recorded.is_some_and(|recorded| counted > recorded * (1.0 + tolerance)) {
                risen.push(exchange);
            }
        }
    }
    if record {
        fs::write(file(), text)?;
        return Ok(());
    }
    ensure!(
        risen.is_empty(),
        "more instructions than recorded for {}: find out why, or accept them with --record",
        risen.join(", ")
    );
    Ok(())
}

fn per_request(program: &Path, origin: &Origin, exchange: &str, count: usize) -> Result<f64> {
    let few = total(program, origin, exchange, count / 4)?;
    let many = total(program, origin, exchange, count / 4 + count)?;
    Ok((many - few) / count as f64)
}

/// Instructions of a balancer from its start to its end, with so many requests.
fn total(program: &Path, origin: &Origin, exchange: &str, count: usize) -> Result<f64> {
    let files = tempfile::tempdir()?;
    let (log, out) = (files.path().join("log"), files.path().join("out"));
    let mut command = Command::new(valgrind()?);
    command
        .arg("--tool=callgrind")
        .arg(format!("--log-file={}", log.display()))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program);
    let mut balancer = Contender::balancer("ours", program, &mut command, origin, 1)?;
    Load::new(exchange, CONNECTIONS)?.run_count(balancer.address, count)?;
    if let Some(process) = &mut balancer.process {
        process.terminate()?;
    }
    let log = fs::read_to_string(log)?;
    let line = log.lines().find_map(|line| line.split_once("Collected :"));
    let (_, number) = line.with_context(|| format!("valgrind has counted nothing: {log}"))?;
    number.trim().parse().context("valgrind's count")
}

fn recorded(exchange: &str) -> Result<Option<f64>> {
    let text = fs::read_to_string(file()).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let number = lines.find(|(name, _)| *name == exchange);
    number
        .map(|(_, number)| number.parse().context("a recorded number"))
        .transpose()
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}
