//! Rules of placement: which workers a service's processes may be on.
//!
//! - A process is *placed* only where all rules hold ([`Rules::admits`]).
//! - One that is on a worker where a rule of its own service does not hold any more ([`Rules::keeps`]) is no current one: it is
//!   replaced as one of an old revision is. What only its neighbours' rules forbid moves them, and not it.
//! - Processes of slots stay where their volumes are.

mod graph;
mod obstacles;
mod zones;

use std::collections::BTreeSet;

use tucano_api::{
    ids::ServiceName,
    reasons::PendingReason,
    service::{ServiceConfig, lacks},
};

use crate::{
    model::RevisionRecord,
    state::{Node, State},
};

pub(crate) use graph::{Neighbours, dependents, index, obstacle as graph_obstacle};
pub(crate) use obstacles::{never, no_architecture, no_labels, slots as slot_obstacle};
pub(crate) use zones::Zones;

/// The rules of a service's current revision, with what of the cluster they depend on.
#[derive(Debug, Clone)]
pub(crate) struct Rules<'a> {
    pub(crate) config: &'a ServiceConfig,
    pub(crate) revision: Option<&'a RevisionRecord>,
    pub(crate) zones: Zones,
    with: Vec<Neighbour>,
    apart: Vec<Neighbour>,
}

/// Where another service is.
#[derive(Debug, Clone)]
struct Neighbour {
    name: ServiceName,
    exists: bool,
    /// Whether a process that is already there gives way to it.
    moves_for: bool,
    /// Nodes with a process that is not draining, by index.
    serving: BTreeSet<usize>,
    /// Nodes with anything of it: also processes that drain or stop, and volumes of its slots.
    present: BTreeSet<usize>,
}

impl<'a> Rules<'a> {
    /// The rules of a configured service.
    pub(crate) fn of(state: &'a State, name: &ServiceName) -> Option<Self> {
        let current = state.services.get(name)?.current();
        Some(Self::new(state, &current.config).with_image(current))
    }

    /// The rules of a configuration, whatever image it has.
    pub(crate) fn new(state: &State, config: &'a ServiceConfig) -> Self {
        let placement = &config.placement;
        // Of two services that are both to be apart from the other, the one with the later name moves.
        let is_mutual =
            |name: &ServiceName| graph::apart_from(state, &config.name).any(|it| it == name);
        let own = placement.apart_from.iter();
        let own = own.map(|name| (name, !is_mutual(name) || config.name > *name));
        let others = graph::apart_from(state, &config.name);
        let others = others.filter(|name| !placement.apart_from.contains(name));
        let apart = own.chain(others.map(|name| (name, false)));
        Self {
            config,
            revision: None,
            zones: Zones::new(state, placement.spread.as_ref()),
            with: placement
                .with
                .iter()
                .map(|name| Neighbour::new(state, name, false))
                .collect(),
            apart: apart
                .map(|(name, moves_for)| Neighbour::new(state, name, moves_for))
                .collect(),
        }
    }

    /// The rules with the image of a revision.
    pub(crate) fn with_image(self, revision: &'a RevisionRecord) -> Self {
        Self {
            revision: Some(revision),
            ..self
        }
    }

    /// The rules without the one of even spreading over a label.
    pub(crate) fn without_zones(self) -> Self {
        Self {
            zones: Zones::single(),
            ..self
        }
    }

    /// Whether a process may be placed on a node, beside what it reserves.
    pub(crate) fn admits(&self, state: &State, index: usize) -> bool {
        self.is_possible(&state.nodes[index])
            && self.with.iter().all(|it| it.serving.contains(&index))
            && !self.apart.iter().any(|it| it.present.contains(&index))
    }

    /// Whether a process that is on a node may stay.
    pub(crate) fn keeps(&self, state: &State, index: usize) -> bool {
        let mut with = self.with.iter();
        let mut apart = self.apart.iter().filter(|it| it.moves_for);
        self.is_possible(&state.nodes[index])
            && with.all(|it| !it.exists || it.present.contains(&index))
            && !apart.any(|it| it.present.contains(&index))
    }

