//! Backups of volumes: when they are due, which workers make them, and what became of them.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::{NodeName, VolumeId},
    secrets::SecretVersion,
    service::Backup,
    state::{AlertKind, BackupView},
    units::{Span, Timestamp},
    volumes::{BackupEnd, BackupOrder, BackupReport, Repository, Snapshot},
};

use crate::{
    model::{BackupFailure, BackupRecord},
    state::{Node, State},
    volumes::{self, fills, place, present},
};

/// A backup that failed is tried again after this time, which doubles with each failure, or when the next one is due.
const RETRY_AFTER: Span = Span::secs(300);
/// Backups that are remembered of a volume. Its repository may have more.
const MAX_SNAPSHOTS: usize = 100;

/// When backups are due.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schedule {
    due: BTreeSet<(Timestamp, VolumeId)>,
    times: BTreeMap<VolumeId, Timestamp>,
    /// Those that were due and wait for their worker, or for their process.
    waiting: BTreeSet<VolumeId>,
}

impl Schedule {
    fn set(&mut self, id: &VolumeId, time: Option<Timestamp>) {
        if let Some(before) = self.times.remove(id) {
            self.due.remove(&(before, id.clone()));
        }
        self.waiting.remove(id);
        if let Some(time) = time {
            self.due.insert((time, id.clone()));
            self.times.insert(id.clone(), time);
        }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(time, _)| *time)
    }
}

/// Orders what is due.
pub(crate) fn expire(state: &mut State) {
    while let Some((time, id)) = state.schedule.due.first().cloned() {
        if time > state.now {
            return;
        }
        state.schedule.set(&id, None);
        if !order(state, &id) {
            state.schedule.waiting.insert(id);
        }
    }
}

/// Schedules the backups of the volumes that this step has changed.
pub(crate) fn schedule(state: &mut State) {
    let volumes = state.changes.volumes.iter().map(|volume| volume.id.clone());
    let mut changed: BTreeSet<VolumeId> = volumes.collect();
    changed.extend(state.changes.backups.iter().cloned());
    for service in &state.changes.services {
        let records = state.volumes.of_service(service);
        changed.extend(records.map(|record| record.volume.id.clone()));
    }
    for id in changed {
        let time = due(state, &id);
        let is_waiting = state.schedule.waiting.contains(&id);
        if time.is_none() {
            abandon(state, &id);
        }
        match time {
            // It is tried again with the next report of its worker.
            Some(time) if is_waiting && time <= state.now => {}
            time => state.schedule.set(&id, time),
        }
    }
}

/// Schedules the backups of all volumes.
pub(crate) fn schedule_all(state: &mut State) {
    let ids = state.volumes.all().map(|record| record.volume.id.clone());
    for id in ids.collect::<BTreeSet<_>>() {
        let time = due(state, &id);
        state.schedule.set(&id, time);
    }
}

/// Takes in what a worker reports of its backups, and orders those that wait for it.
pub(crate) fn observe(state: &mut State, index: usize) {
    let ends = place(&state.nodes[index]).map(|place| place.backups.clone());
    for report in ends.unwrap_or_default() {
        ended(state, index, report);
    }
    if state.schedule.waiting.is_empty() {
        return;
    }
    let name = state.nodes[index].record.name.clone();
    let on = state.volumes.on(&name).map(|record| &record.volume.id);
    let waiting = on.filter(|id| state.schedule.waiting.contains(id));
    for id in waiting.cloned().collect::<Vec<_>>() {
        if order(state, &id) {
            state.schedule.waiting.remove(&id);
        }
    }
}

/// Why a volume cannot be backed up now. A message for the user.
pub(crate) fn obstacle(state: &State, id: &VolumeId) -> Option<String> {
    let record = present(state, id)?;
    let Some(backup) = config(state, id) else {
        return Some(format!(
            "service {} has no `backup` for volume {id}: add one to its configuration, and deploy it",
            id.service_name()
        ));
    };
    if !record.confirmed || record.fill.is_some() || record.load.is_some() {
        return Some(format!("volume {id} does not have all of its content yet"));
    }
    if is_moving(state, id) {
        return Some(format!("volume {id} is being moved"));
    }
    if let Some(problem) = &record.problem {
        return Some(format!(
            "volume {id} on {} cannot be used: {problem}",
            record.node
        ));
    }
    if let Some((cause, since)) = volumes::absence(state, &record.node) {
        return Some(format!(
            "volume {id} is on {}, which {}: {}",
            record.node,
            cause.since(since),
            cause.advice()
        ));
    }
    let node = &state.nodes[*state.node_index.get(&record.node)?];
    node_obstacle(node, backup).or_else(|| {
        (needs_process(backup) && healthy_user(state, id).is_none())
            .then(|| format!("`dump` of volume {id} runs in its process, which is not healthy"))
    })
}

