//! Restarting missing workers by their `restart` command: a bounded number of attempts with exponential back-off.

use tucano_api::{
    ids::NodeName,
    state::{AlertKind, NodeCondition},
    units::Span,
};

use crate::{
    jobs, messages,
    state::{NodeRestart, State},
};

/// Longest error of a restart command that is kept, in characters.
const MAX_ERROR_CHARS: usize = 500;

/// Starts the next attempt, or declares the worker dead if there is none.
pub(crate) fn attempt(state: &mut State, index: usize) {
    let node = &mut state.nodes[index];
    if !node.worker.can_restart {
        return mark_dead(state, index, messages::no_restart_command());
    }
    if node.record.restart_attempts >= state.settings.restart_attempts {
        return mark_dead(
            state,
            index,
            "no further restart is to be attempted".to_owned(),
        );
    }
    node.record.restart_attempts += 1;
    node.restart = NodeRestart::Running;
    let name = node.record.name.clone();
    let attempt = (name.clone(), node.record.restart_attempts);
    state.changes.restarts.push(attempt);
    state.changes.nodes.insert(name);
}

/// Starts attempts for a worker whose processes stay placed, because no worker reports. It is not declared dead.
pub(crate) fn attempt_during_silence(state: &mut State, index: usize) {
    let node = &state.nodes[index];
    let attempts = node.record.restart_attempts < state.settings.restart_attempts;
    if node.worker.can_restart && attempts && node.restart == NodeRestart::Idle {
        attempt(state, index);
    }
}

/// Handles the end of a restart command. Ignored unless one is running.
pub(crate) fn finished(state: &mut State, name: &NodeName, result: Result<(), String>) {
    let Some(index) = state.node_index.get(name).copied() else {
        return;
    };
    let node = &mut state.nodes[index];
    if node.restart != NodeRestart::Running {
        return;
    }
    match result {
        Ok(()) => {
            let until = state.now.after(state.settings.restart_grace);
            node.restart = NodeRestart::AwaitingReport(until);
            node.record.reason = Some("its restart command succeeded".to_owned());
            state.changes.nodes.insert(name.clone());
        }
        Err(error) => {
            let error = error.chars().take(MAX_ERROR_CHARS).collect();
            attempt_failed(state, index, error);
        }
    }
}

/// The restart command succeeded, but the worker has not reported in time.
pub(crate) fn no_report(state: &mut State, index: usize) {
    let error = messages::no_report_after_restart(state.settings.restart_grace);
    attempt_failed(state, index, error);
}

/// How long to wait after the `attempts`-th failure: doubles each time.
pub(crate) fn back_off(first: Span, attempts: u32) -> Span {
    let factor = 2_u32.saturating_pow(attempts.saturating_sub(1));
    Span(first.0.saturating_mul(factor))
}

fn attempt_failed(state: &mut State, index: usize, error: String) {
    let node = &mut state.nodes[index];
    let attempts = node.record.restart_attempts;
    if attempts >= state.settings.restart_attempts {
        let tried = messages::plural(attempts as usize, "restart has", "restarts have");
        let reason = format!("{tried} failed; the last one: {error}");
        return mark_dead(state, index, reason);
    }
    let wait = back_off(state.settings.restart_backoff, attempts);
    node.restart = NodeRestart::BackOff(state.now.after(wait));
    node.record.reason = Some(format!("restart {attempts} failed: {error}"));
    state.changes.nodes.insert(node.record.name.clone());
}

fn mark_dead(state: &mut State, index: usize, reason: String) {
    let node = &mut state.nodes[index];
    let name = node.record.name.clone();
    if node.silence.is_some() {
        // It is dead when another worker reports, which can run its processes.
        node.restart = NodeRestart::Idle;
        node.record.reason = Some(reason);
        state.changes.nodes.insert(name);
        return;
    }
    let message = format!(
        "worker {name} ({}) is dead: {reason}. It is used again as soon as its agent reports",
        node.worker.ip
    );
    node.restart = NodeRestart::Idle;
    node.record.condition = NodeCondition::Dead;
    node.record.since = state.now;
    node.record.reason = Some(reason);
    state.changes.nodes.insert(name.clone());
    jobs::node_changed(state, &name);
    state.alert(AlertKind::NodeDead, name, message);
}