    /// Whether one more process may be there beside `count` of its own.
    pub(crate) fn has_place_beside(&self, count: u32) -> bool {
        !self.config.placement.everywhere || count == 0
    }

    /// Whether the rules that depend on nothing but the worker hold.
    pub(crate) fn is_possible(&self, node: &Node) -> bool {
        self.has_labels(node) && self.has_image(node)
    }

    /// Whether nothing that it is apart from is on a node.
    pub(crate) fn is_apart(&self, index: usize) -> bool {
        !self.apart.iter().any(|it| it.present.contains(&index))
    }

    pub(crate) fn has_labels(&self, node: &Node) -> bool {
        !lacks(&node.worker.labels, &self.config.placement.labels)
    }

    pub(crate) fn has_image(&self, node: &Node) -> bool {
        self.revision
            .is_none_or(|revision| revision.image_for(node.architecture()).is_some())
    }

    /// Those of the nodes that have all services that it is to be with, and none that it is apart from.
    ///
    /// # Errors
    /// The service by which none of them is a place.
    pub(crate) fn neighbourhood<'n>(
        &self,
        state: &State,
        nodes: &[&'n Node],
    ) -> Result<Vec<&'n Node>, PendingReason> {
        let index_of = |node: &&Node| state.node_index.get(&node.record.name).copied();
        let names = |nodes: &[&Node]| nodes.iter().map(|it| it.record.name.clone()).collect();
        let has = |set: &BTreeSet<usize>, node: &&Node| {
            index_of(node).is_some_and(|it| set.contains(&it))
        };
        let mut left = nodes.to_vec();
        for other in &self.with {
            let near: Vec<&Node> = left
                .iter()
                .copied()
                .filter(|it| has(&other.serving, it))
                .collect();
            if near.is_empty() {
                return Err(PendingReason::NotWith {
                    service: other.name.clone(),
                    configured: other.exists,
                    nodes: names(&left),
                });
            }
            left = near;
        }
        for other in &self.apart {
            let away: Vec<&Node> = left
                .iter()
                .copied()
                .filter(|it| !has(&other.present, it))
                .collect();
            if away.is_empty() {
                return Err(PendingReason::NotApart {
                    service: other.name.clone(),
                    nodes: names(&left),
                });
            }
            left = away;
        }
        Ok(left)
    }
}

impl Neighbour {
    fn new(state: &State, name: &ServiceName, moves_for: bool) -> Self {
        let Some(service) = state.services.get(name) else {
            return Self {
                name: name.clone(),
                exists: false,
                moves_for,
                serving: BTreeSet::new(),
                present: stopping(state, name).collect(),
            };
        };
        let processes = || state.processes(&service.processes);
        let serving = processes().filter(|process| !process.is_draining());
        let volumes = state.volumes.of_service(name).filter(|it| !it.removing);
        let volumes =
            volumes.filter(|it| it.volume.id.slot() <= service.current().config.concurrency);
        let volumes = volumes.filter_map(|it| state.node_index.get(&it.node).copied());
        Self {
            name: name.clone(),
            exists: true,
            moves_for,
            serving: serving.map(|process| process.node).collect(),
            present: processes()
                .map(|process| process.node)
                .chain(volumes)
                .chain(stopping(state, name))
                .collect(),
        }
    }
}

/// Nodes with processes of a service that are not desired any more.
fn stopping<'a>(state: &'a State, name: &'a ServiceName) -> impl Iterator<Item = usize> + 'a {
    let nodes = state.nodes.iter().enumerate();
    let has = |node: &Node| {
        let mut undesired = node.undesired.iter();
        undesired.any(|it| it.report.service == *name)
    };
    nodes
        .filter(move |(_, node)| has(node))
        .map(|(index, _)| index)
}
