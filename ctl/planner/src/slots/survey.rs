use std::collections::BTreeMap;

use tucano_api::{
    ids::{ProcessId, ServiceName},
    reasons::PendingReason,
    service::ServiceConfig,
};

use super::{plan, rolling};
use crate::{
    state::{Process, Slot, State, Undesired},
    volumes,
};

/// What exists of a service with volumes.
pub(super) struct Survey<'a> {
    name: &'a ServiceName,
    concurrency: u32,
    /// The desired process of each slot, also while it drains.
    pub(super) by_slot: BTreeMap<u32, u64>,
    /// Processes without a slot that are not draining.
    pub(super) unslotted: Vec<u64>,
    /// Slots of processes that are not desired and still exist, or may exist, with the index of their node.
    leaving: BTreeMap<u32, (ProcessId, usize)>,
    /// Those whose slot is not known, by the index of their node.
    leaving_unknown: BTreeMap<usize, ProcessId>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(state: &State, name: &'a ServiceName, config: &ServiceConfig) -> Self {
        let mut survey = Self {
            name,
            concurrency: config.concurrency,
            by_slot: BTreeMap::new(),
            unslotted: Vec::new(),
            leaving: BTreeMap::new(),
            leaving_unknown: BTreeMap::new(),
        };
        let service = state.services.get(name);
        for process in state.processes(service.iter().flat_map(|it| &it.processes)) {
            survey.count(process);
        }
        for (index, node) in state.nodes.iter().enumerate() {
            let undesired = node.undesired.iter().chain(&node.unconfirmed);
            for process in undesired.filter(|it| it.report.service == *name) {
                survey.count_leaving(index, process);
            }
        }
        survey
    }

    fn count(&mut self, process: &Process) {
        let number = process.record.id.number();
        match process.record.slot {
            Some(slot) => {
                self.by_slot.insert(slot, number);
            }
            None if process.is_draining() => {}
            None => self.unslotted.push(number),
        }
    }

    fn count_leaving(&mut self, node: usize, process: &Undesired) {
        let id = process.report.id.clone();
        match process.slot {
            Slot::Known(Some(slot)) => {
                self.leaving.insert(slot, (id, node));
            }
            Slot::Known(None) => {}
            Slot::Unknown => {
                self.leaving_unknown.insert(node, id);
            }
        }
    }

    /// Processes of slots beyond the concurrency.
    pub(super) fn surplus(&self, state: &State) -> Vec<u64> {
        let beyond = self
            .by_slot
            .iter()
            .filter(|(slot, _)| self.is_beyond(**slot));
        let numbers = beyond.map(|(_, number)| *number);
        numbers
            .filter(|number| !state.processes[number].is_draining())
            .collect()
    }

    /// Processes of slots whose volumes are being moved.
    pub(super) fn moving(&self, state: &State) -> Vec<u64> {
        let slots = self.by_slot.iter().filter(|(slot, number)| {
            let is_moving = volumes::fills::reason(state, self.name, **slot).is_some();
            is_moving && !self.is_beyond(**slot) && !state.processes[number].is_draining()
        });
        slots.map(|(_, number)| *number).collect()
    }

    /// How many slots of the concurrency have a process.
    pub(super) fn taken_places(&self) -> usize {
        let slots = self.by_slot.keys();
        slots.filter(|slot| !self.is_beyond(**slot)).count()
    }

    /// The slots of the concurrency that have no process.
    pub(super) fn free_slots(&self) -> Vec<u32> {
        let slots = 1..=self.concurrency;
        slots
            .filter(|slot| !self.by_slot.contains_key(slot))
            .collect()
    }

    /// How many slots may be placed, beside the processes without a slot.
    pub(super) fn free_places(&self, config: &ServiceConfig) -> usize {
        let taken = self.taken_places() + self.unslotted.len();
        (config.concurrency as usize).saturating_sub(taken)
    }

    /// Whether a slot has a process of the current revision.
    pub(super) fn is_served(&self, state: &State, slot: u32) -> bool {
        let process = self
            .by_slot
            .get(&slot)
            .map(|number| &state.processes[number]);
        process.is_some_and(|process| self.is_current(state, process) && !process.is_draining())
    }

    /// The slots whose process is of an earlier revision and not draining.
    pub(super) fn old_slots(&self, state: &State) -> impl Iterator<Item = (u32, u64)> {
        let slots = self.by_slot.iter().map(|(slot, number)| (*slot, *number));
        slots.filter(|(slot, number)| {
            let process = &state.processes[number];
            let is_old = !self.is_current(state, process) && !process.is_draining();
            is_old && !self.is_beyond(*slot)
        })
    }

    /// Why a slot with a process that is to be replaced waits.
    pub(super) fn why_waiting(
        &self,
        state: &State,
        config: &ServiceConfig,
        slot: u32,
    ) -> PendingReason {
        let process = &state.processes[&self.by_slot[&slot]];
        if process.is_draining() {
            return PendingReason::SlotTaken {
                slot,
                process: Some(process.record.id.clone()),
                node: process.record.node.clone(),
            };
        }
        let gone = [process.record.id.number()];
        let obstacle = plan::obstacle(state, config, slot, process.node, &gone);
        obstacle.unwrap_or_else(rolling)
    }

    /// Whether a slot is being replaced: it drains, its volumes are there and it has no process, or the new one is not healthy.
    /// Slots that wait for their worker are no part of it.
    pub(super) fn is_in_transition(&self, state: &State, config: &ServiceConfig) -> bool {
        (1..=config.concurrency).any(|slot| match self.by_slot.get(&slot) {
            Some(number) => {
                let process = &state.processes[number];
                let is_new = self.is_current(state, process);
                process.is_draining() || is_new && !process.is_healthy()
            }
            None => {
                // Where processes without a slot have all places, none is being replaced.
                let has_place = self.free_places(config) > 0;
                let mut volumes = state.volumes.kept_of_slot(self.name, slot);
                has_place
                    && volumes.any(|record| {
                        let index = state.node_index.get(&record.node);
                        let is_there = index.is_some_and(|index| state.nodes[*index].is_usable());
                        is_there && record.problem.is_none()
                    })
            }
        })
    }

    /// What has a slot although it is not desired.
    pub(super) fn taken_by(&self, state: &State, slot: u32) -> Option<PendingReason> {
        let taken = |process: Option<&ProcessId>, node: usize| PendingReason::SlotTaken {
            slot,
            process: process.cloned(),
            node: state.nodes[node].record.name.clone(),
        };
        // What a lost worker runs has volumes that were given up, and others were made.
        let mut volumes = state.volumes.of_slot(self.name, slot);
        if let Some((process, node)) = self.leaving.get(&slot)
            && (state.nodes[*node].is_usable()
                || volumes.any(|it| it.node == state.nodes[*node].record.name))
        {
            return Some(taken(Some(process), *node));
        }
        state.volumes.of_slot(self.name, slot).find_map(|record| {
            let index = *state.node_index.get(&record.node)?;
            let unknown = self.leaving_unknown.get(&index);
            let is_surveyed = state.nodes[index].is_surveyed;
            (unknown.is_some() || !is_surveyed).then(|| taken(unknown, index))
        })
    }

    fn is_beyond(&self, slot: u32) -> bool {
        slot > self.concurrency
    }

    fn is_current(&self, state: &State, process: &Process) -> bool {
        let service = state.services.get(self.name);
        service.is_some_and(|service| service.is_current(process))
    }
}
