//! What every crate's tests share: honest skips, and waiting for conditions instead of sleeping.
//!
//! A test that needs something of the machine begins with
//! `if !tucano_testkit::needs(&[ROOT, tool("umoci")]) { return; }`. What is missing is printed; where
//! `TUCANO_TESTS_MUST_RUN` is set, as `cargo xtask test` does, the test fails instead.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Something that a test needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To run as root.
    Root,
    /// A program on the PATH.
    Tool(&'static str),
    /// A path that exists, such as a kernel's file.
    Exists(&'static str),
}

/// Where this is set, as `cargo xtask check` does, tests that need root skip themselves even for root.
const UNPRIVILEGED: &str = "TUCANO_TESTS_UNPRIVILEGED";

/// To run as root.
pub const ROOT: Need = Need::Root;

/// A program on the PATH.
pub const fn tool(name: &'static str) -> Need {
    Need::Tool(name)
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Root => {
                rustix::process::geteuid().is_root() && env::var_os(UNPRIVILEGED).is_none()
            }
            Self::Tool(name) => find_tool(name).is_some(),
            Self::Exists(path) => Path::new(path).exists(),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Tool(name) => write!(f, "the program {name}"),
            Self::Exists(path) => f.write_str(path),
        }
    }
}

/// Whether the machine has all of it; says what is missing otherwise.
///
/// # Panics
/// If something is missing and `TUCANO_TESTS_MUST_RUN` is set.
pub fn needs(all: &[Need]) -> bool {
    let missing: Vec<String> = all
        .iter()
        .filter(|need| !need.is_met())
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        return true;
    }
    let message = format!("SKIPPED: this test needs {}", missing.join(", "));
    assert!(env::var_os("TUCANO_TESTS_MUST_RUN").is_none(), "{message}");
    eprintln!("{message}");
    false
}

/// Where a program of the PATH (or of the system's usual directories) is.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// Calls `condition` until it gives a value, at most for `patience`.
///
/// # Panics
/// If it never does, naming `what` was waited for.
pub fn wait_for<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited {patience:?} in vain for {what}"
        );
        pause();
    }
}

/// Calls `condition` until it is true, at most for `patience`.
///
/// # Panics
/// If it never is, naming `what` was waited for.
pub fn wait_until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, patience, || condition().then_some(()));
}

/// Directory of the workspace's built programs (`target/debug`), found from the running test's own path.
///
/// # Panics
/// If the test was not started from cargo's target directory.
pub fn programs() -> PathBuf {
    let test = env::current_exe().expect("the test knows its own path");
    let mut directory = test
        .parent()
        .expect("a program is in a directory")
        .to_owned();
    if directory.ends_with("deps") {
        directory.pop();
    }
    directory
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that paces the polling of conditions"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_reported() {
        assert!(!Need::Tool("no-such-program").is_met());
        assert!(Need::Tool("sh").is_met());
    }

    #[test]
    #[should_panic(expected = "in vain for the moon")]
    fn waiting_ends() {
        wait_until("the moon", Duration::from_millis(30), || false);
    }
}
