//! Leases: a worker is alive for as long as each of its reports comes within a lease of the one before.
//!
//! ```text
//!                 report                    lease expires
//!   Unknown ───────────────> Alive ──────────────────────────┐
//!      │                       ^                             v
//!      └── lease expires ───>  │ report ────────────────  Missing: restart ──fails──> back-off ─┐
//!                              │                             ^  │                               │
//!                              │ report                      │  └─ all attempts failed,         │
//!                              └──────────── Dead <──────────┼───  or no restart command        │
//!                                                            └──────────────────────────────────┘
//! ```

use tucano_api::{
    ids::NodeName,
    state::{AlertKind, NodeCondition},
    units::Timestamp,
};

use crate::{
    jobs, lifecycle, messages, restarts, silence,
    state::{NodeRestart, State},
};

/// When the next lease or wait between restart attempts ends.
pub(crate) fn next_deadline(state: &State) -> Option<Timestamp> {
    let lease = state.settings.lease;
    state
        .nodes
        .iter()
        .filter_map(|node| node.deadline(lease))
        .min()
}

/// Extends all leases once after a pause of the controller itself (a suspended machine, a stopped process): all leases
/// have expired at once, and this step comes much later than it was due.
pub(crate) fn extend_after_pause(state: &mut State, now: Timestamp) {
    let lease = state.settings.lease;
    let leased = || state.nodes.iter().filter(|node| node.has_lease());
    let Some(first) = leased().map(|node| node.leased_at).min() else {
        return;
    };
    let all_expired = leased().all(|node| node.leased_at.after(lease) <= now);
    let since_last_step = now.since(state.now);
    let late_by = now.since(first.after(lease));
    let paused = since_last_step.0 > lease.0 / 2 && late_by.0 > lease.0 / 4;
    if all_expired && paused && !state.lease_extended {
        state.lease_extended = true;
        for node in &mut state.nodes {
            if node.has_lease() {
                node.leased_at = now;
            }
            if let Some(Some(until)) = &mut node.silence {
                *until = now.after(lease);
            }
        }
    }
}

/// Handles every lease and every wait between restart attempts that has ended.
pub(crate) fn expire(state: &mut State) {
    let lease = state.settings.lease;
    let expired: Vec<usize> = (0..state.nodes.len())
        .filter(|index| {
            let node = &state.nodes[*index];
            node.has_lease() && node.leased_at.after(lease) <= state.now
        })
        .collect();
    let mass = !expired.is_empty() && silence::is_mass(state);
    for index in expired {
        if mass && state.nodes[index].record.condition == NodeCondition::Alive {
            silence::begin(state, index);
        } else {
            mark_missing(state, index);
        }
    }
    for index in silence::expired(state) {
        if state.nodes[index].silence == Some(None) {
            restarts::attempt_during_silence(state, index);
        } else {
            mark_missing(state, index);
        }
    }
    expire_restarts(state);
}

fn expire_restarts(state: &mut State) {
    for index in 0..state.nodes.len() {
        let node = &state.nodes[index];
        match node.restart {
            _ if node.has_lease() => {}
            NodeRestart::BackOff(until) if until <= state.now => restarts::attempt(state, index),
            NodeRestart::AwaitingReport(until) if until <= state.now => {
                restarts::no_report(state, index);
            }
            _ => {}
        }
    }
}

/// Makes a worker alive that reports again, or for the first time.
pub(crate) fn mark_alive(state: &mut State, index: usize) {
    let now = state.now;
    silence::end(state, index, false);
    let before = state.nodes[index].record.condition;
    let node = &mut state.nodes[index];
    let name = node.record.name.clone();
    node.restart = NodeRestart::Idle;
    if node.record.condition == NodeCondition::Unknown {
        // It may run processes that this controller does not know: a new set, even an empty one, ends them.
        state.changes.reassign.insert(name.clone());
    }
    if before != NodeCondition::Alive || node.record.restart_attempts > 0 {
        node.record.condition = NodeCondition::Alive;
        node.record.since = if before == NodeCondition::Alive {
            node.record.since
        } else {
            now
        };
        node.record.reason = None;
        node.record.restart_attempts = 0;
        state.changes.nodes.insert(name.clone());
    }
    state.changes.resend.insert(name.clone());
    state.alive_workers_changed();
    jobs::node_changed(state, &name);
    state.stop_awaiting(&name);
    if matches!(before, NodeCondition::Missing | NodeCondition::Dead) {
        alert_back(state, index, &name);
    }
}

fn alert_back(state: &mut State, index: usize, name: &NodeName) {
    let ip = state.nodes[index].worker.ip;
    let message = format!("worker {name} ({ip}) reports again");
    state.alert(AlertKind::NodeBack, name, message);
}

/// Withdraws and replaces, in this step, everything that ran on a worker whose lease has expired.
fn mark_missing(state: &mut State, index: usize) {
    silence::end(state, index, true);
    let processes = state.processes(&state.nodes[index].processes);
    let waiting = processes.filter(|it| it.record.slot.is_some()).count();
    let node = &mut state.nodes[index];
    let lost = node.processes.len();
    let lease = state.settings.lease;
    node.report = None;
    node.record.condition = NodeCondition::Missing;
    node.record.since = state.now;
    node.record.reason = Some(format!("no report for {lease}"));
    if node.restart == NodeRestart::Idle {
        node.record.restart_attempts = 0;
    }
    let name = node.record.name.clone();
    // Also where a restart is under way already, since a silence.
    state.changes.nodes.insert(name.clone());
    let message = format!(
        "worker {name} ({}) has not reported for {lease}; {}",
        node.worker.ip,
        messages::lost_processes(lost, waiting),
    );
    state.alert(AlertKind::NodeMissing, &name, message);
    remember_processes(state, index);
    lifecycle::remove_all_on(state, index);
    state.alive_workers_changed();
    state.stop_awaiting(&name);
    if state.nodes[index].restart == NodeRestart::Idle {
        restarts::attempt(state, index);
    }
}

/// The processes may still run when the worker comes back.
fn remember_processes(state: &mut State, index: usize) {
    let processes = state.processes(&state.nodes[index].processes);
    let records = processes.map(|process| (process.record.id.number(), process.record.clone()));
    let records = records.collect();
    state.nodes[index].lost = records;
}
