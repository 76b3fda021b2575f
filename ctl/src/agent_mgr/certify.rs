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
mod tests {
    use super::*;
    use crate::config_mgr::tests::minimal;

    #[test]
    fn a_certificate_is_issued_to_requests_from_the_workers_address() {
        let mut topology = minimal("").topology;
        let add = |topology: &mut Topology, name: &str, ip: &str| {
            let mut worker = topology.workers[0].clone();
            worker.name = name.parse().unwrap();
            worker.ip = ip.parse().unwrap();
            topology.workers.push(worker);
        };
        add(&mut topology, "w2", "10.0.0.12");
        add(&mut topology, "w3", "10.0.0.13");
        let outcome = |node: Option<&str>, ip: &str, from: &str| {
            let request = CertificateRequest {
                node: node.map(|node| node.parse().unwrap()),
                ip: ip.parse().unwrap(),
                request: String::new(),
            };
            match authorize_certificate(&topology, &request, from.parse().unwrap()) {
                Ok(worker) => worker.name.to_string(),
                Err(CertificateDenied::Unknown { .. }) => "unknown".to_owned(),
                Err(CertificateDenied::Loopback { .. }) => "loopback".to_owned(),
                Err(CertificateDenied::AddressMismatch { .. }) => "elsewhere".to_owned(),
            }
        };
        for (node, ip, from, expected) in [
            (Some("w2"), "10.0.0.12", "10.0.0.12", "w2"),
            (None, "10.0.0.12", "10.0.0.12", "w2"),
            (None, "10.0.0.12", "::ffff:10.0.0.12", "w2"),
            // The topology decides the address of a name, not the request.
            (Some("w2"), "10.9.9.9", "10.0.0.12", "w2"),
            (Some("w2"), "10.0.0.13", "10.0.0.13", "elsewhere"),
            (Some("w3"), "10.0.0.13", "10.0.0.12", "elsewhere"),
            (None, "10.0.0.13", "10.0.0.12", "elsewhere"),
            // From the controller's own machine.
            (Some("w2"), "10.0.0.12", "127.0.0.1", "w2"),
            // The controller's address is no worker's.
            (None, "127.0.0.1", "127.0.0.1", "unknown"),
            (Some("w9"), "10.0.0.12", "10.0.0.12", "unknown"),
            (Some("w1"), "127.0.0.11", "127.0.0.1", "loopback"),
        ] {
            assert_eq!(outcome(node, ip, from), expected, "{node:?} {ip} {from}");
        }
    }
}
