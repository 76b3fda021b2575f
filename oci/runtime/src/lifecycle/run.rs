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
    create::{Create, begin, warnings},
    end,
    relay::Relay,
    store::Store,
};
use crate::channel::Step;

/// Exit code of a process that a signal ended: this plus its number.
const SIGNALLED: i32 = 128;

/// How a container ended that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; 128 and more where a signal ended it.
    pub code: i32,
    /// What its poststop hooks failed with.
    pub warnings: Vec<String>,
}

/// Runs a container. Detached, it is left running, and the code is 0. Else this process passes on the signals that it gets, and
/// removes the container when it has ended, unless `keep`.
pub fn run(store: &Store, wanted: &Create, detach: bool, keep: bool) -> Result<Ended, Error> {
    let mut ended = Ended {
        code: 0,
        warnings: Vec::new(),
    };
    // Before there is a container: no signal shall end this process and leave it alone.
    let signals = if detach { None } else { Some(block()?) };
    // This process ends soon after, and until then nothing of it is given back piece by piece.
    let mut begun = ManuallyDrop::new(begin(store, wanted, false)?);
    ended.warnings = warnings(&begun.container);
    if let Err(error) = after_start(&begun.container) {
        drop(end::remove(&begun.container));
        return Err(error);
    }
    if let Some(signals) = signals {
        let relay = begun.terminal.take().map(Relay::begin).transpose()?;
        ended.code = wait_for(&begun.process, &signals, relay)?;
        if !keep {
            ended.warnings.extend(end::remove(&begun.container)?);
        }
    }
    Ok(ended)
}

pub(super) fn block() -> Result<SignalFd, Error> {
    const STEP: &str = "signals";
    let mut wanted = SigSet::all();
    // Of our own doing: a fault of this program, a child's end.
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

/// Waits for a child's end, passing on signals and what its terminal says and is told; gives its exit code.
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
        wanted.extend(relay.iter().flat_map(Relay::wanted));
        match poll(&mut wanted, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.step("waiting")?,
        };
        let ended = !wanted[0].revents().is_empty();
        while let Ok(Some(signal)) = signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            let signal = Signal::from_named_raw(number);
            match (signal, &relay) {
                (Some(Signal::WINCH), Some(relay)) => relay.resize(),
                // It may have ended meanwhile.
                (Some(signal), _) => drop(pidfd_send_signal(process, signal)),
                (None, _) => {}
            }
        }
        if let Some(relay) = &mut relay {
            relay.pass_on().step("terminal")?;
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
