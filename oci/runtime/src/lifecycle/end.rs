//! `kill` and `delete`.

use std::time::Duration;

use oci_spec::runtime::ContainerState;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Signal, pidfd_send_signal},
    time::Timespec,
};

use super::{
    Error,
    store::{Container, Status, Store},
};
use crate::{
    channel::{Failure, Step},
    hooks, signals,
};

/// How long a killed process may take to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks that the container runs, as kill(2) does.
const NO_SIGNAL: &str = "0";

/// Sends a signal (`TERM`, `SIGTERM`, `RTMIN+3` or `15`) to the container's init process, or to all of its processes.
pub fn kill(store: &Store, id: &str, signal: &str, all: bool) -> Result<(), Error> {
    let signal = match signal {
        NO_SIGNAL => None,
        text => Some(parse(text)?),
    };
    let container = store.find(id)?;
    let alive = matches!(
        container.status(),
        Status::Created | Status::Running | Status::Paused
    );
    match signal {
        Some(signal) if all => {
            container.record.cgroup.signal(signal);
            Ok(())
        }
        _ if !alive => Err(Error::NotRunning),
        Some(signal) => send(&container, signal),
        None => Ok(()),
    }
}

/// Deletes a container that has exited, or kills it first with `force`. Returns warnings of its poststop hooks.
pub fn delete(store: &Store, id: &str, force: bool) -> Result<Vec<String>, Error> {
    let container = match store.find(id) {
        Err(Error::Missing(_)) if force => {
            store.remove_reserved(id)?;
            return Ok(Vec::new());
        }
        other => other?,
    };
    match container.status() {
        Status::Stopped => {}
        Status::Created => kill_init(&container),
        _ if force => kill_init(&container),
        status => {
            return Err(Error::Status {
                operation: "delete",
                id: id.to_owned(),
                status,
            });
        }
    }
    remove(&container)
}

/// Deletes a container that has exited.
pub(super) fn remove(container: &Container) -> Result<Vec<String>, Error> {
    container.destroy_cgroup()?;
    container.remove()?;
    Ok(run_poststop(container))
}

/// Runs the poststop hooks; returns warnings of those that failed.
pub(super) fn run_poststop(container: &Container) -> Vec<String> {
    let state = container.state(ContainerState::Stopped);
    let hooks = container.record.spec.hooks().as_ref();
    let poststop = hooks.and_then(|hooks| hooks.poststop().as_ref());
    let failed = hooks::run_all("poststop", poststop, &state);
    failed.iter().map(Failure::to_string).collect()
}

/// Kills the init process, with which its pid namespace ends, and waits for its exit.
pub(super) fn kill_init(container: &Container) {
    let process = container.record.container;
    let Some(Ok(Some(process))) = process.map(|process| process.open()) else {
        return;
    };
    pidfd_send_signal(&process, Signal::KILL).ok();
    // A frozen v1 process does not even die, and one that was moved into another cgroup may be frozen there.
    container.record.cgroup.freeze(false);
    if let Some(process) = container.record.container {
        container.record.cgroup.add(process.pid).ok();
    }
    let timeout = Timespec::try_from(KILL_TIMEOUT).unwrap_or_default();
    let mut wanted = [PollFd::new(&process, PollFlags::IN)];
    poll(&mut wanted, Some(&timeout)).ok();
}

fn send(container: &Container, signal: Signal) -> Result<(), Error> {
    let process = container.record.container.ok_or(Error::NotRunning)?;
    let process = process.open().step("container")?;
    let process = process.ok_or(Error::NotRunning)?;
    match pidfd_send_signal(process, signal) {
        Err(rustix::io::Errno::SRCH) => Err(Error::NotRunning),
        other => Ok(other.step("signal")?),
    }
}

/// Parses a signal name or number, as for [`kill`].
pub fn signal_number(text: &str) -> Result<i32, Error> {
    Ok(parse(text)?.as_raw())
}

fn parse(text: &str) -> Result<Signal, Error> {
    signals::parse(text).ok_or_else(|| Error::Signal(text.to_owned()))
}
