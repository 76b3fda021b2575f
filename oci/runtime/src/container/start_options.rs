//! Options of a container start: standard streams, when the program runs, and its ties to the starter.

use std::os::fd::OwnedFd;

use crate::{
    channel::{Failure, Step},
    hooks::{Hooks, State},
    listener::Listener,
};

/// The standard streams of a container.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// No input; outputs to these pipes.
    Outputs { stdout: OwnedFd, stderr: OwnedFd },
    /// These three descriptors.
    Streams([OwnedFd; 3]),
    /// A new terminal in the container; its master is sent over this socket.
    Terminal {
        console: OwnedFd,
        /// Whether this process relays it to its own terminal, which adds carriage returns itself.
        relayed: bool,
    },
}

/// Options of a container start.
#[derive(Debug)]
pub(crate) struct StartOptions {
    pub(crate) stdio: Stdio,
    /// Kill the container when its starter exits.
    pub(crate) dies_with_parent: bool,
    /// Apply Landlock, where the kernel supports it.
    pub(crate) landlock: bool,
    /// Number of descriptors, from 3 on, to pass on.
    pub(crate) preserve_fds: u32,
    /// Lift the caller's CPU affinity.
    pub(crate) reset_affinity: bool,
    /// Leave the starter's session keyring.
    pub(crate) own_keyring: bool,
    /// Enter the root by `pivot_root`.
    pub(crate) pivot_root: bool,
    /// Socket on which the container waits for `start`; it runs at once if absent.
    pub(crate) start_socket: Option<Listener>,
    /// Run the program below an init, which reports the program's end to this pipe.
    pub(crate) init: Option<OwnedFd>,
    /// Hooks of the specification.
    pub(crate) hooks: Hooks,
    /// State that is passed to hooks.
    pub(crate) state: State,
}

impl StartOptions {
    /// Options for a container whose starter stays as its supervisor.
    pub(crate) fn supervised(stdio: Stdio) -> Self {
        Self {
            stdio,
            dies_with_parent: true,
            landlock: true,
            preserve_fds: 0,
            reset_affinity: false,
            own_keyring: true,
            pivot_root: true,
            start_socket: None,
            init: None,
            hooks: Hooks::default(),
            state: State::default(),
        }
    }

    /// The state as seen from the container's pid namespace.
    pub(crate) fn state_inside(&self) -> State {
        let mut state = self.state.clone();
        state.set_pid(Some(rustix::process::getpid().as_raw_nonzero().get()));
        state
    }

    /// Waits for `start`, if the container has to. Returns the connection, over which a failure can be reported.
    pub(crate) fn wait_for_start(&self) -> Result<Option<crate::channel::Channel>, Failure> {
        let Some(listener) = &self.start_socket else {
            return Ok(None);
        };
        loop {
            let starter = listener.accept().step("start")?;
            // A starter that died before its message did not start the container.
            if starter.wait_for_proceed().is_ok() {
                return Ok(Some(starter));
            }
        }
    }
}

/// Duplicates this process's standard streams.
pub(crate) fn duplicate_stdio() -> std::io::Result<[OwnedFd; 3]> {
    Ok([
        rustix::stdio::stdin().try_clone_to_owned()?,
        rustix::stdio::stdout().try_clone_to_owned()?,
        rustix::stdio::stderr().try_clone_to_owned()?,
    ])
}

/// Duplicates these streams.
pub(crate) fn duplicate(streams: &[OwnedFd; 3]) -> std::io::Result<[OwnedFd; 3]> {
    let [stdin, stdout, stderr] = streams;
    Ok([stdin.try_clone()?, stdout.try_clone()?, stderr.try_clone()?])
}
