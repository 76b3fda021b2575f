//! Whether some worker can ever run a process of a configuration. Pure: it compares numbers. A process that fits a worker which
//! has no room at present waits for it; one that is larger than every worker would wait for ever, and is refused.

use tucano_api::{
    service::{ServiceConfig, lacks},
    state::NodeView,
    units::Bytes,
};

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
    /// More CPUs to reserve.
    #[error(
        "cpus_reserved: no worker can ever give {wanted} CPUs to a process: the largest, {node}, has {most}; write less, or add a larger worker"
    )]
    CpusReserved {
        /// The configured number.
        wanted: f64,
        /// The worker with the most.
        node: String,
        /// Its number of CPUs.
        most: u32,
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
    let wanted = &config.placement.labels;
    let workers = nodes
        .iter()
        .filter(|node| node.condition != tucano_api::state::NodeCondition::Ctl)
        .filter(|node| !lacks(&node.labels, wanted));
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
    if let (Some((node, metrics)), Some(wanted)) = (most_cpus, config.cpus_reserved)
        && wanted > f64::from(metrics.cpus)
    {
        return Err(DoesNotFit::CpusReserved {
            wanted,
            node: node.clone(),
            most: metrics.cpus,
        });
    }
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
mod tests;
