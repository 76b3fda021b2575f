//! Errors, one variant per failed step.

use std::{io, net::Ipv4Addr, path::PathBuf};

/// Why a virtual host or its network could not be created, reached or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller is not root.
    #[error("virtual hosts need root: run this command as root, for example with sudo")]
    NotRoot,
    /// A program of the system is missing.
    #[error("the program {tool} is not installed: install the package {package}")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The program of this crate is missing.
    #[error("{} is missing: build it with `cargo build -p tucano_vhost`", .path.display())]
    MissingProgram {
        /// Its expected path.
        path: PathBuf,
    },
    /// A name that is not valid in a host name or a cgroup's name.
    #[error("{0:?} is not a valid name: use 1 to 40 lower-case letters, digits and '-'")]
    InvalidName(String),
    /// An invalid subnet.
    #[error("{0:?} is not a valid subnet: write for example 10.99.0.0/24")]
    InvalidSubnet(String),
    /// A host's address is outside of the network, or in use.
    #[error("{ip} cannot be the address of {name}: {reason}")]
    InvalidAddress {
        /// The host.
        name: String,
        /// Its address.
        ip: Ipv4Addr,
        /// The cause.
        reason: &'static str,
    },
    /// A host of that name is running.
    #[error("the host {0} is already running")]
    AlreadyUp(String),
    /// No host of that name is running.
    #[error("the host {0} is not running")]
    NotUp(String),
    /// A directory below `/run`, which each host replaces by its own.
    #[error("{} cannot be used: virtual hosts do not see the machine's /run", .0.display())]
    Hidden(PathBuf),
    /// The directory belongs to a running network.
    #[error("{} is in use by another running cluster: stop that one, or choose another directory", .0.display())]
    InUse(PathBuf),
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The switch or a host did not start.
    #[error("{what} did not start: {reason}")]
    NotReady {
        /// The switch or the host.
        what: String,
        /// The cause.
        reason: String,
    },
    /// A program of the system failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// Its command line.
        command: String,
        /// Its error message.
        output: String,
    },
    /// A namespace could not be entered.
    #[error("cannot enter the network namespace of process {pid}: {source}")]
    Namespace {
        /// A process in the namespace.
        pid: i32,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A process could not be killed.
    #[error("cannot kill process {pid}: {source}")]
    Kill {
        /// The process.
        pid: i32,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Builds [`Error::File`], for `map_err`.
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
