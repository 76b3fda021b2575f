//! What a pull request is judged by first: formatting, lints and the tests that need neither root nor a program of the system.

use xtask::{
    apt,
    error::Result,
    packages::{Purpose, missing},
    run::{cargo, step},
};

/// Tests that need root skip themselves where this is set, for root too.
const UNPRIVILEGED: &str = "TUCANO_TESTS_UNPRIVILEGED";

pub(crate) fn run() -> Result<()> {
    apt::install(&missing(Purpose::Build))?;
    step(
        "1/3 formatting: cargo fmt --all --check",
        cargo().args(["fmt", "--all", "--check"]),
    )?;
    step(
        "2/3 lints: cargo clippy",
        cargo()
            .args(["clippy", "--workspace", "--all-targets", "--locked"])
            .args(["--", "-D", "warnings"]),
    )?;
    step(
        "3/3 unit tests: cargo test --lib",
        cargo()
            .args(["test", "--workspace", "--lib", "--locked", "--no-fail-fast"])
            .env(UNPRIVILEGED, "1"),
    )
}
