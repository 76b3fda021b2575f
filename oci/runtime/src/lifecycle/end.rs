//! `kill` and `delete`.

use std::{str::FromStr, time::Duration};

use nix::sys::signal::Signal as Named;
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
    hooks,
};

/// How long a killed process may take to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a signal (`TERM`, `SIGTERM` or `15`) to the container's init process, or to all of its processes.
pub fn kill(store: &Store, id: &str, signal: &str, all: bool) -> Result<(), Error> {
    let signal = parse(signal)?;
    let container = store.find(id)?;
    let alive = matches!(
        container.status(),
        Status::Created | Status::Running | Status::Paused
    );
    if all {
        container.record.cgroup.signal(signal);
        return Ok(());
    }
    if !alive {
        return Err(Error::NotRunning);
    }
    send(&container, signal)
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
    let state = container.state(ContainerState::Stopped);
    let hooks = container.record.spec.hooks().as_ref();
    let poststop = hooks.and_then(|hooks| hooks.poststop().as_ref());
    let failed = hooks::run_all("poststop", poststop, &state);
    Ok(failed.iter().map(Failure::to_string).collect())
}

/// Kills the init process, with which its pid namespace ends, and waits for its exit.
pub(super) fn kill_init(container: &Container) {
    let process = container.record.container;
    let Some(Ok(Some(process))) = process.map(|process| process.open()) else {
        return;
    };
    pidfd_send_signal(&process, Signal::KILL).ok();
    // A frozen v1 process does not even die.
    container.record.cgroup.freeze(false);
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
    let unknown = || Error::Signal(text.to_owned());
    let number = match text.parse::<i32>() {
        Ok(number) => number,
        Err(_) => {
            let upper = text.to_uppercase();
            let name = format!("SIG{}", upper.trim_start_matches("SIG"));
            Named::from_str(&name).map_err(|_| unknown())? as i32
        }
    };
    Signal::from_named_raw(number).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(parse(text).unwrap(), Signal::TERM, "{text}");
        }
        for bad in ["", "SIG", "NOPE", "0", "-1", "99"] {
            assert!(matches!(parse(bad), Err(Error::Signal(_))), "{bad}");
        }
    }
}
