//! Which agent may get a certificate for which address.

use std::net::IpAddr;

use tucano_api::agent::CertificateRequest;

use super::AgentManager;
use crate::config_mgr::topology::{Topology, WorkerNode};

/// Why an agent is denied a certificate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateDenied {
    /// The topology has no such worker.
    #[error(
        "{node} is not a worker of the topology: add it to ctl.toml ([[topology]] with kind = \"worker\" and ip = \"{ip}\") and reload, or set name or ip in agent.toml to one that is there"
    )]
    Unknown {
        /// The name or address that it claims.
        node: String,
        /// Its address.
        ip: IpAddr,
    },
    /// Its address is not reachable from other machines.
    #[error("worker {node} has a loopback address, which needs no certificate")]
    Loopback {
        /// The worker.
        node: String,
    },
    /// The request came from another address.
    #[error(
        "a certificate for worker {node} at {ip} is issued to requests from that address only, and this one came from {from}: set ip in agent.toml to the address of this machine in the topology"
    )]
    AddressMismatch {
        /// The worker.
        node: String,
        /// Its address.
        ip: IpAddr,
        /// Where the request came from.
        from: IpAddr,
    },
}

impl AgentManager {
    /// The worker to issue a certificate to, if a request from the address `from` may have it.
    ///
    /// # Errors
    /// Why it is denied.
    pub fn authorize_certificate(
        &self,
        request: &CertificateRequest,
        from: IpAddr,
    ) -> Result<WorkerNode, CertificateDenied> {
        authorize_certificate(&self.config.current().topology, request, from).cloned()
    }
}

/// All agents share the token. The TCP handshake has proven that `from` receives our packets: a worker cannot request a
/// certificate for another's address unless it controls that address. Loopback requests come from the controller's machine.
fn authorize_certificate<'a>(
    topology: &'a Topology,
    request: &CertificateRequest,
    from: IpAddr,
) -> Result<&'a WorkerNode, CertificateDenied> {
    let node = request.node.as_ref();
    let worker = topology
        .worker(node, request.ip)
        .ok_or_else(|| CertificateDenied::Unknown {
            node: node.map_or_else(|| request.ip.to_string(), ToString::to_string),
            ip: request.ip,
        })?;
    let (node, ip, from) = (worker.name.to_string(), worker.ip, from.to_canonical());
    if ip.is_loopback() {
        return Err(CertificateDenied::Loopback { node });
    }
    if from != ip && !from.is_loopback() {
        return Err(CertificateDenied::AddressMismatch { node, ip, from });
    }
    Ok(worker)
}

#[cfg(test)]
mod tests;
