//! Agents that report but cannot be reached. Their desired sets go with the answers to their reports; logs and commands
//! in their containers do not work.

use tucano_api::{
    ids::NodeName,
    state::AlertKind,
    units::{Span, Timestamp},
};

use crate::state::{Node, State};

/// Leases after which an agent that reports but cannot be reached is alerted.
const ALERT_AFTER_LEASES: u32 = 5;

/// Records that connections to an agent fail, or succeed again.
pub(crate) fn update(state: &mut State, name: &NodeName, reachable: bool) {
    let Some(index) = state.node_index.get(name).copied() else {
        return;
    };
    let now = state.now;
    let node = &mut state.nodes[index];
    match (reachable, node.unreachable) {
        (false, None) => node.unreachable = Some((now, false)),
        (true, Some((_, alerted))) => {
            node.unreachable = None;
            if alerted {
                let message = format!(
                    "the agent of worker {name} ({}) can be reached again",
                    node.worker.ip
                );
                state.alert(AlertKind::NodeReachable, name, message);
            }
        }
        _ => {}
    }
}

/// When the next unreachable agent is alerted.
pub(crate) fn next_deadline(state: &State) -> Option<Timestamp> {
    let nodes = state.nodes.iter();
    nodes
        .filter_map(|node| alert_at(node, state.settings.lease))
        .min()
}

/// Alerts agents that could not be reached for long.
pub(crate) fn expire(state: &mut State) {
    for index in 0..state.nodes.len() {
        let node = &mut state.nodes[index];
        let due = alert_at(node, state.settings.lease).is_some_and(|at| at <= state.now);
        let Some((since, alerted)) = node.unreachable.as_mut().filter(|_| due) else {
            continue;
        };
        *alerted = true;
        let (since, name) = (*since, node.record.name.clone());
        let message = format!(
            "worker {name} ({}) reports, but its agent cannot be reached for {}: its desired sets go with the answers to \
             its reports, and logs and exec do not work. Check the firewall for the agent's port",
            node.worker.ip,
            state.now.since(since),
        );
        state.alert(AlertKind::NodeUnreachable, name, message);
    }
}

fn alert_at(node: &Node, lease: Span) -> Option<Timestamp> {
    let (since, alerted) = node.unreachable.filter(|_| node.is_alive())?;
    let patience = Span(lease.0.saturating_mul(ALERT_AFTER_LEASES));
    (!alerted).then(|| since.after(patience))
}
