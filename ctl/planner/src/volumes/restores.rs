//! Volumes that get the content of a backup. Where it is a copy of files, the worker fills the volume with it, as in a move. Where it
//! is the output of a command, the volume is created as on first use, and another command loads it before the process is routed to.

use tucano_api::{
    agent::VolumeInstance,
    ids::{NodeName, ServiceName, VolumeId},
    reasons::Absence,
    service::ServiceConfig,
    state::AlertKind,
    units::Bytes,
    volumes::{Consistency, LoadReport, Snapshot, VolumeLoad},
};

use super::{
    absence, adopt, begin_removal, configured, fills, forget, lost, place, present, room, targets,
    update,
};
use crate::{
    backups,
    model::{Fill, FillFrom, FillStage, Load, Restoration, VolumeRecord},
    state::{Node, State},
};

/// What a restoration does.
struct Plan {
    target: NodeName,
    volumes: Vec<Restored>,
}

/// A volume that is restored.
struct Restored {
    id: VolumeId,
    size: Bytes,
    /// Id of the backup.
    snapshot: String,
    /// Whether a command loads it.
    load: bool,
}

/// Why a volume cannot be restored. A message for the user.
pub(crate) fn obstacle(state: &State, restore: &Restoration) -> Option<String> {
    plan(state, restore).err()
}

/// Begins to restore a volume. A no-op where there is an obstacle.
pub(crate) fn begin(state: &mut State, restore: &Restoration) {
    let Ok(plan) = plan(state, restore) else {
        return;
    };
    let service = restore.id.service();
    for volume in plan.volumes {
        let Restored {
            id,
            size,
            snapshot,
            load,
        } = volume;
        let earlier = present(state, &id).cloned();
        let mut replaces = None;
        let alerted = earlier.as_ref().is_some_and(|it| it.alerted);
        if let Some(earlier) = earlier {
            if lost(state, &earlier.node).is_some() {
                // What its worker has is without a record from now on: it is kept there, and no process gets it.
                forget(state, &earlier.volume);
            } else if earlier.fill.is_some() {
                begin_removal(state, &earlier.volume);
            } else if earlier.node == plan.target {
                replaces = Some(earlier.volume.instance);
            }
        }
        state.counters.last_volume = state.counters.last_volume.saturating_add(1);
        let from = FillFrom::Snapshot {
            id: snapshot,
            replaces,
            load,
        };
        let record = VolumeRecord {
            volume: VolumeInstance {
                id,
                instance: state.counters.last_volume,
            },
            node: plan.target.clone(),
            size,
            confirmed: false,
            removing: false,
            away_since: None,
            problem: None,
            alerted,
            fill: Some(Fill {
                from,
                stage: FillStage::Waiting,
            }),
            load: None,
        };
        adopt(state, record);
    }
    fills::advance(state);
    state.changes.reconcile.insert(service);
}

/// What a process's agent is to load into a volume.
pub(crate) fn load(state: &State, record: &VolumeRecord) -> Option<VolumeLoad> {
    let load = record.load.as_ref()?;
    let backup = backups::config(state, &record.volume.id)?;
    Some(VolumeLoad {
        repository: backups::repository(state, &record.volume.id, backup)?,
        snapshot: load.snapshot.clone(),
        command: backup.load.clone(),
    })
}

/// Whether a slot's process gets no requests yet, because something is loaded into one of its volumes.
pub(crate) fn is_loading(state: &State, service: &ServiceName, slot: u32) -> bool {
    let mut volumes = state.volumes.kept_of_slot(service, slot);
    volumes.any(|record| record.load.is_some())
}

/// Takes in how far a load is.
pub(crate) fn observe(state: &mut State, volume: &VolumeInstance, report: &LoadReport) {
    let Some(record) = state.volumes.get(volume) else {
        return;
    };
    let Some(load) = record.load.clone() else {
        return;
    };
    if load.snapshot != report.snapshot {
        return;
    }
    if report.loaded {
        return loaded(state, volume);
    }
    if report.error.is_none() || load.error == report.error {
        return;
    }
    let error = report.error.clone().unwrap_or_default();
    let message = format!(
        "volume {} was not restored on {}: {error}. Its process gets no requests: restore it again",
        volume.id, record.node
    );
    update(state, volume, |record| {
        record.load = Some(Load {
            error: report.error.clone(),
            ..load
        });
    });
    state.alert(
        AlertKind::VolumeNotRestored,
        format!("restore of {}", volume.id),
        message,
    );
}

