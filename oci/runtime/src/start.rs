//! Starts a container from the starter's side: clones its process and drives it through set-up to `execve`.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use oci_spec::runtime::Spec;
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};

use crate::{
    cgroup::{Cgroup, CgroupTiming},
    channel::{Channel, Failure, Step},
    container::{
        ContainerSetup, kernel,
        message::FromContainer,
        namespaces::{self, Joined},
        net_devices::NetDevices,
        start_options::StartOptions,
        user::User,
        userns::UserNamespace,
    },
    exe::ReadOnlyProgram,
    launch::Parts,
    sys::{self, Cloned},
};

/// A process in new namespaces that is being set up as a container.
pub(crate) struct ContainerStart {
    /// Pid in the pid namespace of this process.
    pub(crate) pid: i32,
    /// Pidfd of the process.
    pub(crate) process: OwnedFd,
    channel: Channel,
    timeout: Duration,
    cgroup_timing: CgroupTiming,
    /// The v2 cgroup that was made for it on a hybrid host.
    hybrid: Option<PathBuf>,
    /// Held until the container runs: the kernel takes a while to unmount it.
    _program: Option<ReadOnlyProgram>,
}

impl ContainerStart {
    /// Clones the process, which begins to set itself up at once. Each of its steps may take `timeout`. Unless the
    /// cgroup exists already, the process waits for [`Self::signal_cgroup_ready`].
    pub(crate) fn spawn(
        launch: Parts<'_>,
        cgroup: &Cgroup,
        namespace: Option<&UserNamespace>,
        options: StartOptions,
        timeout: Duration,
        cgroup_timing: CgroupTiming,
        program: Option<ReadOnlyProgram>,
    ) -> Result<Self, Failure> {
        let (here, there) = Channel::pair().step("channel")?;
        let joined = Joined::open(launch.spec)?;
        let id_maps = UserNamespace::of_mounts(launch.spec)?;
        let host_network = kernel::network_inode().step("network namespace")?;
        let net_devices = NetDevices::open(launch.spec)?;
        let flags = namespaces::clone_flags(launch.spec)?;
        // A scope's place does not exist yet.
        let has_place = cgroup_timing != CgroupTiming::After;
        let target = has_place.then(|| cgroup.open_unified()).flatten();
        let hybrid = target.as_ref().and_then(|_| cgroup.hybrid());
        // Kernels before 5.7, and containers with a systemd scope, cannot clone into a cgroup.
        let (cloned, is_in_cgroup) = match joined.clone_process(flags, target.as_ref()) {
            Err(_) if target.is_some() => {
                let cloned = joined.clone_process(flags, None);
                (cloned.inspect_err(|_| remove(hybrid))?, false)
            }
            // On a hybrid host, v1's cgroups are still to be joined.
            other => (other?, target.is_some() && cgroup.is_unified()),
        };
        match cloned {
            Cloned::Parent(pid, process) => Ok(Self {
                pid,
                process,
                channel: here,
                timeout,
                cgroup_timing,
                hybrid: hybrid.map(Path::to_owned),
                _program: program,
            }),
            Cloned::Child => {
                // Close the starter's end: with a copy of it open here, the starter's death would go unnoticed.
                drop(here);
                let switched = program.as_ref().map_or(Ok(()), ReadOnlyProgram::switch);
                let setup = ContainerSetup {
                    launch,
                    cgroup,
                    cgroup_timing,
                    is_in_cgroup,
                    joined,
                    id_maps,
                    namespace,
                    options,
                    channel: &there,
                    host_network,
                    net_devices,
                };
                let failure = match switched.step("program") {
                    Ok(()) => setup.run(),
                    Err(failure) => failure,
                };
                drop(there.send(&FromContainer::Failed(failure)));
                std::process::exit(1)
            }
        }
    }

    /// Notifies the process that its cgroup exists.
    pub(crate) fn signal_cgroup_ready(&self) {
        if self.cgroup_timing != CgroupTiming::Before {
            self.proceed();
        }
    }

    /// Waits until the process has created its devices, then installs the device rules. `root_ready` is called with
    /// its pid while its root file system is complete but not yet entered, if the specification has hooks for that
    /// moment.
    pub(crate) fn wait_for_devices(
        &self,
        cgroup: &Cgroup,
        spec: &Spec,
        make_nodes: bool,
        root_ready: &dyn Fn(i32) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            match self.receive()? {
                Some(FromContainer::RootReady) => {
                    root_ready(self.pid)?;
                    self.proceed();
                }
                Some(FromContainer::DevicesReady) => {
                    let linux = spec.linux().as_ref();
                    let limits = linux.and_then(|linux| linux.resources().as_ref());
                    return cgroup.restrict_devices(limits, make_nodes).step("cgroup");
                }
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// Waits until the process has only its privileges left to drop.
    pub(crate) fn wait_until_ready(&self) -> Result<User, Failure> {
        match self.receive()? {
            Some(FromContainer::Ready(user)) => Ok(user),
            other => Err(self.unexpected(other)),
        }
    }

    /// Lets the process continue. An error is ignored: a process that failed has reported why.
    pub(crate) fn proceed(&self) {
        self.channel.proceed().ok();
    }

    /// Waits until the program has been executed, which closes the channel, or until the process waits for `start`.
    /// `listener` is called with the number of the seccomp notification descriptor, if there is one.
    pub(crate) fn wait_until_executed(
        &self,
        listener: &dyn Fn(i32) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            match self.receive()? {
                Some(FromContainer::Listener(number)) => {
                    listener(number)?;
                    self.proceed();
                }
                Some(FromContainer::Waiting) => return Ok(()),
                // The channel also closes when the process is killed just before `execve`; both look the same here.
                None => return Ok(()),
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// The failure that was reported, or an error for an unexpected message.
    fn unexpected(&self, message: Option<FromContainer>) -> Failure {
        match message {
            Some(FromContainer::Failed(failure)) => failure,
            Some(other) => Failure::new("container", &format!("unexpected message: {other:?}")),
            None => Failure::new("container", &self.killed_message()),
        }
    }

    /// Kills the process in whatever state it is.
    pub(crate) fn abort(&self) {
        sys::end_child(&self.process).ok();
        remove(self.hybrid.as_deref());
    }

    fn receive(&self) -> Result<Option<FromContainer>, Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut poll_fds = [PollFd::new(&self.channel, PollFlags::IN)];
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            let remaining = Timespec::try_from(remaining).unwrap_or_default();
            match poll(&mut poll_fds, Some(&remaining)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => {
                    let message = format!("set-up did not finish within {:?}", self.timeout);
                    return Err(Failure::new("container", &message));
                }
                other => {
                    other.step("container")?;
                    return self.channel.receive().step("container");
                }
            }
        }
    }

    fn killed_message(&self) -> String {
        "it was killed during set-up; the memory limit may be too small".to_owned()
    }
}

/// A failure leaves an empty directory, which the next container of this name takes.
fn remove(hybrid: Option<&Path>) {
    if let Some(directory) = hybrid {
        fs::remove_dir(directory).ok();
    }
}
