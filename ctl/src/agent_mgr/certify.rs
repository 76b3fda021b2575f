//! Which agent gets a certificate of which address.

use std::net::IpAddr;

use tucano_api::agent::CertificateRequest;

use super::AgentManager;
use crate::config_mgr::topology::{Topology, WorkerNode};

/// Why an agent gets no certificate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEntitled {
    /// The topology has no such worker.
    #[error(
        "{node} is not a worker of the topology: add it to ctl.toml ([[topology]] with kind = \"worker\" and ip = \"{ip}\") and reload, or set name or ip in agent.toml to one that is there"
    )]
    Unknown {
        /// What it calls itself.
        node: String,
        /// Its address.
        ip: IpAddr,
    },
    /// It is reached by no other machine.
    #[error("worker {node} has a loopback address, where no certificate is needed")]
    Loopback {
        /// The worker.
        node: String,
    },
    /// Somebody else may have asked.
    #[error(
        "a certificate of worker {node} at {ip} is only given to who asks from there, and this request came from {from}: set ip in agent.toml to the address of this machine that the topology has"
    )]
    Elsewhere {
        /// The worker.
        node: String,
        /// Its address.
        ip: IpAddr,
        /// Where the request came from.
        from: IpAddr,
    },
}

impl AgentManager {
    /// The worker whose address a certificate is for, if whoever asks `from` there may have it.
    ///
    /// # Errors
    /// Why not.
    pub fn entitled(
        &self,
        request: &CertificateRequest,
        from: IpAddr,
    ) -> Result<WorkerNode, NotEntitled> {
        entitled(&self.config.current().topology, request, from).cloned()
    }
}

/// The token alone is every agent's. TCP's handshake has shown that answers reach `from`: so one worker cannot ask for another's
/// address, unless it has taken that over in the network as well. From loopback comes who is on the controller's machine.
fn entitled<'a>(
    topology: &'a Topology,
    request: &CertificateRequest,
    from: IpAddr,
) -> Result<&'a WorkerNode, NotEntitled> {
    let node = request.node.as_ref();
    let worker = topology
        .worker(node, request.ip)
        .ok_or_else(|| NotEntitled::Unknown {
            node: node.map_or_else(|| request.ip.to_string(), ToString::to_string),
            ip: request.ip,
        })?;
    let (node, ip, from) = (worker.name.to_string(), worker.ip, from.to_canonical());
    if ip.is_loopback() {
        return Err(NotEntitled::Loopback { node });
    }
    if from != ip && !from.is_loopback() {
        return Err(NotEntitled::Elsewhere { node, ip, from });
    }
    Ok(worker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_mgr::tests::minimal;

    #[test]
    fn a_certificate_is_for_a_worker_that_asks_from_its_own_address() {
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
            match entitled(&topology, &request, from.parse().unwrap()) {
                Ok(worker) => worker.name.to_string(),
                Err(NotEntitled::Unknown { .. }) => "unknown".to_owned(),
                Err(NotEntitled::Loopback { .. }) => "loopback".to_owned(),
                Err(NotEntitled::Elsewhere { .. }) => "elsewhere".to_owned(),
            }
        };
        for (node, ip, from, expected) in [
            (Some("w2"), "10.0.0.12", "10.0.0.12", "w2"),
            (None, "10.0.0.12", "10.0.0.12", "w2"),
            (None, "10.0.0.12", "::ffff:10.0.0.12", "w2"),
            // The topology says where a name is, not who asks.
            (Some("w2"), "10.9.9.9", "10.0.0.12", "w2"),
            (Some("w2"), "10.0.0.13", "10.0.0.13", "elsewhere"),
            (Some("w3"), "10.0.0.13", "10.0.0.12", "elsewhere"),
            (None, "10.0.0.13", "10.0.0.12", "elsewhere"),
            // From the controller's own machine.
            (Some("w2"), "10.0.0.12", "127.0.0.1", "w2"),
            // The controller's address, and nobody's.
            (None, "127.0.0.1", "127.0.0.1", "unknown"),
            (Some("w9"), "10.0.0.12", "10.0.0.12", "unknown"),
            (Some("w1"), "127.0.0.11", "127.0.0.1", "loopback"),
        ] {
            assert_eq!(outcome(node, ip, from), expected, "{node:?} {ip} {from}");
        }
    }
}
