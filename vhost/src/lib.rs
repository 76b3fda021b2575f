//! Virtual hosts: several machines on one kernel. Each has network, mount, pid, uts and ipc namespaces of its own, an
//! address on a switch (a bridge in a private network namespace) and a directory; killing its init is a power cut, after which
//! its namespaces, and all in them, are gone. Used by `tucano dev` and by the end-to-end tests.
//!
//! - [`network`]: the switch, and everything that hangs on it;
//! - [`host`]: one machine: run programs in it, unplug it, cut its power;
//! - [`cgroups`]: the cgroups that agents on virtual hosts leave behind;
//! - the program `tucano_vhost`: holder of the switch's namespace, init of each host, and the way into it.
//!
//! What is deliberately absent: named network namespaces, and anything at all in the caller's own network namespace.
//! Everything hangs on processes, so it vanishes with them, and they read a pipe that closes when their creator dies.
//!
//! A network's directory holds:
//! - `lock`: held by the living creator;
//! - `network.json`: processes and cgroups, for the next creator to clear away after a kill -9;
//! - `etc-hosts`: `/etc/hosts` of every host;
//! - `hosts/<name>/`: a host's own directory, its disk: it survives power cuts.

pub mod cgroups;
mod error;
pub mod host;
mod links;
mod namespace;
pub mod network;
mod process;
mod record;
#[doc(hidden)]
pub mod settings;
mod spawn;
mod subnet;

pub use error::Error;
pub use host::{Host, HostOptions};
pub use network::{Network, NetworkOptions};
pub use subnet::Subnet;
