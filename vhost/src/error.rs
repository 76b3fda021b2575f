//! What can go wrong, one variant per step.

use std::{io, net::Ipv4Addr, path::PathBuf};

/// Why a virtual host or its network could not be made, reached or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller is not root.
    #[error("virtual hosts need root: run it as root, for example with sudo")]
    NotRoot,
    /// A program of the system is missing.
    #[error("the program {tool} is not installed: install the package {package}")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// This crate's own program is missing.
    #[error("{} is missing: build it with `cargo build -p tucano_vhost`", .path.display())]
    MissingProgram {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A name that cannot be part of a host name and of a cgroup's.
    #[error("{0:?} cannot be a name here: use 1 to 40 lower-case letters, digits and '-'")]
    InvalidName(String),
    /// A subnet that cannot be used.
    #[error("{0:?} is not a usable subnet: write for example 10.99.0.0/24")]
    InvalidSubnet(String),
    /// A host's address lies outside of the network, or is taken.
    #[error("{ip} cannot be the address of {name}: {reason}")]
    InvalidAddress {
        /// The host.
        name: String,
        /// Its address.
        ip: Ipv4Addr,
        /// Why not.
        reason: &'static str,
    },
    /// A host of that name is up.
    #[error("the host {0} is up already")]
    AlreadyUp(String),
    /// No host of that name is up.
    #[error("the host {0} is not up")]
    NotUp(String),
    /// A directory below `/run`, which each host has for itself.
    #[error("{} cannot be used: virtual hosts do not see the machine's /run", .0.display())]
    Hidden(PathBuf),
    /// The directory belongs to a network that lives.
    #[error("{} is in use by another running cluster: stop that one, or choose another directory", .0.display())]
    InUse(PathBuf),
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The switch or a host did not come up.
    #[error("{what} did not come up: {reason}")]
    NotReady {
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
    /// A program of the system answered with an error.
    #[error("`{command}` failed: {output}")]
    Command {
        /// Its command line.
        command: String,
        /// What it said.
        output: String,
    },
    /// A namespace could not be entered.
    #[error("cannot enter the network namespace of process {pid}: {source}")]
    Namespace {
        /// The process that holds it.
        pid: i32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A process could not be killed.
    #[error("cannot end process {pid}: {source}")]
    Kill {
        /// The process.
        pid: i32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: a file's error with what was to be done.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
