//! A virtual host.

use std::{ffi::OsStr, net::Ipv4Addr, path::PathBuf, process::Command, sync::Arc};

use crate::{Error, network::Inner};

/// Options of [`Network::boot`](crate::Network::boot).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// Host name: lower-case letters, digits, '-'.
    pub name: String,
    /// Address in the network's subnet.
    pub ip: Ipv4Addr,
}

impl HostOptions {
    /// Options for a host of this name and address.
    pub fn new(name: impl Into<String>, ip: Ipv4Addr) -> Self {
        Self {
            name: name.into(),
            ip,
        }
    }
}

/// A handle to a booted host, which runs until its power is cut or its network is destroyed. Clones refer to the same host.
#[derive(Debug, Clone)]
pub struct Host {
    network: Arc<Inner>,
    name: String,
    ip: Ipv4Addr,
}

impl Host {
    pub(crate) fn new(network: Arc<Inner>, name: String, ip: Ipv4Addr) -> Self {
        Self { network, name, ip }
    }

    /// The host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The host's directory, which survives power cuts. Its path is the same inside and outside.
    pub fn directory(&self) -> PathBuf {
        self.network.host_directory(&self.name)
    }

    /// The parent for cgroups of programs on this host, relative to the caller's own cgroup. It is removed when the host's power
    /// is cut.
    pub fn cgroup(&self) -> String {
        self.network.cgroup_of(&self.name)
    }

    /// The pid of its init in the caller's pid namespace.
    ///
    /// # Errors
    /// The host is not running.
    pub fn pid(&self) -> Result<i32, Error> {
        self.network.pid_of(&self.name)
    }

    /// Whether its init is alive.
    pub fn is_up(&self) -> bool {
        self.network.is_up(&self.name)
    }

    /// A command that runs `program` on this host, in the caller's working directory and cgroup. Signals to the child are forwarded
    /// to the program, SIGKILL kills both, and the exit status is the program's.
    ///
    /// # Errors
    /// The host is not running.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command, Error> {
        self.network.host_command(&self.name, program)
    }

    /// Disconnects it from the switch. Everything on it keeps running.
    ///
    /// # Errors
    /// The host is not running, or ip(8) failed.
    pub fn isolate(&self) -> Result<(), Error> {
        self.network.set_link(&self.name, false)
    }

    /// Connects it to the switch again.
    ///
    /// # Errors
    /// The host is not running, or ip(8) failed.
    pub fn rejoin(&self) -> Result<(), Error> {
        self.network.set_link(&self.name, true)
    }

    /// Cuts its power: kills every process on it. On return they have ended and their cgroups are removed.
    ///
    /// # Errors
    /// The host is not running, or a process or cgroup cannot be removed.
    pub fn power_off(&self) -> Result<(), Error> {
        self.network.power_off(&self.name)
    }
}