/// Why a worker cannot reach a repository. A message for the user.
pub(crate) fn node_obstacle(node: &Node, backup: &Backup) -> Option<String> {
    let name = &node.record.name;
    let Some(place) = place(node).filter(|place| place.can_back_up) else {
        return Some(format!(
            "{name} makes no backups: it needs TLS, an agent of this version, and the program tucano_backup"
        ));
    };
    let directory = backup.directory()?;
    let mut allowed = place.backup_paths.iter();
    (!allowed.any(|path| tucano_api::service::is_at_or_below(directory, path)))
        .then(|| format!("{name} does not list {directory} in `backup_paths` of its agent.toml"))
}

/// Somebody wants a backup now. One that is being made may lack what was written since it began: another one follows it.
pub(crate) fn request(state: &mut State, id: &VolumeId) {
    if obstacle(state, id).is_some() || present(state, id).is_none() {
        return;
    }
    update(state, id, |record| record.requested = true);
}

/// The backups that a worker is to make.
pub(crate) fn orders(state: &State, name: &NodeName) -> Vec<BackupOrder> {
    let on = state.volumes.on(name).filter(|record| !record.removing);
    let orders = on.filter_map(|record| {
        let id = &record.volume.id;
        let backups = state.backups.get(id)?;
        backups.ordered_at?;
        let is_kept = present(state, id).is_some_and(|kept| kept.volume == record.volume);
        let backup = config(state, id).filter(|_| is_kept)?;
        Some(BackupOrder {
            volume: record.volume.clone(),
            number: backups.number,
            repository: repository(state, id, backup)?,
            keep: backup.keep,
            dump: backup.dump.clone(),
            process: volumes::desired_user(state, id).cloned(),
            freeze_at_most: backup.freeze_at_most,
        })
    });
    orders.collect()
}

/// The repository of a volume's backups, with the newest versions of its secrets.
pub(crate) fn repository(state: &State, id: &VolumeId, backup: &Backup) -> Option<Repository> {
    let newest = |name| {
        let record = state.secrets.get(name)?;
        Some(SecretVersion {
            name: record.name.clone(),
            version: record.newest()?.version,
        })
    };
    let access_key = match &backup.access_key {
        Some(name) => Some(newest(name)?),
        None => None,
    };
    let earlier = last_at(state, id, &backup.to);
    Some(Repository {
        location: backup.to.clone(),
        password: newest(&backup.password)?,
        access_key,
        endpoint: backup.endpoint.clone(),
        region: backup.region.clone(),
        id: earlier.map(|snapshot| snapshot.repository.clone()),
    })
}

/// What is known of a volume's backups.
pub(crate) fn view(state: &State, id: &VolumeId) -> Option<BackupView> {
    let record = state.backups.get(id);
    if record.is_none() && config(state, id).is_none() {
        return None;
    }
    let failure = record.and_then(|record| record.failure.as_ref());
    Some(BackupView {
        last: record.and_then(|record| record.snapshots.last().cloned()),
        number: record.map_or(0, |record| record.number),
        ordered_at: record.and_then(|record| record.ordered_at),
        failed_at: failure.map(|failure| failure.at),
        error: failure.map(|failure| failure.error.clone()),
        next: state.schedule.times.get(id).copied(),
    })
}

/// A volume's backups that are known, oldest first.
pub(crate) fn snapshots<'a>(state: &'a State, id: &VolumeId) -> &'a [Snapshot] {
    state
        .backups
        .get(id)
        .map_or(&[], |record| &record.snapshots)
}

/// The configuration of a volume's backups.
pub(crate) fn config<'a>(state: &'a State, id: &VolumeId) -> Option<&'a Backup> {
    volumes::configured(state, id)?.backup.as_ref()
}

/// When the next backup of a volume is due; `None` where there is to be none, or one is ordered.
fn due(state: &State, id: &VolumeId) -> Option<Timestamp> {
    let backup = config(state, id)?;
    let record = present(state, id)?;
    let is_whole = record.confirmed && record.fill.is_none() && record.load.is_none();
    if !is_whole || record.problem.is_some() || is_moving(state, id) {
        return None;
    }
    let known = state.backups.get(id);
    if known.is_some_and(|it| it.ordered_at.is_some()) {
        return None;
    }
    if known.is_some_and(|it| it.requested) {
        return Some(state.now);
    }
    let every = backup.every?;
    let last = known.and_then(|it| it.snapshots.last());
    let regular = last.map_or(state.now, |last| last.at.after(every));
    let failure = known.and_then(|it| it.failure.as_ref());
    Some(failure.map_or(regular, |failure| {
        let doubled = 1_u64 << failure.times.saturating_sub(1).min(10);
        let pause = Span::millis(RETRY_AFTER.as_millis().saturating_mul(doubled)).min(every);
        failure.at.after(pause)
    }))
}

