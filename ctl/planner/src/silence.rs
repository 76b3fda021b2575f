//! Mass silence: many workers stop reporting at once. Then it is more likely that the network between them and the
//! controller has failed than that they have: each gets one further lease, in which its processes stay placed and routed.
//!
//! After total silence the further lease counts from the first report that comes, for as long as no worker reports there
//! is no other place for the processes. Restart commands are run meanwhile. A mass silence always ends: with a worker's
//! report, or with its further lease.

use tucano_api::{
    state::{AlertKind, NodeCondition},
    units::Span,
};

use crate::{
    messages,
    state::{MassSilence, Node, State},
};

/// Whether so many workers are silent that those whose lease has expired get a further one: at least two, and more than
/// a third.
pub(crate) fn is_mass(state: &State) -> bool {
    let workers = state.nodes.iter().filter(|node| counts(node)).count();
    let silent = silent(state).count();
    silent >= 2 && 3 * silent > workers
}

/// Whether no worker reports.
pub(crate) fn is_total(state: &State) -> bool {
    let mut nodes = state.nodes.iter();
    !nodes.any(|node| node.is_alive() && !is_silent(state, node))
}

/// Gives a worker whose lease has expired a further one.
pub(crate) fn begin(state: &mut State, index: usize) {
    if state.mass_silence.is_none() {
        alert_begin(state);
    }
    state.mass_silence.get_or_insert_default();
    let until = state.now.after(state.settings.lease);
    state.nodes[index].silence = Some(Some(until));
    state.alive_workers_changed();
}

/// The first report after total silence: every silent worker has a lease from now on.
pub(crate) fn first_report(state: &mut State) {
    if state.mass_silence.is_none() || !is_total(state) {
        return;
    }
    let until = state.now.after(state.settings.lease);
    for node in &mut state.nodes {
        if let Some(silence) = &mut node.silence {
            *silence = Some(until);
        }
    }
}

/// Workers whose further lease has expired, although others report.
pub(crate) fn expired(state: &mut State) -> Vec<usize> {
    let now = state.now;
    let due = |node: &Node| node.silence.flatten().is_some_and(|until| until <= now);
    let due: Vec<usize> = (0..state.nodes.len())
        .filter(|index| due(&state.nodes[*index]))
        .collect();
    if !due.is_empty() && is_total(state) {
        for index in &due {
            state.nodes[*index].silence = Some(None);
        }
    }
    due
}

/// Ends a worker's silence: it reports again, or it is lost.
pub(crate) fn end(state: &mut State, index: usize, lost: bool) {
    if state.nodes[index].silence.take().is_none() {
        return;
    }
    let Some(mut mass) = state.mass_silence else {
        return;
    };
    mass.returned += usize::from(!lost);
    mass.lost += usize::from(lost);
    state.mass_silence = Some(mass);
    if state.nodes.iter().all(|node| node.silence.is_none()) {
        state.mass_silence = None;
        alert_end(state, mass);
    }
}

/// A worker counts once it has been alive, until it is missing or dead.
fn counts(node: &Node) -> bool {
    node.record.condition == NodeCondition::Alive
}

/// The workers from which nothing has come for more than half a lease. Those that stopped at the same moment differ by a
/// report interval.
fn silent(state: &State) -> impl Iterator<Item = &Node> {
    let nodes = state.nodes.iter().filter(|node| counts(node));
    nodes.filter(|node| is_silent(state, node))
}

fn is_silent(state: &State, node: &Node) -> bool {
    let half = Span(state.settings.lease.0 / 2);
    node.silence.is_some() || state.now.since(node.leased_at) > half
}

fn alert_begin(state: &mut State) {
    let names = silent(state).map(|node| node.record.name.to_string());
    let names: Vec<String> = names.collect();
    let workers = state.nodes.iter().filter(|node| counts(node)).count();
    let lease = state.settings.lease;
    let message = format!(
        "{} of {workers} workers have stopped reporting at once ({}): their processes and routes are kept for one further \
         lease of {lease}, after total silence counted from the first report. Check the network between them and the \
         controller",
        names.len(),
        messages::some_of(names.clone()),
    );
    state.alert(AlertKind::MassSilence, "cluster", message);
}

fn alert_end(state: &mut State, mass: MassSilence) {
    let message = format!(
        "the mass silence is over: {} again, {} not returned",
        messages::plural(mass.returned, "worker reports", "workers report"),
        messages::plural(mass.lost, "worker has", "workers have"),
    );
    state.alert(AlertKind::MassSilenceEnded, "cluster", message);
}
