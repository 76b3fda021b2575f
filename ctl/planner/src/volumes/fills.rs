//! Volumes that are filled before their slot has them: with the volumes of another worker, or with a backup. Each has an instance of its
//! own, which is filled while the slot has no process. The earlier instances stay the slot's until all new ones are whole, and exist
//! until the worker has reported the new ones.
//!
//! ```text
//!  waiting ──(no process is left)──> copying ──(all are whole)──> installing ──(reported)──> the slot's; the earlier one is removed
//!     └──────────────┬──────────────────┘
//!                 given up ──> removing
//! ```

use std::net::SocketAddr;

use tucano_api::{
    agent::VolumeInstance,
    ids::{NodeName, ServiceName, VolumeId},
    reasons::PendingReason,
    state::{AlertKind, MoveView},
    volumes::{FillReport, FillSource, VolumeExport, VolumeFill},
};

use super::{begin_removal, place, reported, targets, update, user_of};
use crate::{
    backups,
    model::{Fill, FillFrom, FillStage, VolumeRecord},
    state::{Node, State},
};

/// Why the volumes of a slot cannot be moved to a worker. A message for the user.
pub(crate) fn obstacle(state: &State, id: &VolumeId, to: &NodeName) -> Option<String> {
    let service = id.service();
    let volumes: Vec<&VolumeRecord> = state.volumes.kept_of_slot(&service, id.slot()).collect();
    let here = &volumes.first()?.node;
    let target = incoming(state, &service, id.slot()).next();
    if here == to {
        return target
            .is_none()
            .then(|| format!("volume {id} is on {to} already"));
    }
    if let Some(target) = target {
        let other = &target.node;
        return Some(format!(
            "volume {id} is being moved to {other}: `tucano volume move {id} {here}` keeps it on {here}"
        ));
    }
    if let Some(volume) = volumes.iter().find(|it| it.fill.is_some()) {
        return Some(format!(
            "volume {} has just been moved to {here}: try again when {here} has reported it",
            volume.volume.id
        ));
    }
    source_obstacle(state, &volumes)
        .or_else(|| target_obstacle(state, &service, id.slot(), &volumes, to))
}

fn source_obstacle(state: &State, volumes: &[&VolumeRecord]) -> Option<String> {
    let here = &volumes.first()?.node;
    if let Some(obstacle) = targets::absent(state, here) {
        return Some(obstacle);
    }
    if !can_copy(&state.nodes[*state.node_index.get(here)?]) {
        return Some(old_agent(here));
    }
    volumes.iter().find_map(|volume| {
        let id = &volume.volume.id;
        if let Some(problem) = &volume.problem {
            return Some(format!("volume {id} on {here} cannot be used: {problem}"));
        }
        (!volume.confirmed).then(|| format!("volume {id} is being created: try again when it is"))
    })
}

fn target_obstacle(
    state: &State,
    service: &ServiceName,
    slot: u32,
    volumes: &[&VolumeRecord],
    to: &NodeName,
) -> Option<String> {
    let node = match targets::worker(state, to) {
        Ok(node) => node,
        Err(obstacle) => return Some(obstacle),
    };
    if !can_copy(node) {
        return Some(old_agent(to));
    }
    let sizes = volumes.iter().map(|it| it.size.0);
    let needed = sizes.fold(0, u64::saturating_add);
    if let Some(obstacle) = targets::no_room(state, node, needed, "those of the slot") {
        return Some(obstacle);
    }
    let mut all = place(node).into_iter().flat_map(|place| &place.all);
    let other = all.find(|it| volumes.iter().any(|own| own.volume.id == it.volume.id));
    if let Some(other) = other {
        return Some(targets::occupied(&other.volume.id, to));
    }
    let config = &state.services.get(service)?.current().config;
    if slot > config.concurrency {
        return None;
    }
    if let Some(obstacle) = targets::cannot_run(state, node, config) {
        return Some(obstacle);
    }
    targets::no_memory(node, config).or_else(|| targets::no_devices(state, node, config))
}

fn old_agent(node: &NodeName) -> String {
    format!("the agent of {node} does not copy volumes: upgrade it first")
}

