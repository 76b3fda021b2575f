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
