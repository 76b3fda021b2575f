//! A container that is coming up, as its starter sees it: cloned, set up, ready, executed.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use oci_spec::runtime::Spec;
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};

use crate::{
    cgroup::Cgroup,
    channel::{Channel, Failure, FromContainer, Step},
    container::{
        Prepared, kernel,
        manner::Manner,
        namespaces::{self, Joined},
        user::User,
        userns::UserNamespace,
    },
    exe::Shield,
    launch::Parts,
    sys::{self, Cloned},
};

/// When the container's cgroup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupTime {
    /// Before there is a process, which is then made in it: on v2, where a process is not moved without waiting.
    Before,
    /// While the process sets itself up, which joins it once it needs it.
    Meanwhile,
    /// For the process, which waits for it first of all: systemd wants to be told one.
    After,
}

impl CgroupTime {
    pub(crate) fn of(cgroup: &Cgroup, by_systemd: bool) -> Self {
        match (by_systemd, cgroup.is_unified()) {
            (true, _) => Self::After,
            (false, true) => Self::Before,
            (false, false) => Self::Meanwhile,
        }
    }
}

/// A process in new namespaces that is becoming a container.
pub(crate) struct Birth {
    /// As this process's pid namespace numbers it.
    pub(crate) pid: i32,
    /// Its descriptor.
    pub(crate) process: OwnedFd,
    channel: Channel,
    patience: Duration,
    cgroup_time: CgroupTime,
    /// Whose mount the kernel takes time to give up, which nobody waits for when the container runs.
    _shield: Option<Shield>,
}

impl Birth {
    /// Makes the process, which sets itself up at once; each of its steps may take `patience`. Where the cgroup is still to be
    /// made, it waits to be told by [`Self::tell_of_cgroup`].
    pub(crate) fn give(
        launch: Parts<'_>,
        cgroup: &Cgroup,
        namespace: Option<&UserNamespace>,
        manner: Manner,
        patience: Duration,
        cgroup_time: CgroupTime,
        shield: Option<Shield>,
    ) -> Result<Self, Failure> {
        let (here, there) = Channel::pair().step("channel")?;
        let joined = Joined::open(launch.spec)?;
        let id_maps = UserNamespace::of_mounts(launch.spec)?;
        let host_network = kernel::network_inode().step("network namespace")?;
        let flags = namespaces::clone_flags(launch.spec)?;
        let is_made = cgroup_time == CgroupTime::Before;
        let inside = is_made.then(|| cgroup.open_unified()).flatten();
        // A kernel that cannot make a process in a cgroup (before 5.7, or where that has rules of its own) makes it here.
        let (cloned, is_in_cgroup) = match joined.clone_process(flags, inside.as_ref()) {
            Err(_) if inside.is_some() => (joined.clone_process(flags, None)?, false),
            other => (other?, inside.is_some()),
        };
        match cloned {
            Cloned::Parent(pid, process) => Ok(Self {
                pid,
                process,
                channel: here,
                patience,
                cgroup_time,
                _shield: shield,
            }),
            Cloned::Child => {
                // The starter's end: while it were open here, its death would not be seen.
                drop(here);
                let raised = shield.as_ref().map_or(Ok(()), Shield::raise);
                let prepared = Prepared {
                    launch,
                    cgroup,
                    cgroup_time,
                    is_in_cgroup,
                    joined,
                    id_maps,
                    namespace,
                    manner,
                    channel: &there,
                    host_network,
                };
                let failure = match raised.step("program") {
                    Ok(()) => prepared.run(),
                    Err(failure) => failure,
                };
                drop(there.send(&FromContainer::Failed(failure)));
                std::process::exit(1)
            }
        }
    }

    /// Tells it that its cgroup is made.
    pub(crate) fn tell_of_cgroup(&self) {
        if self.cgroup_time != CgroupTime::Before {
            self.go_on();
        }
    }

    /// Lets it set itself up until its devices are made, and forbids it to make others. `furnished` is called (with its pid) while
    /// its root file system is complete but not yet entered, if its specification has hooks for that moment.
    pub(crate) fn wait_until_equipped(
        &self,
        cgroup: &Cgroup,
        spec: &Spec,
        furnished: &dyn Fn(i32) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            match self.next()? {
                Some(FromContainer::Furnished) => {
                    furnished(self.pid)?;
                    self.go_on();
                }
                Some(FromContainer::Equipped) => {
                    let linux = spec.linux().as_ref();
                    let limits = linux.and_then(|linux| linux.resources().as_ref());
                    return cgroup.restrict_devices(limits).step("cgroup");
                }
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// Waits until nothing is left to do for it but to give up what its program shall not have.
    pub(crate) fn wait_until_ready(&self) -> Result<User, Failure> {
        match self.next()? {
            Some(FromContainer::Ready(user)) => Ok(user),
            other => Err(self.unexpected(other)),
        }
    }

    /// Lets it go on, once it waits for that. One that has failed by then has said why.
    pub(crate) fn go_on(&self) {
        self.channel.go().ok();
    }

    /// Waits until it is the program or waits for its start, when it is ready and may go on. Executing the program closes the channel. `listener` is called with
    /// the number of the descriptor that tells of seccomp notifications, if there is one.
    pub(crate) fn wait_until_executed(
        &self,
        listener: &dyn Fn(i32) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            match self.next()? {
                Some(FromContainer::Listener(number)) => {
                    listener(number)?;
                    self.go_on();
                }
                Some(FromContainer::Waiting) => return Ok(()),
                // A program that has ended already was executed; one that was killed on the way was not, and both say nothing.
                None => return Ok(()),
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// What it failed with, or that this is not what is said now.
    fn unexpected(&self, said: Option<FromContainer>) -> Failure {
        match said {
            Some(FromContainer::Failed(failure)) => failure,
            Some(other) => Failure::new("container", &format!("it says out of turn: {other:?}")),
            None => Failure::new("container", &self.silent_end()),
        }
    }

    /// Ends it, whatever it is doing.
    pub(crate) fn abort(&self) {
        sys::end_child(&self.process).ok();
    }

    fn next(&self) -> Result<Option<FromContainer>, Failure> {
        let deadline = Instant::now() + self.patience;
        let mut wanted = [PollFd::new(&self.channel, PollFlags::IN)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            match poll(&mut wanted, Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => {
                    let message = format!("it was not up after {:?}", self.patience);
                    return Err(Failure::new("container", &message));
                }
                other => {
                    other.step("container")?;
                    return self.channel.receive().step("container");
                }
            }
        }
    }

    fn silent_end(&self) -> String {
        "it was killed while it was set up: is the memory limit too small?".to_owned()
    }
}
