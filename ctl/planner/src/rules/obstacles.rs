//! What can never be placed with the present topology, as messages for the user that begin with the key.

use std::collections::BTreeSet;

use tucano_api::{
    ids::{Digest, ServiceName},
    reasons::{PendingReason, WorkerArchitecture, WorkerLabels},
    service::{ServiceConfig, lacks},
};

use super::{Rules, graph};
use crate::{
    model::Platforms,
    state::{Node, State},
};

/// Why no worker of the topology can ever have a process of a configuration, by labels, architecture and neighbours' labels.
/// Workers that have not reported may have any architecture.
pub(crate) fn never(
    state: &State,
    config: &ServiceConfig,
    platforms: &Platforms,
) -> Option<String> {
    if state.nodes.is_empty() {
        return None;
    }
    let placement = &config.placement;
    if let Some(label) = &placement.spread
        && !state
            .nodes
            .iter()
            .any(|node| node.worker.labels.contains_key(label))
    {
        return Some(format!(
            "placement.spread: no worker of the topology has the label {label}: give the workers one, or remove the key"
        ));
    }
    let labelled = |node: &&Node| !lacks(&node.worker.labels, &placement.labels);
    let nodes: Vec<&Node> = state.nodes.iter().filter(labelled).collect();
    if nodes.is_empty() {
        let reason = no_labels(config, state.nodes.iter());
        return Some(with_key("placement.labels", &reason));
    }
    let runs = |node: &&Node| node.report.is_none() || has_image(platforms, node.architecture());
    if !nodes.iter().any(runs) {
        let reason = no_architecture(platforms, nodes.iter().copied());
        return Some(with_key("image", &reason));
    }
    neighbours_elsewhere(state, config, &nodes)
}

/// The worker that has a volume of a slot, and that the slot could not be on. A message for the user.
pub(crate) fn slots(state: &State, config: &ServiceConfig) -> Option<String> {
    if config.volume.is_empty() {
        return None;
    }
    let rules = Rules::new(state, config);
    let records = state.volumes.of_service(&config.name);
    let mut records =
        records.filter(|it| !it.removing && it.volume.id.slot() <= config.concurrency);
    records.find_map(|record| {
        let index = *state.node_index.get(&record.node)?;
        let (volume, node) = (&record.volume.id, &record.node);
        let advice = format!("move it with `tucano volume move {volume} NODE` first, or change the rule");
        if !rules.has_labels(&state.nodes[index]) {
            let reason = no_labels(config, std::iter::once(&state.nodes[index]));
            return Some(format!(
                "placement.labels: volume {volume} is on {node}, where it could not be used ({}): {advice}",
                reason_of_labels(&reason)
            ));
        }
        let pinned = rules.apart.iter().find(|it| {
            let name = &it.name;
            let mut volumes = state.volumes.of_service(name).filter(|it| !it.removing);
            state.services.contains_key(name) && volumes.any(|it| it.node == *node)
        })?;
        Some(format!(
            "placement.apart_from: volume {volume} is on {node}, and so is one of service {}: {advice}",
            pinned.name
        ))
    })
}

/// Whether an image that runs on these platforms has one for an architecture. One of unknown platforms runs everywhere, and an
/// agent that does not tell its architecture runs all.
pub(crate) fn has_image(platforms: &Platforms, architecture: &str) -> bool {
    platforms.is_empty() || architecture.is_empty() || platforms.contains_key(architecture)
}

pub(crate) fn no_labels<'a>(
    config: &ServiceConfig,
    nodes: impl Iterator<Item = &'a Node>,
) -> PendingReason {
    let wanted = &config.placement.labels;
    let workers = nodes.filter_map(|node| {
        let labels = &node.worker.labels;
        let mut wanted = wanted.iter();
        let (label, _) = wanted.find(|(name, value)| labels.get(*name) != Some(*value))?;
        Some(WorkerLabels {
            node: node.record.name.clone(),
            label: label.clone(),
            value: labels.get(label).cloned(),
        })
    });
    PendingReason::NoLabels {
        labels: wanted.clone(),
        workers: workers.collect(),
    }
}

pub(crate) fn no_architecture<'a>(
    platforms: &Platforms,
    nodes: impl Iterator<Item = &'a Node>,
) -> PendingReason {
    PendingReason::NoArchitecture {
        images: platforms.keys().cloned().collect(),
        workers: nodes
            .map(|node| WorkerArchitecture {
                node: node.record.name.clone(),
                architecture: node.architecture().to_owned(),
            })
            .collect(),
    }
}

/// The labels of a service that this one is to be with are on other workers.
fn neighbours_elsewhere(state: &State, config: &ServiceConfig, nodes: &[&Node]) -> Option<String> {
    let together: BTreeSet<ServiceName> = graph::together(state, config);
    together.iter().filter(|name| **name != config.name).find_map(|name| {
        let other = &state.services.get(name)?.current().config;
        let wanted = &other.placement.labels;
        let meets = nodes.iter().any(|node| !lacks(&node.worker.labels, wanted));
        (!meets).then(|| {
            format!(
                "placement.with: no worker can have both a process of {} and one of {name}, whose `placement.labels` no worker that fits has: change the labels of one of both",
                config.name
            )
        })
    })
}

fn with_key(key: &str, reason: &PendingReason) -> String {
    let text = reason.to_string();
    let text = text.strip_prefix(&format!("`{key}`: ")).unwrap_or(&text);
    format!("{key}: {text}: change it, or the topology")
}

/// What the first worker has instead of the label that is wanted.
fn reason_of_labels(reason: &PendingReason) -> String {
    match reason {
        PendingReason::NoLabels { workers, .. } => {
            workers.first().map(ToString::to_string).unwrap_or_default()
        }
        other => other.to_string(),
    }
}

impl crate::model::RevisionRecord {
    /// The image for a worker of an architecture; `None` where there is none.
    pub(crate) fn image_for(&self, architecture: &str) -> Option<&Digest> {
        if self.platforms.is_empty() || architecture.is_empty() {
            return Some(&self.image);
        }
        self.platforms.get(architecture)
    }

    /// Whether another revision has the same image, which may be known for more architectures there.
    pub(crate) fn has_image_of(&self, other: &Self) -> bool {
        let mut shared = self.platforms.iter();
        self.image == other.image
            && shared.all(|(name, image)| other.platforms.get(name).is_none_or(|it| it == image))
    }
}