fn loaded(state: &mut State, volume: &VolumeInstance) {
    update(state, volume, |record| {
        record.load = None;
        record.confirmed = true;
    });
    if let Some(record) = state.volumes.get(volume) {
        state.changes.reassign.insert(record.node.clone());
    }
    fills::remove_earlier(state, volume);
    state.changes.reroute.insert(volume.id.service());
    state.changes.reconcile.insert(volume.id.service());
}

/// The slot's process is gone: the volume is created as on first use, and loaded then.
pub(super) fn begin_load(
    state: &mut State,
    volume: &VolumeInstance,
    snapshot: String,
    replaces: Option<u64>,
) {
    update(state, volume, |record| {
        record.fill = None;
        record.load = Some(Load {
            snapshot,
            error: None,
        });
    });
    fills::take_over_alert(state, volume);
    if let Some(instance) = replaces {
        let id = volume.id.clone();
        begin_removal(state, &VolumeInstance { id, instance });
    }
    state.changes.reconcile.insert(volume.id.service());
}

fn plan(state: &State, restore: &Restoration) -> Result<Plan, String> {
    let id = &restore.id;
    let service = id.service();
    let config = state.services.get(&service).map(|it| &it.current().config);
    let config = config.ok_or_else(|| {
        format!("service {service} is not configured: deploy it first, its configuration says where backups are")
    })?;
    if id.slot() > config.concurrency {
        return Err(format!(
            "service {service} has no slot {}: its `concurrency` is {}",
            id.slot(),
            config.concurrency
        ));
    }
    let given_up = check_present(state, restore, &service)?;
    let ids = match given_up {
        Some(node) => together(state, &service, id, &node),
        None => vec![id.clone()],
    };
    let volumes = ids.iter().map(|one| {
        let from = restore.from.as_deref().filter(|_| one == id);
        let (snapshot, load) = choose(state, one, from)?;
        let wanted = configured(state, one).map_or(Bytes(0), |it| it.size);
        let size = present(state, one).map_or(wanted, |it| it.size.max(wanted));
        Ok(Restored {
            id: one.clone(),
            size,
            snapshot,
            load,
        })
    });
    let volumes: Vec<_> = volumes.collect::<Result<_, String>>()?;
    let target = target(state, restore, config, &volumes)?;
    Ok(Plan { target, volumes })
}

/// Whether the present volume may be given up, or replaced. Returns its worker where it is given up.
fn check_present(
    state: &State,
    restore: &Restoration,
    service: &ServiceName,
) -> Result<Option<NodeName>, String> {
    let id = &restore.id;
    let Some(record) = present(state, id) else {
        return Ok(None);
    };
    let node = &record.node;
    if fills::incoming(state, service, id.slot()).any(|it| it.volume != record.volume) {
        return Err(format!("volume {id} is being moved or restored already"));
    }
    match lost(state, node) {
        Some((Absence::Left, _)) => return Ok(Some(node.clone())),
        Some((Absence::Silent, _)) if restore.lost.as_ref() == Some(node) => {
            return Ok(Some(node.clone()));
        }
        Some((Absence::OnHold, _)) => {
            return Err(format!("{node} is on hold: {}", Absence::OnHold.advice()));
        }
        Some((cause, since)) => {
            return Err(format!(
                "volume {id} is on {node}, which {}: {}, or give what it has there up with `--lost {node}`",
                cause.since(since),
                cause.advice()
            ));
        }
        None => {}
    }
    if let Some((cause, since)) = absence(state, node) {
        return Err(format!(
            "volume {id} is on {node}, which {}: {}, or try again when its lease has run out",
            cause.since(since),
            cause.advice()
        ));
    }
    let is_failed = record.fill.is_some() && record.problem.is_some()
        || record
            .load
            .as_ref()
            .is_some_and(|load| load.error.is_some());
    if record.fill.is_some() && !is_failed {
        return Err(format!("volume {id} is being restored already"));
    }
    if restore.lost.is_some() {
        return Err(format!(
            "volume {id} is on {node}, which is there: `--lost` is for workers that are not"
        ));
    }
    if !restore.replace && !is_failed && record.problem.is_none() {
        return Err(format!(
            "volume {id} is on {node} and can be used: `--replace` restores it, and removes what it has now"
        ));
    }
    Ok(None)
}

/// The volumes of a slot on a worker, which are given up together.
fn together(state: &State, service: &ServiceName, id: &VolumeId, node: &NodeName) -> Vec<VolumeId> {
    let all = state.volumes.kept_of_slot(service, id.slot());
    let there = all.filter(|record| record.node == *node);
    there.map(|record| record.volume.id.clone()).collect()
}

