//! Whether some worker can ever run a process of a configuration. Pure: it compares numbers. A process that fits a worker which
//! has no room at present waits for it; one that is larger than every worker would wait for ever, and is refused.

use tucano_api::{service::ServiceConfig, state::NodeView, units::Bytes};

/// What a process needs that no worker has.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DoesNotFit {
    /// More memory.
    #[error(
        "memory: no worker can ever give {wanted} to a process: the largest, {node}, has {most}; write less, or add a larger worker"
    )]
    Memory {
        /// The configured memory.
        wanted: Bytes,
        /// The worker with the most.
        node: String,
        /// Its memory for processes.
        most: Bytes,
    },
    /// More CPUs.
    #[error(
        "cpus: no worker has {wanted} CPUs: the largest, {node}, has {most}; write less, or remove `cpus`, which is a limit and \
         reserves nothing"
    )]
    Cpus {
        /// The configured number.
        wanted: f64,
        /// The worker with the most.
        node: String,
        /// Its number of CPUs.
        most: u32,
    },
}

/// Compares a configuration with the workers. Accepts it if a worker has not reported: that one may be larger.
///
/// # Errors
/// What no worker has.
pub fn check(config: &ServiceConfig, nodes: &[NodeView]) -> Result<(), DoesNotFit> {
    let workers = nodes
        .iter()
        .filter(|node| node.condition != tucano_api::state::NodeCondition::Ctl);
    let workers: Option<Vec<_>> = workers
        .map(|node| Some((node.name.to_string(), &node.alive.as_ref()?.metrics)))
        .collect();
    let Some(workers) = workers else {
        return Ok(());
    };
    let most_memory = workers
        .iter()
        .max_by_key(|(_, metrics)| metrics.memory_reservable);
    if let Some((node, metrics)) = most_memory
        && config.memory > metrics.memory_reservable
    {
        return Err(DoesNotFit::Memory {
            wanted: config.memory,
            node: node.clone(),
            most: metrics.memory_reservable,
        });
    }
    let most_cpus = workers.iter().max_by_key(|(_, metrics)| metrics.cpus);
    if let (Some((node, metrics)), Some(wanted)) = (most_cpus, config.cpus)
        && wanted > f64::from(metrics.cpus)
    {
        return Err(DoesNotFit::Cpus {
            wanted,
            node: node.clone(),
            most: metrics.cpus,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
        });
        NodeView {
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
}
