//! One virtual host.

use std::{ffi::OsStr, net::Ipv4Addr, path::PathBuf, process::Command, sync::Arc};

use crate::{Error, network::Inner};

/// What a host is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// Its host name: lower-case letters, digits, '-'.
    pub name: String,
    /// Its address in the network's subnet.
    pub ip: Ipv4Addr,
}

impl HostOptions {
    /// A host of this name and address.
    pub fn new(name: impl Into<String>, ip: Ipv4Addr) -> Self {
        Self {
            name: name.into(),
            ip,
        }
    }
}

/// A host that was booted; a copy refers to the same host. It lives until its power is cut or its network ends.
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

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Its own directory, which survives power cuts; the path is the same inside and outside.
    pub fn directory(&self) -> PathBuf {
        self.network.host_directory(&self.name)
    }

    /// The cgroup, relative to the caller's own, below which programs on this host are to make theirs: it is removed when the
    /// host's power is cut.
    pub fn cgroup(&self) -> String {
        self.network.cgroup_of(&self.name)
    }

    /// The pid of its init, as the caller numbers it.
    pub fn pid(&self) -> Result<i32, Error> {
        self.network.pid_of(&self.name)
    }

    /// Whether its init lives: someone may have killed it.
    pub fn is_up(&self) -> bool {
        self.network.is_up(&self.name)
    }

    /// A command that runs `program` on this host, in the caller's working directory and cgroup. Signals sent to the
    /// child reach the program; SIGKILL ends both; the exit status is the program's.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command, Error> {
        self.network.in_host(&self.name, program)
    }

    /// Pulls its network cable: nothing reaches it, and it reaches nothing, while everything on it runs on.
    pub fn isolate(&self) -> Result<(), Error> {
        self.network.set_link(&self.name, false)
    }

    /// Plugs it in again.
    pub fn rejoin(&self) -> Result<(), Error> {
        self.network.set_link(&self.name, true)
    }

    /// Cuts its power: every process on it is killed. Returns when they are gone, and their cgroups too.
    pub fn power_off(&self) -> Result<(), Error> {
        self.network.power_off(&self.name)
    }
}
