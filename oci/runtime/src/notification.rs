//! Seccomp notifications: sends the notification descriptor to the agent that answers them, over the specification's
//! listenerPath (OCI runtime specification, "The Container Process State").

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use oci_spec::runtime::{ContainerProcessState, SECCOMP_FD_NAME, Spec, State};
use rustix::process::{ForeignRawFd, PidfdGetfdFlags, pidfd_getfd};

use crate::channel::{Failure, Step, send_descriptors};

/// Takes the notification descriptor from a container's process, which waits meanwhile, and sends it with the
/// process's state.
pub(crate) fn send_listener(
    spec: &Spec,
    state: &State,
    process: &OwnedFd,
    number: ForeignRawFd,
) -> Result<(), Failure> {
    const STEP: &str = "seccomp notification";
    let seccomp = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    let seccomp = seccomp.ok_or("there is no seccomp section").step(STEP)?;
    let path = seccomp.listener_path().as_deref();
    let path = path.ok_or("there is no listenerPath").step(STEP)?;
    let listener = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).step(STEP)?;
    let mut process_state = ContainerProcessState::default();
    process_state
        .set_version(spec.version().clone())
        .set_fds(vec![SECCOMP_FD_NAME.to_owned()])
        .set_pid(state.pid().unwrap_or_default())
        .set_metadata(seccomp.listener_metadata().clone())
        .set_state(state.clone());
    let text = serde_json::to_vec(&process_state).step(STEP)?;
    UnixStream::connect(path)
        .and_then(|agent| send(&agent, &text, &listener))
        .map_err(|error| format!("{}: {error}", path.display()))
        .step(STEP)
}

fn send(agent: &UnixStream, text: &[u8], listener: &OwnedFd) -> io::Result<()> {
    let sent = send_descriptors(agent, text, &[listener.as_fd()])?;
    // The descriptor goes with the first byte; long annotations may need further writes.
    io::Write::write_all(&mut &*agent, &text[sent..])
}
