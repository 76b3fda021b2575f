//! Network namespaces, held by descriptors: they end with the program.

use std::{fs::File, process::Command};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// A new one, in which this thread is from now on. Loopback is up.
    pub(crate) fn enter_new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
        ip("link set lo up")?;
        Self::current()
    }

    /// The one of this thread.
    pub(crate) fn current() -> Result<Self> {
        let path = "/proc/thread-self/ns/net";
        Ok(Self(File::open(path).context(path)?))
    }

    /// One that the agent has made.
    pub(crate) fn of(descriptor: std::os::fd::OwnedFd) -> Self {
        Self(descriptor.into())
    }

    /// Moves this thread there.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")
    }
}

/// Runs `ip` with these words, in the namespace of this thread.
pub(crate) fn ip(words: &str) -> Result<()> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.context("cannot run `ip`; install the package iproute2")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip {words}`: {}", text.trim());
    Ok(())
}
