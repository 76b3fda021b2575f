//! Which nodes must present their certificate, durable in `<data_dir>/tls/nodes.json`.
//!
//! A node that has used its certificate once never works with the shared token again. The token also suffices for the nodes
//! of a cluster that is older than certificates with identities, until each of them has used its own. Where the file is lost,
//! every node must present its certificate: losing it opens nothing.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tucano_api::ids::NodeName;
use tucano_tls::{Error, Mode, files};

use crate::config_mgr::topology::{Topology, WorkerNode};

const FILE: &str = "nodes.json";

/// The nodes by their transition from the token to certificates.
#[derive(Debug)]
pub struct CertifiedNodes {
    path: PathBuf,
    mode: Mode,
    nodes: Mutex<Nodes>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Nodes {
    /// Nodes that have used a certificate.
    #[serde(default)]
    certified: BTreeSet<NodeName>,
    /// Nodes that are older than certificates with identities, and have not used one yet.
    #[serde(default)]
    legacy: BTreeSet<NodeName>,
}

impl CertifiedNodes {
    /// Reads the file, or creates it: then `legacy` are the nodes of a cluster that is older than certificates with identities.
    ///
    /// # Errors
    /// The file is not usable. It is not replaced: nodes would fall back to the token.
    pub fn open(
        directory: &Path,
        mode: Mode,
        legacy: impl FnOnce() -> BTreeSet<NodeName>,
    ) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let nodes = match files::read(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| Error::Content {
                path: path.clone(),
                problem: format!("{error}: restore it from a copy"),
            })?,
            None => {
                let nodes = Nodes {
                    legacy: legacy(),
                    ..Nodes::default()
                };
                write(&path, &nodes)?;
                nodes
            }
        };
        Ok(Self {
            path,
            mode,
            nodes: Mutex::new(nodes),
        })
    }

    /// Whether this worker may report with the token, from this address.
    pub fn token_suffices(&self, worker: &WorkerNode, from: IpAddr) -> bool {
        if worker.ip.is_loopback() || from.is_loopback() && is_local(worker.ip) {
            return true;
        }
        let nodes = self.nodes();
        let is_legacy = self.mode == Mode::Off || nodes.legacy.contains(&worker.name);
        is_legacy && !nodes.certified.contains(&worker.name)
    }

    /// Whether the token suffices for what names no worker, from this address: not from a node that must present its
    /// certificate, and not at all when every node must.
    pub fn token_suffices_from(&self, topology: &Topology, from: IpAddr) -> bool {
        let from = from.to_canonical();
        if from.is_loopback() {
            return true;
        }
        let mut workers = topology.workers.iter();
        match workers.find(|worker| worker.ip == from) {
            Some(worker) => self.token_suffices(worker, from),
            None => topology
                .workers
                .iter()
                .any(|worker| !worker.ip.is_loopback() && self.token_suffices(worker, from)),
        }
    }

    /// Records that a node has used its certificate. Not while TLS is off: then nodes still change to it one by one.
    ///
    /// # Errors
    /// The file cannot be written; the node counts as certified until the controller ends.
    pub fn record(&self, node: &NodeName) -> Result<(), Error> {
        let mut nodes = self.nodes();
        if self.mode == Mode::Off || !nodes.certified.insert(node.clone()) {
            return Ok(());
        }
        nodes.legacy.remove(node);
        tracing::info!(%node, "the node has used its certificate: its token does not suffice any more");
        write(&self.path, &nodes)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(path: &Path, nodes: &Nodes) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(nodes).unwrap_or_default();
    files::write(path, &text, files::PRIVATE)
}

/// Whether this is an address of the controller's own machine.
fn is_local(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests;