/// An order whose volume or configuration is gone, or whose volume is being moved, is withdrawn.
fn abandon(state: &mut State, id: &VolumeId) {
    let is_ordered = state
        .backups
        .get(id)
        .is_some_and(|it| it.ordered_at.is_some());
    let may_go_on = config(state, id).is_some()
        && !is_moving(state, id)
        && present(state, id).is_some_and(|it| it.confirmed && it.fill.is_none());
    if is_ordered && !may_go_on {
        update(state, id, |record| record.ordered_at = None);
        if let Some(record) = present(state, id) {
            let node = record.node.clone();
            state.changes.reassign.insert(node);
        }
    }
}

/// Orders a backup. Whether its worker can make it now.
fn order(state: &mut State, id: &VolumeId) -> bool {
    if obstacle(state, id).is_some() {
        return false;
    }
    let Some(node) = present(state, id).map(|record| record.node.clone()) else {
        return false;
    };
    let now = state.now;
    update(state, id, |record| {
        record.number = record.number.saturating_add(1);
        record.ordered_at = Some(now);
        record.requested = false;
    });
    state.changes.reassign.insert(node);
    true
}

fn ended(state: &mut State, index: usize, report: BackupReport) {
    let Some(end) = report.end else {
        return;
    };
    let id = report.volume.id;
    let is_present =
        present(state, &id).is_some_and(|kept| kept.volume.instance == report.volume.instance);
    let is_ordered = state
        .backups
        .get(&id)
        .is_some_and(|it| it.ordered_at.is_some() && it.number == report.number);
    if !is_present || !is_ordered {
        return;
    }
    let keep = config(state, &id).map_or(MAX_SNAPSHOTS, |it| it.keep as usize);
    let node = state.nodes[index].record.name.clone();
    let failed_before = state
        .backups
        .get(&id)
        .is_some_and(|it| it.failure.is_some());
    let now = state.now;
    let alert = match &end {
        BackupEnd::Failed { error } if !failed_before => {
            let message = format!("volume {id} on {node} was not backed up: {error}");
            Some((AlertKind::BackupFailed, message))
        }
        BackupEnd::Stored(_) if failed_before => Some((
            AlertKind::BackupStored,
            format!("volume {id} is backed up again"),
        )),
        _ => None,
    };
    update(state, &id, |record| {
        record.ordered_at = None;
        match end {
            BackupEnd::Stored(snapshot) => {
                record.failure = None;
                record.snapshots.push(snapshot);
                let many = record.snapshots.len();
                let surplus = many.saturating_sub(keep.min(MAX_SNAPSHOTS));
                record.snapshots.drain(..surplus);
            }
            BackupEnd::Failed { error } => {
                let times = record.failure.as_ref().map_or(0, |it| it.times);
                record.failure = Some(BackupFailure {
                    at: now,
                    error,
                    times: times.saturating_add(1),
                });
            }
        }
    });
    state.changes.reassign.insert(node);
    if let Some((kind, message)) = alert {
        state.alert(kind, format!("backup of {id}"), message);
    }
}

fn last_at<'a>(state: &'a State, id: &VolumeId, location: &str) -> Option<&'a Snapshot> {
    let known = snapshots(state, id).iter();
    known.rev().find(|snapshot| snapshot.location == location)
}

fn needs_process(backup: &Backup) -> bool {
    !backup.dump.is_empty()
}

fn healthy_user(state: &State, id: &VolumeId) -> Option<()> {
    let process = volumes::desired_user(state, id)?;
    let process = state.process(process)?;
    (process.is_healthy() && !process.is_draining()).then_some(())
}

fn is_moving(state: &State, id: &VolumeId) -> bool {
    let service = id.service();
    let mut incoming = fills::incoming(state, &service, id.slot());
    incoming.next().is_some()
}

fn update(state: &mut State, id: &VolumeId, change: impl FnOnce(&mut BackupRecord)) {
    let record = state.backups.entry(id.clone());
    change(record.or_insert_with(|| BackupRecord {
        id: id.clone(),
        number: 0,
        ordered_at: None,
        requested: false,
        snapshots: Vec::new(),
        failure: None,
    }));
    state.changes.backups.insert(id.clone());
}
