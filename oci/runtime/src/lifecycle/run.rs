//! `run`: create, start, wait and delete in one.

use std::{
    mem::ManuallyDrop,
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::{
    signal::{SigSet, Signal as Named},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};

use super::{
    Error, after_start,
    create::{Create, close_descriptors, create_container},
    end,
    relay::Relay,
    store::Store,
};
use crate::{channel::Step, signals};

/// Offset of the exit code of a process that a signal killed.
const SIGNALLED: i32 = 128;

/// Outcome of a container that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; 128 plus the signal number if a signal killed it.
    pub code: i32,
    /// Failures of poststop hooks, and other warnings.
    pub warnings: Vec<String>,
}

/// Runs a container. Detached, it keeps running and the code is 0. Otherwise this process forwards signals to it and
/// deletes it after its exit, unless `keep`.
pub fn run(store: &Store, wanted: &Create, detach: bool, keep: bool) -> Result<Ended, Error> {
    let mut ended = Ended {
        code: 0,
        warnings: Vec::new(),
    };
    close_descriptors(wanted.preserve_fds)?;
    // Block signals before the container exists, so that none kills this process and leaves the container behind.
    let signals = if detach { None } else { Some(block()?) };
    // This process exits soon; dropping the values one by one would delay it.
    let mut created = ManuallyDrop::new(create_container(store, wanted, false)?);
    ended.warnings = std::mem::take(&mut created.warnings);
    after_start(&created.container)?;
    if let Some(signals) = signals {
        let relay = created.terminal.take().map(Relay::begin).transpose()?;
        ended.code = wait_for(&created.process, &signals, relay)?;
        if !keep {
            ended.warnings.extend(end::remove(&created.container)?);
        }
    }
    Ok(ended)
}

pub(super) fn block() -> Result<SignalFd, Error> {
    const STEP: &str = "signals";
    let mut wanted = SigSet::all();
    // Raised by faults of this program and by its children.
    for own in [
        Named::SIGCHLD,
        Named::SIGSEGV,
        Named::SIGBUS,
        Named::SIGILL,
        Named::SIGFPE,
    ] {
        wanted.remove(own);
    }
    wanted.thread_block().step(STEP)?;
    Ok(SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).step(STEP)?)
}

/// Waits for a child's exit, forwarding signals and relaying its terminal. Returns the exit code.
pub(super) fn wait_for(
    process: &OwnedFd,
    signals: &SignalFd,
    mut relay: Option<Relay>,
) -> Result<i32, Error> {
    loop {
        let mut wanted = vec![
            PollFd::new(process, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        wanted.extend(relay.iter().flat_map(Relay::poll_fds));
        match poll(&mut wanted, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.step("waiting")?,
        };
        let ended = !wanted[0].revents().is_empty();
        while let Ok(Some(signal)) = signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            let signal = signals::from_number(number);
            match (signal, &relay) {
                (Some(Signal::WINCH), Some(relay)) => relay.resize(),
                // The child may have exited meanwhile.
                (Some(signal), _) => drop(pidfd_send_signal(process, signal)),
                (None, _) => {}
            }
        }
        if let Some(relay) = &mut relay {
            relay.relay().step("terminal")?;
        }
        if ended {
            let status = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
            return Ok(status.step("waiting")?.map_or(0, |status| {
                let signal = status.terminating_signal().map(|number| SIGNALLED + number);
                status.exit_status().or(signal).unwrap_or_default()
            }));
        }
    }
}
