//! How a container's process relates to who starts it: whose streams it has, when it goes on, and with whom it ends.

use std::os::fd::OwnedFd;

use crate::{
    channel::{Failure, Step},
    hooks::{Hooks, State},
    listener::Listener,
};

/// Where its standard streams lead.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// Nothing to read; outputs to these.
    Outputs { stdout: OwnedFd, stderr: OwnedFd },
    /// These three.
    Given([OwnedFd; 3]),
    /// A new terminal of the container's, whose other end is sent over this socket.
    Terminal { console: OwnedFd },
}

/// How it is started.
#[derive(Debug)]
pub(crate) struct Manner {
    pub(crate) stdio: Stdio,
    /// Killed when its starter ends.
    pub(crate) dies_with_starter: bool,
    /// Whether Landlock confines it, where the kernel has that.
    pub(crate) landlock: bool,
    /// How many descriptors from 3 on it is to have.
    pub(crate) preserved: u32,
    /// Whether it leaves its starter's session keyring.
    pub(crate) own_keyring: bool,
    /// Whether its root is entered by `pivot_root`.
    pub(crate) pivots: bool,
    /// Where it waits to be started once it is ready; at once where absent.
    pub(crate) start: Option<Listener>,
    /// What else is to be run on its way.
    pub(crate) hooks: Hooks,
    /// What hooks are told of the container.
    pub(crate) state: State,
}

impl Manner {
    /// That of a container whose starter stays with it.
    pub(crate) fn supervised(stdio: Stdio) -> Self {
        Self {
            stdio,
            dies_with_starter: true,
            landlock: true,
            preserved: 0,
            own_keyring: true,
            pivots: true,
            start: None,
            hooks: Hooks::default(),
            state: State::default(),
        }
    }

    /// The state as it is inside of the container's namespaces, where it has another number.
    pub(crate) fn seen_inside(&self) -> State {
        let mut state = self.state.clone();
        state.set_pid(Some(rustix::process::getpid().as_raw_nonzero().get()));
        state
    }

    /// Waits until someone starts it, if it has to wait; gives the connection, over which a failure can be told.
    pub(crate) fn wait_for_start(&self) -> Result<Option<crate::channel::Channel>, Failure> {
        let Some(listener) = &self.start else {
            return Ok(None);
        };
        loop {
            let starter = listener.accept().step("start")?;
            // One that died before it said so did not start it.
            if starter.wait_to_go().is_ok() {
                return Ok(Some(starter));
            }
        }
    }
}

/// Copies of this process's own standard streams.
pub(crate) fn own_streams() -> std::io::Result<[OwnedFd; 3]> {
    Ok([
        rustix::stdio::stdin().try_clone_to_owned()?,
        rustix::stdio::stdout().try_clone_to_owned()?,
        rustix::stdio::stderr().try_clone_to_owned()?,
    ])
}

/// The same streams again.
pub(crate) fn copies(streams: &[OwnedFd; 3]) -> std::io::Result<[OwnedFd; 3]> {
    let [stdin, stdout, stderr] = streams;
    Ok([stdin.try_clone()?, stdout.try_clone()?, stderr.try_clone()?])
}
