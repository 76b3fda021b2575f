use super::*;
use crate::config_mgr::tests::minimal;

fn topology() -> Topology {
    let mut topology = minimal("").topology;
    for (name, ip) in [("w2", "10.255.255.12"), ("w3", "10.255.255.13")] {
        let mut worker = topology.workers[0].clone();
        worker.name = name.parse().unwrap();
        worker.ip = ip.parse().unwrap();
        topology.workers.push(worker);
    }
    topology
}

fn legacy(topology: &Topology) -> BTreeSet<NodeName> {
    let names = topology.workers.iter().map(|worker| worker.name.clone());
    names.collect()
}

#[test]
fn the_token_suffices_until_a_certificate_was_used_and_never_again() {
    let (directory, topology) = (tempfile::tempdir().unwrap(), topology());
    let open = |mode| CertifiedNodes::open(directory.path(), mode, || legacy(&topology));
    let [_, w2, w3] = topology.workers.as_slice() else {
        panic!()
    };
    let nodes = open(Mode::On).unwrap();
    assert!(nodes.token_suffices(w2, w2.ip) && nodes.token_suffices_from(&topology, w2.ip));
    nodes.record(&w2.name).unwrap();
    // Also after a restart, and without TLS.
    for mode in [Mode::On, Mode::Off] {
        let nodes = open(mode).unwrap();
        assert!(!nodes.token_suffices(w2, w2.ip));
        assert!(!nodes.token_suffices_from(&topology, w2.ip));
        assert!(nodes.token_suffices(w3, w3.ip));
        let elsewhere = "10.255.255.99".parse().unwrap();
        assert!(nodes.token_suffices_from(&topology, elsewhere));
    }
    let nodes = open(Mode::On).unwrap();
    nodes.record(&w3.name).unwrap();
    let elsewhere = "10.255.255.99".parse().unwrap();
    assert!(!nodes.token_suffices_from(&topology, elsewhere));
}

#[test]
fn nodes_of_a_new_cluster_need_certificates_and_loopback_workers_do_not() {
    let (directory, topology) = (tempfile::tempdir().unwrap(), topology());
    let nodes = CertifiedNodes::open(directory.path(), Mode::On, BTreeSet::new).unwrap();
    let [w1, w2, _] = topology.workers.as_slice() else {
        panic!()
    };
    assert!(!nodes.token_suffices(w2, w2.ip));
    let loopback = "127.0.0.1".parse().unwrap();
    assert!(nodes.token_suffices(w1, loopback) && !nodes.token_suffices(w2, loopback));
}

#[test]
fn a_damaged_file_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), "{").unwrap();
    let opened = CertifiedNodes::open(directory.path(), Mode::On, BTreeSet::new);
    assert!(opened.unwrap_err().to_string().contains("nodes.json"));
}
