//! The end-to-end tests' vocabulary: a whole cluster on virtual hosts, and a user of it.
//!
//! - [`cluster`]: boots hosts, writes their settings, starts and kills Tucano's programs on them.
//! - [`containers`]: the containers of a service, whose networks tests enter.
//! - [`user`]: sends requests and load, takes alerts.
//! - [`images`]: OCI archives, of the sample services and as other people's tools make them.
//! - [`databases`]: images of databases that other people wrote, and of Python.
//! - [`machines`]: machines with a kernel and systemd of their own.
//! - [`processes`]: what runs on a host; [`traces`]: what is left on a node.

pub mod cluster;
pub mod containers;
pub mod databases;
pub mod images;
pub mod machines;
pub mod processes;
pub mod traces;
pub mod user;

pub use cluster::{Cluster, Options};

use tucano_testkit::{Need, ROOT, tool};

/// What every cluster needs of the machine.
pub const CLUSTER: [Need; 5] = [
    ROOT,
    tool("ip"),
    tool("nft"),
    tool("nsenter"),
    tool("unshare"),
];