/// Begins to move the volumes of a slot, or gives that up where they are to stay. A no-op where there is an obstacle.
pub(crate) fn begin(state: &mut State, id: &VolumeId, to: &NodeName) {
    let service = id.service();
    if obstacle(state, id, to).is_some() {
        return;
    }
    let slot = id.slot();
    let volumes: Vec<VolumeRecord> = state
        .volumes
        .kept_of_slot(&service, slot)
        .cloned()
        .collect();
    if volumes.first().is_none_or(|it| it.node == *to) {
        return give_up(state, &service, slot);
    }
    for volume in volumes {
        state.counters.last_volume = state.counters.last_volume.saturating_add(1);
        let fill = Fill {
            from: FillFrom::Volume {
                node: volume.node,
                instance: volume.volume.instance,
            },
            stage: FillStage::Waiting,
        };
        let record = VolumeRecord {
            volume: VolumeInstance {
                id: volume.volume.id,
                instance: state.counters.last_volume,
            },
            node: to.clone(),
            size: volume.size,
            confirmed: false,
            removing: false,
            away_since: None,
            problem: None,
            alerted: volume.alerted,
            fill: Some(fill),
            load: None,
        };
        super::adopt(state, record);
    }
    advance(state);
    state.changes.reconcile.insert(service);
}

/// The volumes stay where they are. What was copied is removed.
fn give_up(state: &mut State, service: &ServiceName, slot: u32) {
    let targets: Vec<VolumeInstance> = super::instances(incoming(state, service, slot));
    for target in targets {
        let fill = state.volumes.get(&target).and_then(|it| it.fill.as_ref());
        let source = fill.and_then(|fill| fill.from.node()).cloned();
        state.changes.reassign.extend(source);
        begin_removal(state, &target);
    }
    state.changes.reconcile.insert(service.clone());
}

/// These volumes are not filled. The slot gets its process where it had it; one that has no other volume waits.
fn fail(state: &mut State, target: &VolumeInstance, why: &str) {
    let Some(record) = state.volumes.get(target) else {
        return;
    };
    let id = target.id.clone();
    let service = id.service();
    let node = record.node.clone();
    let is_move = record
        .fill
        .as_ref()
        .is_some_and(|fill| fill.from.node().is_some());
    let earlier = super::present(state, &id).filter(|it| it.volume != *target);
    let Some(earlier) = earlier.map(|it| it.node.clone()) else {
        if record.problem.as_deref() != Some(why) {
            update(state, target, |record| {
                record.problem = Some(why.to_owned())
            });
            let message = format!(
                "volume {id} was not restored on {node}: {why}. Its slot waits: restore it again"
            );
            state.alert(
                AlertKind::VolumeNotRestored,
                format!("restore of {id}"),
                message,
            );
        }
        return;
    };
    give_up(state, &service, id.slot());
    if is_move {
        let message = format!("volume {id} was not moved to {node}, it stays on {earlier}: {why}");
        state.alert(AlertKind::VolumeNotMoved, format!("move of {id}"), message);
    } else {
        let message =
            format!("volume {id} was not restored on {node}, it is on {earlier} as it was: {why}");
        state.alert(
            AlertKind::VolumeNotRestored,
            format!("restore of {id}"),
            message,
        );
    }
}

/// Takes every move one stage further, where the workers' reports allow that.
pub(crate) fn advance(state: &mut State) {
    let filling: Vec<VolumeInstance> = state.volumes.filling().cloned().collect();
    for volume in filling {
        let Some(record) = state.volumes.get(&volume).filter(|it| !it.removing) else {
            continue;
        };
        let Some(fill) = record.fill.clone() else {
            continue;
        };
        match fill.stage {
            FillStage::Waiting if is_at_rest(state, &volume.id, &fill) => match fill.from {
                FillFrom::Snapshot {
                    id,
                    replaces,
                    load: true,
                } => super::restores::begin_load(state, &volume, id, replaces),
                _ => set_stage(state, &volume, FillStage::Copying),
            },
            FillStage::Waiting => {}
            FillStage::Copying => copied(state, &volume),
            FillStage::Installing => installed(state, &volume),
        }
    }
}

/// Gives up moves to a worker that is not there: the slot has no process meanwhile.
pub(crate) fn check_target(state: &mut State, name: &NodeName, why: &str) {
    let on = state.volumes.on(name);
    // A volume that is restored has no other place to be: its slot waits for the worker.
    let is_move = |record: &VolumeRecord| {
        record
            .fill
            .as_ref()
            .is_some_and(|fill| fill.from.node().is_some())
    };
    let targets = on.filter(|record| is_incoming(record) && !record.removing && is_move(record));
    for target in super::instances(targets) {
        // One failure gives up all volumes of the slot.
        if state.volumes.get(&target).is_some_and(|it| !it.removing) {
            fail(state, &target, why);
        }
    }
}

