//! Holds: nodes whose agents hold a desired set that this controller has not issued. Its database is new or an older
//! copy, or the agent belongs to another cluster. Nothing is sent to such a node, so that what runs on it is never ended
//! by a controller that knows less than the agent. [`crate::adoption`] takes over what runs there.

use tucano_api::{
    agent::NodeReport,
    ids::{ClusterId, Epoch},
    state::{AlertKind, HoldCause},
};

use crate::{
    model::{Hold, SetVersion},
    state::{Node, State},
};

/// Puts the node on hold, or releases it, as its report demands.
pub(crate) fn update(state: &mut State, index: usize, report: &NodeReport) {
    let cluster = state.identity.cluster.clone();
    let unknown = newest_process(report) > state.counters.last_process;
    if changed_over(&mut state.nodes[index], cluster.as_ref(), report) {
        let name = state.nodes[index].record.name.clone();
        state.changes.nodes.insert(name);
    }
    let node = &state.nodes[index];
    let version = version_of(report);
    let cause = cause(node, cluster.as_ref(), report, unknown);
    match (&node.record.hold, cause) {
        (None, None) => {}
        (Some(hold), None)
            if hold.version == version && hold.cluster == report.identity.cluster => {}
        (Some(_), None) => release(state, index),
        (Some(hold), Some(cause)) if hold.cause == cause => {}
        (before, Some(cause)) => {
            let is_news = before.is_none();
            hold(state, index, report, cause, is_news);
        }
    }
    if unknown {
        // No process that is started meanwhile gets the number of one that may be adopted.
        state.counters.last_process = newest_process(report);
        state.changes.counters = true;
    }
    heal(state, index, report);
}

/// Whether so many workers are on hold that the controller does not know what the cluster runs: then its routes are not
/// published for the first time.
pub(crate) fn withhold_routes(state: &State) -> bool {
    let alive = state.nodes.iter().filter(|node| node.is_alive()).count();
    let held = state
        .nodes
        .iter()
        .filter(|node| node.is_alive() && node.record.hold.is_some());
    let held = held.count();
    !state.published && held > 0 && 2 * held >= alive
}

/// The epoch of the sets that are issued for a node.
pub(crate) fn epoch_of(state: &State, node: &Node) -> Epoch {
    state.identity.epoch.max(node.record.epoch)
}

/// Ends a hold: the node gets a new set.
pub(crate) fn release(state: &mut State, index: usize) {
    let node = &mut state.nodes[index];
    let name = node.record.name.clone();
    node.record.hold = None;
    node.held_set = None;
    let message = format!("worker {name} ({}) is managed again", node.worker.ip);
    state.changes.nodes.insert(name.clone());
    state.changes.reassign.insert(name.clone());
    state.changes.capacity = true;
    state.changes.publish = true;
    state.alive_workers_changed();
    state.alert(AlertKind::NodeReleased, name, message);
}

/// The set that an agent holds.
pub(crate) fn version_of(report: &NodeReport) -> SetVersion {
    SetVersion {
        epoch: report.identity.epoch,
        generation: report.generation,
        digest: report.identity.digest.clone(),
    }
}

/// Completes an adoption when the agent belongs to this cluster. Whether that has happened.
fn changed_over(node: &mut Node, cluster: Option<&ClusterId>, report: &NodeReport) -> bool {
    report.identity.cluster.as_ref() == cluster && node.record.adopts.take().is_some()
}

fn cause(
    node: &Node,
    cluster: Option<&ClusterId>,
    report: &NodeReport,
    unknown_processes: bool,
) -> Option<HoldCause> {
    if node.record.adopts.is_some() && report.identity.cluster == node.record.adopts {
        return None;
    }
    if let (Some(own), Some(other)) = (cluster, &report.identity.cluster)
        && own != other
    {
        return Some(HoldCause::OtherCluster);
    }
    if unknown_processes {
        return Some(HoldCause::Ahead);
    }
    let known = known(node);
    if report.generation.is_absurd_after(known.generation) {
        // No controller has issued it: see `heal`.
        return None;
    }
    let legacy = report.identity.is_legacy() || node.record.sent.is_none();
    let (epoch, known_epoch) = match legacy {
        true => (Epoch(0), Epoch(0)),
        false => (report.identity.epoch, known.epoch),
    };
    if (epoch, report.generation) > (known_epoch, known.generation) {
        return Some(HoldCause::Ahead);
    }
    let same = !legacy && (epoch, report.generation) == (known_epoch, known.generation);
    let digests = report.identity.digest.as_ref().zip(known.digest.as_ref());
    let differ = digests.is_some_and(|(held, issued)| held != issued);
    (same && differ).then_some(HoldCause::Diverged)
}

/// The newest set that the agent may hold by what this controller knows.
fn known(node: &Node) -> SetVersion {
    node.record.sent.clone().unwrap_or_else(|| SetVersion {
        generation: node.first_generation,
        ..SetVersion::default()
    })
}

fn newest_process(report: &NodeReport) -> u64 {
    let numbers = report.processes.iter().map(|process| process.id.number());
    numbers.max().unwrap_or(0)
}

fn hold(state: &mut State, index: usize, report: &NodeReport, cause: HoldCause, is_news: bool) {
    let node = &mut state.nodes[index];
    let name = node.record.name.clone();
    node.record.hold = Some(Hold {
        cause,
        version: version_of(report),
        cluster: report.identity.cluster.clone(),
    });
    // It may hold processes that this controller does not know.
    state.nodes[index].is_surveyed = false;
    state.changes.volume_nodes = true;
    state.changes.nodes.insert(name.clone());
    let node = &state.nodes[index];
    if is_news {
        let message = format!(
            "worker {name} ({}) is on hold: {cause}. Its processes keep running, and nothing is changed on it. \
             `tucano adopt` shows what runs there and takes it over; if the controller's database was lost, restore a \
             backup instead",
            node.worker.ip
        );
        state.alert(AlertKind::NodeHeld, name, message);
    }
}

/// A generation that no controller can have issued is overtaken by a higher epoch.
fn heal(state: &mut State, index: usize, report: &NodeReport) {
    let issued = epoch_of(state, &state.nodes[index]);
    let node = &mut state.nodes[index];
    let absurd = report.generation.is_absurd_after(known(node).generation);
    if !absurd || node.record.hold.is_some() || issued > report.identity.epoch {
        return;
    }
    node.record.epoch = report.identity.epoch.next();
    let name = node.record.name.clone();
    state.changes.nodes.insert(name.clone());
    state.changes.reassign.insert(name);
}
