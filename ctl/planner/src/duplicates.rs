//! Duplicate agents: two agents that report as the same worker. An agent that was restarted and one that was copied
//! with its configuration look alike at first. The newest one counts, because a restart is the usual case. The one
//! before it does not report again after a restart; if it does, there are two.

use tucano_api::{agent::NodeReport, ids::NodeName, state::AlertKind, units::Span};

use crate::state::State;

/// Leases without a report of a superseded agent after which the next report is alerted again.
const QUIET_LEASES: u32 = 10;

/// Whether another agent than this one counts for its worker.
pub(crate) fn is_superseded(state: &State, node: &NodeName, agent: &str) -> bool {
    let index = state.node_index.get(node);
    let last = index.and_then(|index| state.nodes[*index].last_sequence.as_ref());
    last.is_some_and(|(current, _)| current != agent)
}

/// Handles a report of a superseded agent: it is dropped, and alerted once if that agent is running.
pub(crate) fn reject(state: &mut State, index: usize, report: &NodeReport) {
    let quiet = Span(state.settings.lease.0.saturating_mul(QUIET_LEASES));
    let now = state.now;
    let node = &mut state.nodes[index];
    if !node.duplicates.observe(&report.agent_id, report.sequence) {
        return;
    }
    if node.duplicates.alert_is_due(now, now.after(quiet)) {
        let name = node.record.name.clone();
        let message = format!(
            "two agents claim to be worker {name} ({}): the one that was started last is used, reports of the other one \
             are refused. Stop one of them, or give it another name and ip in its agent.toml",
            node.worker.ip
        );
        state.alert(AlertKind::NodeContested, name, message);
    }
}
