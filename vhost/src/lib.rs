//! Virtual hosts: several machines on one kernel. Each has network, mount, pid, uts and ipc namespaces of its own, an
//! address on a switch (a bridge in a private network namespace) and a directory; killing its init is a power cut, after which
//! its namespaces, and all in them, are gone. Used by `tucano dev` and by the end-to-end tests.
//!
//! - [`network`]: the switch and its hosts;
//! - [`host`]: one host: runs programs, disconnects it, cuts its power;
//! - [`cgroups`]: the cgroups that agents on virtual hosts leave behind;
//! - the program `tucano_vhost`: holds the switch's namespace, is each host's init, and runs programs in hosts.
//!
//! Deliberately absent: named network namespaces, and any change of the caller's own network namespace. Processes keep all
//! namespaces alive, and end when a pipe from their creator closes.
//!
//! A network's directory holds:
//! - `lock`: locked by the running creator;
//! - `network.json`: processes and cgroups, which the next creator removes if this one is killed;
//! - `etc-hosts`: `/etc/hosts` of every host;
//! - `hosts/<name>/`: a host's disk, which survives power cuts.

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
