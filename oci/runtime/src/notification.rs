//! Seccomp notifications: the descriptor that tells of them goes to the agent that answers them, over the socket that the
//! specification names (OCI runtime specification, "The Container Process State").

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

/// Takes the descriptor of this number from a container's process, which waits meanwhile, and sends it with the process's
/// state (whose number the state holds).
pub(crate) fn hand_over(
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
    let mut told = ContainerProcessState::default();
    told.set_version(spec.version().clone())
        .set_fds(vec![SECCOMP_FD_NAME.to_owned()])
        .set_pid(state.pid().unwrap_or_default())
        .set_metadata(seccomp.listener_metadata().clone())
        .set_state(state.clone());
    let text = serde_json::to_vec(&told).step(STEP)?;
    UnixStream::connect(path)
        .and_then(|agent| send(&agent, &text, &listener))
        .map_err(|error| format!("{}: {error}", path.display()))
        .step(STEP)
}

fn send(agent: &UnixStream, text: &[u8], listener: &OwnedFd) -> io::Result<()> {
    let sent = send_descriptors(agent, text, &[listener.as_fd()])?;
    // The descriptor came with the first byte; a long annotation may not have fitted.
    io::Write::write_all(&mut &*agent, &text[sent..])
}
