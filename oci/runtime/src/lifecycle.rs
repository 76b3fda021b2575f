//! Container operations of the OCI runtime specification: create from a bundle, start, kill, delete. No process of
//! this runtime stays with a container. ([`crate::supervisor`] is the other way to run one.)

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
    channel::{Failure, Step},
    container::message::FromContainer,
    hooks, listener, notification, state_dir, systemd,
};

use oci_spec::runtime::ContainerState;

/// Why an operation failed. Its partial effects have been undone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An invalid id.
    #[error("invalid container ID format {0:?}: letters, digits, `_`, `+`, `-` and `.`")]
    BadId(String),
    /// A container of this id exists.
    #[error("container with id exists: {0}")]
    Exists(String),
    /// No container of this id exists.
    #[error("container {0:?} does not exist")]
    Missing(String),
    /// The container's status does not allow the operation.
    #[error("cannot {operation} the container {id:?}: it is {status}")]
    Status {
        /// The operation.
        operation: &'static str,
        /// The container.
        id: String,
        /// The container's status.
        status: Status,
    },
    /// The container does not run.
    #[error("container not running")]
    NotRunning,
    /// A state directory.
    #[error("the state directory {path}: {source}")]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of a state directory.
    #[error(transparent)]
    StateDir(#[from] state_dir::Error),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The systemd unit of the cgroup.
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    /// The configuration has no process.
    #[error(
        "the container {0:?} cannot be started: its config.json had no `process` when it was created"
    )]
    NoProcess(String),
    /// Contradicting options about streams or terminals.
    #[error("{0}")]
    Terminal(&'static str),
    /// Unknown signal.
    #[error("unknown signal {0:?}")]
    Signal(String),
    /// A step failed.
    #[error("{step}: {message}")]
    Step {
        /// The step, such as "cgroup", "mounting proc on /proc", "program".
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

/// Starts the program of a created container.
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
    // Of two concurrent starts, only one can remove the socket.
    if listener::remove(&container.directory).is_err() {
        return Err(refused);
    }
    waiting.proceed().step("container")?;
    loop {
        match waiting.receive().step("container")? {
            Some(FromContainer::Failed(failure)) if hooks::is_hook(&failure) => {
                return Err(remove_after(&container, failure));
            }
            Some(FromContainer::Failed(failure)) => return Err(failure.into()),
            Some(FromContainer::Listener(number)) => {
                send_listener(&container, number)?;
                waiting.proceed().step("container")?;
            }
            _ => return after_start(&container),
        }
    }
}

fn send_listener(container: &Container, number: i32) -> Result<(), Error> {
    let process = container.record.container.ok_or(Error::NotRunning)?;
    let process = process.open().step("container")?.ok_or(Error::NotRunning)?;
    let state = container.state(ContainerState::Created);
    notification::send_listener(&container.record.spec, &state, &process, number).map_err(
        |failure| {
            // The process is blocked until the agent answers.
            end::kill_init(container);
            failure.into()
        },
    )
}

/// Runs the poststart hooks. If one fails, the container is stopped and deleted.
fn after_start(container: &Container) -> Result<(), Error> {
    let Some(hooks) = container.record.spec.hooks() else {
        return Ok(());
    };
    let state = container.state(ContainerState::Running);
    hooks::run("poststart", hooks.poststart().as_ref(), &state)
        .map_err(|failure| remove_after(container, failure))
}

/// Deletes a container of which a hook failed, with its poststop hooks (runtime.md, "Lifecycle").
fn remove_after(container: &Container, failure: Failure) -> Error {
    end::kill_init(container);
    // Report the original failure, not one of the clean-up.
    drop(end::remove(container));
    failure.into()
}

/// Pauses a running container, or resumes a paused one.
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

/// Pids of a container's processes.
pub fn processes(store: &Store, id: &str) -> Result<Vec<i32>, Error> {
    Ok(store.find(id)?.record.cgroup.processes())
}

/// Counters of a container's cgroup.
pub fn stats(store: &Store, id: &str) -> Result<cgroup::Stats, Error> {
    let container = store.find(id)?;
    match container.status() {
        Status::Stopped => Err(Error::NotRunning),
        _ => Ok(container.record.cgroup.stats()?),
    }
}