/// The backup that a volume gets, and whether a command loads it.
fn choose(state: &State, id: &VolumeId, from: Option<&str>) -> Result<(String, bool), String> {
    let Some(backup) = backups::config(state, id) else {
        return Err(format!(
            "service {} has no `backup` for volume {id}, which says where its backups are: add one, and deploy it",
            id.service_name()
        ));
    };
    if backups::repository(state, id, backup).is_none() {
        return Err(format!("a secret of the backups of volume {id} is missing"));
    }
    let is_dump = |snapshot: &Snapshot| snapshot.consistency == Consistency::Dump;
    let known = backups::snapshots(state, id);
    let mut there = known.iter().filter(|it| it.location == backup.to);
    let (snapshot, load) = match from {
        None => {
            let newest = there.next_back().ok_or_else(|| {
                format!(
                    "no backup of volume {id} in {} is known: name one with `--from ID`",
                    backup.to
                )
            })?;
            (newest.id.clone(), is_dump(newest))
        }
        Some(prefix) => {
            let matching: Vec<&Snapshot> = there.filter(|it| it.id.starts_with(prefix)).collect();
            match matching[..] {
                [one] => (one.id.clone(), is_dump(one)),
                [] => (prefix.to_owned(), !backup.dump.is_empty()),
                _ => {
                    return Err(format!(
                        "several backups of volume {id} begin with {prefix}: write more of the id"
                    ));
                }
            }
        }
    };
    if load && backup.load.is_empty() {
        return Err(format!(
            "backup {snapshot} of volume {id} is the output of a command: say with `load` in the configuration how it is restored"
        ));
    }
    Ok((snapshot, load))
}

/// The worker that gets the volumes.
fn target(
    state: &State,
    restore: &Restoration,
    config: &ServiceConfig,
    volumes: &[Restored],
) -> Result<NodeName, String> {
    let slot = restore.id.slot();
    let is_restored = |id: &VolumeId| volumes.iter().any(|it| it.id == *id);
    let mut kept = state.volumes.kept_of_slot(&config.name, slot);
    let own = present(state, &restore.id).filter(|it| lost(state, &it.node).is_none());
    let beside = kept.find(|record| !is_restored(&record.volume.id));
    let wanted = restore
        .on
        .as_ref()
        .or(own.map(|it| &it.node))
        .or(beside.map(|it| &it.node));
    if let (Some(wanted), Some(beside)) = (wanted, beside)
        && beside.node != *wanted
    {
        return Err(format!(
            "slot {slot} of service {} also has volume {} on {}: all volumes of a slot are on one worker",
            config.name, beside.volume.id, beside.node
        ));
    }
    let check = |name: &NodeName| target_obstacle(state, config, volumes, name);
    if let Some(wanted) = wanted {
        return match check(wanted) {
            None => Ok(wanted.clone()),
            Some(obstacle) => Err(obstacle),
        };
    }
    let free = |node: &&Node| room(state, node);
    let fitting = state
        .nodes
        .iter()
        .filter(|node| check(&node.record.name).is_none());
    match fitting.max_by_key(free) {
        Some(node) => Ok(node.record.name.clone()),
        None => {
            let mut obstacles = state
                .nodes
                .iter()
                .filter_map(|node| check(&node.record.name));
            let first = obstacles
                .next()
                .unwrap_or_else(|| "the topology has no worker".to_owned());
            Err(format!("no worker can have volume {}: {first}", restore.id))
        }
    }
}

fn target_obstacle(
    state: &State,
    config: &ServiceConfig,
    volumes: &[Restored],
    name: &NodeName,
) -> Option<String> {
    let node = match targets::worker(state, name) {
        Ok(node) => node,
        Err(obstacle) => return Some(obstacle),
    };
    for Restored { id, .. } in volumes {
        let backup = backups::config(state, id)?;
        if let Some(obstacle) = backups::node_obstacle(node, backup) {
            return Some(obstacle);
        }
        let own = present(state, id).map(|record| &record.volume);
        let mut all = place(node)?.all.iter();
        let other = all.find(|it| it.volume.id == *id && Some(&it.volume) != own);
        if other.is_some_and(|it| state.volumes.get(&it.volume).is_none()) {
            return Some(targets::occupied(id, name));
        }
    }
    let sizes = volumes.iter().map(|it| it.size.0);
    let needed = sizes.fold(0, u64::saturating_add);
    targets::cannot_run(state, node, config)
        .or_else(|| targets::no_room(state, node, needed, "these"))
}
