use tucano_api::{
    agent::NodeMetrics,
    settings::parse,
    state::{AliveNode, NodeCondition},
    units::Timestamp,
};

use super::*;

fn node(name: &str, condition: NodeCondition, size: Option<(u64, u32)>) -> NodeView {
    let name: tucano_api::ids::NodeName = name.parse().unwrap();
    let ip = [10, 0, 0, 1].into();
    let alive = size.map(|(mebibytes, cpus)| AliveNode {
        architecture: "amd64".to_owned(),
        reserved_millicpus: 0,
        devices: Default::default(),
        name: name.clone(),
        ip,
        reported_at: Timestamp(0),
        generation_desired: Default::default(),
        generation_seen: Default::default(),
        version: String::new(),
        processes: 0,
        metrics: NodeMetrics {
            cpus,
            memory_reservable: Bytes::mib(mebibytes),
            ..NodeMetrics::default()
        },
        notes: Vec::new(),
        volumes: None,
    });
    NodeView {
        labels: Default::default(),
        hold: None,
        name,
        ip,
        condition,
        since: Timestamp(0),
        reason: None,
        alive,
    }
}

fn verdict(more: &str, nodes: &[NodeView]) -> Result<(), String> {
    let text = format!("name = \"a\"\nconcurrency = 1\nport = 1\n{more}");
    let config = parse("x", &text).unwrap();
    check(&config, nodes).map_err(|error| error.to_string())
}

fn cluster() -> [NodeView; 3] {
    [
        node("ctl", NodeCondition::Ctl, None),
        node("w1", NodeCondition::Alive, Some((1024, 2))),
        node("w2", NodeCondition::Alive, Some((512, 8))),
    ]
}

#[test]
fn what_no_worker_can_ever_have_is_refused() {
    for (more, part) in [
        (
            "memory = \"1TiB\"",
            "memory: no worker can ever give 1.0 TiB to a process: the largest, w1, has 1.0 GiB",
        ),
        ("memory = \"1025MiB\"", "memory: "),
        (
            "cpus = 100",
            "cpus: no worker has 100 CPUs: the largest, w2, has 8",
        ),
        ("cpus = 8.01", "cpus: "),
        (
            "cpus_reserved = 9",
            "cpus_reserved: no worker can ever give 9 CPUs to a process: the largest, w2, has 8",
        ),
    ] {
        let error = verdict(more, &cluster()).unwrap_err();
        assert!(error.starts_with(part), "{error}");
    }
    for fits in ["", "memory = \"1GiB\"\ncpus = 8", "cpus = 0.5"] {
        assert_eq!(verdict(fits, &cluster()), Ok(()), "{fits}");
    }
}

#[test]
fn a_worker_that_has_not_reported_may_be_larger() {
    for condition in [
        NodeCondition::Unknown,
        NodeCondition::Missing,
        NodeCondition::Dead,
    ] {
        let mut nodes = cluster();
        nodes[2] = node("w2", condition, None);
        assert_eq!(verdict("memory = \"1TiB\"\ncpus = 100", &nodes), Ok(()));
    }
    assert_eq!(
        verdict(
            "memory = \"1TiB\"",
            &[node("ctl", NodeCondition::Ctl, None)]
        ),
        Ok(())
    );
}