/// Why a slot has no process while its volumes are moved, and the worker that it gets one on.
pub(crate) fn reason(
    state: &State,
    service: &ServiceName,
    slot: u32,
) -> Option<(PendingReason, usize)> {
    let target = incoming(state, service, slot).next().or_else(|| {
        let mut kept = state.volumes.kept_of_slot(service, slot);
        kept.find(|record| record.fill.is_some())
    })?;
    let volume = target.volume.id.clone();
    let reason = match target.fill.as_ref()?.from.node() {
        Some(from) => PendingReason::VolumeMoving {
            volume,
            from: from.clone(),
            to: target.node.clone(),
        },
        None => PendingReason::VolumeRestoring {
            volume,
            node: target.node.clone(),
            problem: target.problem.clone(),
        },
    };
    Some((reason, *state.node_index.get(&target.node)?))
}

/// The move of a volume that its slot still has.
pub(crate) fn moving(state: &State, record: &VolumeRecord) -> Option<MoveView> {
    view(state, record, |fill| fill.from.node().is_some())
}

/// The restoration of a volume from a backup.
pub(crate) fn restoring(state: &State, record: &VolumeRecord) -> Option<MoveView> {
    if let Some(load) = &record.load {
        let index = state.node_index.get(&record.node);
        let report = index.and_then(|index| reported(&state.nodes[*index], &record.volume));
        let report = report.and_then(|report| report.load.as_ref());
        return Some(MoveView {
            to: record.node.clone(),
            done: report.map(|it| it.done).unwrap_or_default(),
            total: None,
            problem: load.error.clone(),
        });
    }
    view(state, record, |fill| fill.from.node().is_none())
}

fn view(
    state: &State,
    record: &VolumeRecord,
    is_of_kind: impl Fn(&Fill) -> bool,
) -> Option<MoveView> {
    let id = &record.volume.id;
    let service = id.service();
    let mut targets = incoming(state, &service, id.slot());
    let target =
        targets.find(|it| it.volume.id == *id && it.fill.as_ref().is_some_and(&is_of_kind))?;
    let report = fill_report(state, target);
    let problem = report.and_then(|it| it.problem.clone());
    Some(MoveView {
        to: target.node.clone(),
        done: report.map(|it| it.done).unwrap_or_default(),
        total: report.and_then(|it| it.total),
        problem: problem.or_else(|| target.problem.clone()),
    })
}

/// What a worker is to fill.
pub(crate) fn of_node(state: &State, name: &NodeName) -> Vec<VolumeFill> {
    let on = state.volumes.on(name).filter(|record| !record.removing);
    let fills = on.filter_map(|record| {
        let fill = record.fill.as_ref()?;
        (fill.stage != FillStage::Waiting).then_some(())?;
        let (from, replaces) = match &fill.from {
            FillFrom::Volume { node, instance } => {
                let from = FillSource::Volume {
                    instance: *instance,
                    node: node.clone(),
                    address: address(state, node)?,
                };
                (from, None)
            }
            FillFrom::Snapshot { id, replaces, .. } => {
                let volume = &record.volume.id;
                let backup = backups::config(state, volume)?;
                let from = FillSource::Snapshot {
                    repository: backups::repository(state, volume, backup)?,
                    snapshot: id.clone(),
                };
                (from, *replaces)
            }
        };
        Some(VolumeFill {
            volume: record.volume.clone(),
            size: record.size,
            from,
            replaces,
            install: fill.stage == FillStage::Installing,
        })
    });
    fills.collect()
}

/// What other workers may read of a worker's volumes.
pub(crate) fn exports(state: &State, name: &NodeName) -> Vec<VolumeExport> {
    let filling = state.volumes.filling();
    let filling = filling.filter_map(|volume| state.volumes.get(volume));
    let exports = filling
        .filter(|record| !record.removing)
        .filter_map(|record| {
            let fill = record.fill.as_ref()?;
            let FillFrom::Volume { node, instance } = &fill.from else {
                return None;
            };
            let is_read = fill.stage == FillStage::Copying && node == name;
            is_read.then(|| VolumeExport {
                volume: VolumeInstance {
                    id: record.volume.id.clone(),
                    instance: *instance,
                },
                to: record.node.clone(),
            })
        });
    exports.collect()
}

/// Whether the volume is not its slot's yet.
pub(crate) fn is_incoming(record: &VolumeRecord) -> bool {
    let stage = record.fill.as_ref().map(|fill| fill.stage);
    matches!(stage, Some(FillStage::Waiting | FillStage::Copying))
}

/// Whether a worker reports that it fills a volume.
pub(crate) fn is_reported(node: &Node, volume: &VolumeInstance) -> bool {
    place(node).is_some_and(|place| place.fills.iter().any(|it| it.volume == *volume))
}

