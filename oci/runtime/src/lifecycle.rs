//! Containers by the OCI runtime specification's operations: created from a bundle, started, killed, deleted; nothing of
//! this runtime stays with them. ([`crate::supervisor`] is the other way to have one.)

mod create;
mod end;
mod join;
mod relay;
mod run;
mod store;
mod update;
mod watch;

use std::{io, path::PathBuf};

pub(crate) use self::relay::receive as receive_terminal;
pub use self::{
    create::{Create, create},
    end::{delete, kill, signal_number},
    join::{Exec, exec},
    run::run,
    store::{Container, Status, Store},
    update::{Update, update},
    watch::{Event, watch},
};
use crate::{
    bundle, cgroup,
    channel::{Failure, FromContainer, Step},
    home, hooks, listener, notification, systemd,
};

use oci_spec::runtime::ContainerState;

/// Why an operation failed; what it began is undone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An id that is no file name.
    #[error("invalid container ID format {0:?}: letters, digits, `_`, `+`, `-` and `.`")]
    BadId(String),
    /// There is one already.
    #[error("container with id exists: {0}")]
    Exists(String),
    /// There is none.
    #[error("container {0:?} does not exist")]
    Missing(String),
    /// It does something that does not allow the operation.
    #[error("cannot {operation} the container {id:?}: it is {status}")]
    Status {
        /// What was asked for.
        operation: &'static str,
        /// The container.
        id: String,
        /// What it does.
        status: Status,
    },
    /// Nothing of it runs.
    #[error("container not running")]
    NotRunning,
    /// The state directories.
    #[error("the state directory {path}: {source}")]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the state.
    #[error(transparent)]
    Home(#[from] home::Error),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The unit of its cgroup.
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    /// Its configuration names no program.
    #[error(
        "the container {0:?} cannot be started: its config.json had no `process` when it was created"
    )]
    NoProcess(String),
    /// The streams of the container, as asked for, make no sense.
    #[error("{0}")]
    Terminal(&'static str),
    /// Not a signal.
    #[error("unknown signal {0:?}")]
    Signal(String),
    /// A step failed.
    #[error("{step}: {message}")]
    Step {
        /// Which: such as "cgroup", "mounting proc on /proc", "program".
        step: String,
        /// Why.
        message: String,
    },
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { step, message } = failure;
        Self::Step { step, message }
    }
}

/// Lets the program of a created container run.
pub fn start(store: &Store, id: &str) -> Result<(), Error> {
    let container = store.find(id)?;
    let status = container.status();
    if container.record.spec.process().is_none() {
        return Err(Error::NoProcess(id.to_owned()));
    }
    let refused = Error::Status {
        operation: "start",
        id: id.to_owned(),
        status,
    };
    if status != Status::Created {
        return Err(refused);
    }
    let Ok(waiting) = listener::reach(&container.directory) else {
        return Err(refused);
    };
    // Of two that start it at once, one removes the socket, and the other has none to go on with.
    if listener::remove(&container.directory).is_err() {
        return Err(refused);
    }
    waiting.go().step("container")?;
    loop {
        match waiting.receive().step("container")? {
            Some(FromContainer::Failed(failure)) => return Err(failure.into()),
            Some(FromContainer::Listener(number)) => {
                tell_of_listener(&container, number)?;
                waiting.go().step("container")?;
            }
            _ => return after_start(&container),
        }
    }
}

fn tell_of_listener(container: &Container, number: i32) -> Result<(), Error> {
    let process = container.record.container.ok_or(Error::NotRunning)?;
    let process = process.open().step("container")?.ok_or(Error::NotRunning)?;
    let state = container.state(ContainerState::Created);
    notification::hand_over(&container.record.spec, &state, &process, number).map_err(|failure| {
        // It waits for somebody to answer.
        end::kill_first(container);
        failure.into()
    })
}

/// Runs the poststart hooks. A container of which one fails is stopped.
fn after_start(container: &Container) -> Result<(), Error> {
    let Some(hooks) = container.record.spec.hooks() else {
        return Ok(());
    };
    let state = container.state(ContainerState::Running);
    hooks::run("poststart", hooks.poststart().as_ref(), &state).map_err(|failure| {
        end::kill_first(container);
        failure.into()
    })
}

/// Freezes all processes of a running container, or lets those of a paused one go on.
pub fn pause(store: &Store, id: &str, paused: bool) -> Result<(), Error> {
    let container = store.find(id)?;
    let status = container.status();
    let (needed, operation) = if paused {
        (Status::Running, "pause")
    } else {
        (Status::Paused, "resume")
    };
    if status != needed {
        return Err(Error::Status {
            operation,
            id: id.to_owned(),
            status,
        });
    }
    Ok(container.record.cgroup.set_frozen(paused)?)
}

/// The numbers of a container's processes.
pub fn processes(store: &Store, id: &str) -> Result<Vec<i32>, Error> {
    Ok(store.find(id)?.record.cgroup.processes())
}

/// What a container uses.
pub fn stats(store: &Store, id: &str) -> Result<cgroup::Stats, Error> {
    let container = store.find(id)?;
    match container.status() {
        Status::Stopped => Err(Error::NotRunning),
        _ => Ok(container.record.cgroup.stats()?),
    }
}