/// The volumes that a slot is getting on another worker.
pub(crate) fn incoming<'a>(
    state: &'a State,
    service: &ServiceName,
    slot: u32,
) -> impl Iterator<Item = &'a VolumeRecord> {
    let all = state.volumes.of_slot(service, slot);
    all.filter(|record| !record.removing && is_incoming(record))
}

/// Whether no process of the slot is left, or can be, on the worker that has the earlier volume.
fn is_at_rest(state: &State, id: &VolumeId, fill: &Fill) -> bool {
    let earlier = super::present(state, id).map(|record| &record.node);
    let Some(node) = fill.from.node().or(earlier) else {
        return user_of(state, id).is_none();
    };
    let index = state.node_index.get(node);
    let is_surveyed = index.is_some_and(|index| {
        let node = &state.nodes[*index];
        node.is_usable() && node.is_surveyed
    });
    is_surveyed && user_of(state, id).is_none()
}

/// A worker has copied a volume, or has given up. The slot changes over once all of its volumes are whole.
fn copied(state: &mut State, volume: &VolumeInstance) {
    let failure = state.volumes.get(volume).and_then(|record| {
        let report = fill_report(state, record)?;
        report
            .failed
            .then(|| report.problem.clone().unwrap_or_default())
    });
    if let Some(problem) = failure {
        return fail(state, volume, &problem);
    }
    let service = volume.id.service();
    let slot = volume.id.slot();
    let is_whole = |record: &VolumeRecord| fill_report(state, record).is_some_and(|it| it.whole);
    if !incoming(state, &service, slot).all(is_whole) {
        return;
    }
    for target in super::instances(incoming(state, &service, slot)) {
        set_stage(state, &target, FillStage::Installing);
    }
}

/// A worker reports a volume that it was to install: it is the slot's now, and the earlier one can go.
fn installed(state: &mut State, volume: &VolumeInstance) {
    let Some(record) = state.volumes.get(volume) else {
        return;
    };
    let index = state.node_index.get(&record.node);
    let report = index.and_then(|index| reported(&state.nodes[*index], volume));
    if report.is_none_or(|report| report.problem.is_some()) {
        return;
    }
    let node = record.node.clone();
    update(state, volume, |record| {
        record.fill = None;
        record.confirmed = true;
    });
    take_over_alert(state, volume);
    state.changes.reassign.insert(node);
    remove_earlier(state, volume);
    state.changes.reconcile.insert(volume.id.service());
}

/// The volume can be used, which ends an alert about an earlier one of its name, too.
pub(super) fn take_over_alert(state: &mut State, volume: &VolumeInstance) {
    let service = volume.id.service();
    let is_alerted = {
        let mut all = state.volumes.of_slot(&service, volume.id.slot());
        all.any(|it| it.volume.id == volume.id && it.alerted && !it.removing)
    };
    if is_alerted {
        update(state, volume, |record| record.alerted = true);
    }
    super::alert_back(state, volume);
}

/// Removes the volumes whose place a later one of their name has taken.
pub(super) fn remove_earlier(state: &mut State, volume: &VolumeInstance) {
    let service = volume.id.service();
    let all = state.volumes.of_slot(&service, volume.id.slot());
    let earlier = all.filter(|it| {
        let is_earlier = it.volume.id == volume.id && it.volume.instance < volume.instance;
        is_earlier && !it.removing && it.fill.is_none()
    });
    for earlier in super::instances(earlier) {
        begin_removal(state, &earlier);
    }
}

fn set_stage(state: &mut State, volume: &VolumeInstance, stage: FillStage) {
    update(state, volume, |record| {
        if let Some(fill) = &mut record.fill {
            fill.stage = stage;
        }
    });
    let Some(record) = state.volumes.get(volume) else {
        return;
    };
    let source = record
        .fill
        .as_ref()
        .and_then(|fill| fill.from.node())
        .cloned();
    state.changes.reassign.insert(record.node.clone());
    state.changes.reassign.extend(source);
    state.changes.reconcile.insert(volume.id.service());
}

fn fill_report<'a>(state: &'a State, record: &VolumeRecord) -> Option<&'a FillReport> {
    let node = &state.nodes[*state.node_index.get(&record.node)?];
    let mut fills = place(node)?.fills.iter();
    fills.find(|it| it.volume == record.volume)
}

fn can_copy(node: &Node) -> bool {
    place(node).is_some_and(|place| place.can_copy)
}

fn address(state: &State, name: &NodeName) -> Option<SocketAddr> {
    let node = &state.nodes[*state.node_index.get(name)?];
    let report = node.report.as_ref()?;
    Some(SocketAddr::new(report.ip, report.agent_port))
}
