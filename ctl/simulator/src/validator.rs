//! The rules that no step may break, judged by its input and output alone.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{NodeReport, ProcessState},
    ids::{Generation, NodeName, ProcessId, Revision, ServiceName},
    routes::ServiceRoute,
    state::{AlertKind, NodeCondition, ProcessView, ServiceView},
    units::{Bytes, Timestamp},
};
use tucano_planner::{Action, Cluster, Event, ProcessRecord, Record, RevisionRecord, Snapshot};

use crate::{
    device_rules, disk, drains, job_rules::JobRules, name_rules::NameRules,
    placement_rules::PlacementRules, spread_rules, volume_rules::VolumeRules,
};

/// Checks every step, and what it has to know of the steps before.
#[derive(Debug, Clone, Default)]
pub struct Validator {
    /// The last report of each worker that was not late.
    reports: BTreeMap<NodeName, NodeReport>,
    /// Process ids that have been given out, with their nodes, and those of them that are gone.
    used: BTreeMap<ProcessId, NodeName>,
    /// The last revision of each of them.
    revisions: BTreeMap<ProcessId, Revision>,
    /// What a process of each revision reserves.
    memory: BTreeMap<(ServiceName, Revision), Bytes>,
    gone: BTreeSet<ProcessId>,
    /// What each generation of each node's desired set consisted of.
    assigned: BTreeMap<(NodeName, Generation), Vec<ProcessId>>,
    /// Workers that were silent, and workers that were alive, after the step before.
    silent: BTreeSet<String>,
    alive_before: BTreeSet<String>,
    /// The processes that got requests after the step before.
    routed: BTreeSet<ProcessId>,
    /// The last alert about each node and process.
    alerted: BTreeMap<String, AlertKind>,
    /// Workers that left the topology while no controller ran. One of the same name that is added later is another worker,
    /// except for a controller that dies before it has recorded that they left.
    left: BTreeSet<String>,
    volumes: VolumeRules,
    jobs: JobRules,
    names: NameRules,
    placement: PlacementRules,
}

impl Validator {
    /// Checks that a restored cluster is what was persisted, except for workers that have left the topology since.
    pub fn restored(&mut self, cluster: &Cluster, disk: &Snapshot) {
        self.reports.clear();
        self.names.restored();
        let restored = disk::sorted(cluster.snapshot());
        let mut expected = disk.clone();
        expected
            .processes
            .retain(|process| cluster.node(&process.node).is_some());
        expected.nodes = restored.nodes.clone();
        let left: Vec<_> = disk
            .nodes
            .iter()
            .filter(|node| cluster.node(&node.name).is_none())
            .collect();
        self.left
            .extend(left.iter().map(|node| node.name.to_string()));
        let first = left.iter().map(|node| node.generation.next()).max();
        let first = first.unwrap_or_default();
        expected.counters.first_generation = expected.counters.first_generation.max(first);
        assert_eq!(restored, expected, "restored as it was persisted");
        let persisted = disk
            .nodes
            .iter()
            .filter(|node| cluster.node(&node.name).is_some());
        for record in persisted {
            assert!(restored.nodes.contains(record), "{record:?}");
        }
    }

    /// Checks a step. `published` are the balancer's routes, if all of the step's actions were carried out.
    pub fn check(
        &mut self,
        now: Timestamp,
        event: &Event,
        actions: &[Action],
        cluster: &Cluster,
        published: Option<Option<&[ServiceRoute]>>,
    ) {
        self.observe(event, cluster);
        check_order(actions);
        let grown = self.grown(actions);
        let started = self.check_records(event, actions);
        let freed = self.freed(actions);
        self.volumes.check(event, actions, cluster);
        self.jobs.check(now, actions, cluster);
        self.placement.check(cluster, &started, &self.reports);
        device_rules::check_started(&started, &self.reports);
        self.check_silence(actions, cluster);
        self.check_assigned(actions, cluster);
        self.check_alerts(actions);
        self.check_routes(cluster);
        self.check_retired(actions, cluster);
        for service in cluster.services() {
            check_count(&service, cluster);
            spread_rules::check(&service, cluster, &started, &freed, &self.reports);
        }
        check_memory(cluster, started.iter().chain(&grown));
        drains::check_deadlines(now, cluster);
        check_deadline(now, cluster);
        let complete = published.is_some() && all_known(cluster) && !cluster.withholds_routes();
        self.names.check(actions, cluster, complete);
        if let Some(published) =
            published.filter(|_| all_known(cluster) && !cluster.withholds_routes())
        {
            assert_eq!(
                published.unwrap_or_default(),
                cluster.routes(),
                "the balancer knows"
            );
        }
    }

    fn observe(&mut self, event: &Event, cluster: &Cluster) {
        if let Event::NodeReported { node, report } = event
            && cluster.node(node).is_some()
        {
            let late = self.reports.get(node).is_some_and(|last| {
                last.agent_id == report.agent_id && report.sequence <= last.sequence
            });
            let accepted = cluster.last_report(node) == Some((&report.agent_id, report.sequence));
            if !late && accepted {
                self.reports.insert(node.clone(), (**report).clone());
                self.volumes.observe(node, report);
            }
        }
    }

    /// The processes that are ones of another revision since this step, with more memory.
    fn grown(&mut self, actions: &[Action]) -> Vec<ProcessRecord> {
        for record in records_of(actions) {
            if let Record::Service(service) = record {
                let memory =
                    |it: &RevisionRecord| ((service.name.clone(), it.revision), it.config.memory);
                self.memory.extend(service.revisions.iter().map(memory));
            }
        }
        let processes = records_of(actions).filter_map(|record| match record {
            Record::Process(process) => Some(process),
            _ => None,
        });
        let mut grown = Vec::new();
        for process in processes {
            let (id, revision) = (process.id.clone(), process.revision);
            let memory = |revision| self.memory.get(&(process.service.clone(), revision));
            let before = self.revisions.insert(id, revision);
            if before.is_some_and(|before| memory(before) < memory(revision)) {
                grown.push(process.clone());
            }
        }
        grown
    }

    /// No process id is given out twice. Returns the processes that this step has placed.
    fn check_records(&mut self, event: &Event, actions: &[Action]) -> Vec<ProcessRecord> {
        let records = records_of(actions);
        let mut started = Vec::new();
        for record in records {
            match record {
                Record::Process(process) => {
                    let used_again = self.gone.remove(&process.id);
                    assert!(
                        !used_again || still_runs(event, process),
                        "{} is used again",
                        process.id
                    );
                    let (id, node) = (process.id.clone(), process.node.clone());
                    if self.used.insert(id, node).is_none() {
                        started.push(process.clone());
                    }
                }
                Record::ProcessGone(id) => {
                    self.gone.insert(id.clone());
                }
                Record::VolumeGone(volume) => {
                    let is_of_name = |record: &Record| matches!(record, Record::Volume(it) if it.volume.id == volume.id);
                    let is_recorded = records_of(actions).any(is_of_name);
                    if !is_recorded && !self.volumes.has_another(volume) {
                        self.alerted.remove(volume.id.as_str());
                    }
                }
                Record::NodeGone(name) => {
                    self.alerted.remove(name.as_str());
                    self.left.remove(name.as_str());
                }
                _ => {}
            }
        }
        started
    }

    /// No more than one worker at a time, or a third of them, is lost without a further lease.
    fn check_silence(&mut self, actions: &[Action], cluster: &Cluster) {
        let missing = |action: &&Action| matches!(action, Action::Alert(it) if it.kind == AlertKind::NodeMissing);
        for action in actions.iter().filter(missing) {
            let Action::Alert(alert) = action else {
                continue;
            };
            let was_silent = self.silent.contains(&alert.subject);
            // A worker that has never reported is missed, but not lost.
            let is_lost = |action: &&Action| matches!(action, Action::Alert(it) if self.alive_before.contains(&it.subject));
            let lost_at_once = actions.iter().filter(missing).filter(is_lost).count();
            let workers = self.alive_before.len();
            let known = self.alive_before.contains(&alert.subject);
            assert!(
                was_silent || !known || lost_at_once < 2 || 3 * lost_at_once <= workers,
                "{lost_at_once} of {workers} workers are lost at once: {alert:?}"
            );
        }
        let nodes = cluster.nodes();
        let silent = nodes.iter().filter(|node| cluster.is_silent(&node.name));
        self.silent = silent.map(|node| node.name.to_string()).collect();
        let alive = nodes
            .iter()
            .filter(|node| node.condition == NodeCondition::Alive);
        self.alive_before = alive.map(|node| node.name.to_string()).collect();
    }

    /// Workers on which memory has become free in this step, perhaps only after something was placed.
    fn freed(&self, actions: &[Action]) -> BTreeSet<NodeName> {
        let records = records_of(actions);
        let gone = records.filter_map(|record| match record {
            Record::ProcessGone(id) => self.used.get(id),
            _ => None,
        });
        gone.cloned().collect()
    }

    /// A generation always means the same processes; those that the cluster has for the node.
    fn check_assigned(&mut self, actions: &[Action], cluster: &Cluster) {
        for action in actions {
            let Action::Assign(set) = action else {
                continue;
            };
            if cluster.node(&set.node).is_none() {
                assert!(
                    set.processes.is_empty(),
                    "a worker that has left ends what it runs"
                );
                continue;
            }
            let alive = cluster
                .node(&set.node)
                .is_some_and(|node| node.alive.is_some());
            assert!(alive, "only alive workers are sent a set");
            assert_eq!(cluster.desired_set(&set.node).as_ref(), Some(set));
            let ids: Vec<ProcessId> = set.processes.iter().map(|p| p.id.clone()).collect();
            let key = (set.node.clone(), set.generation);
            let known = self.assigned.entry(key).or_insert_with(|| ids.clone());
            assert_eq!(
                *known, ids,
                "generation {} of {} is another",
                set.generation, set.node
            );
        }
    }

    /// Each change of state is alerted once.
    fn check_alerts(&mut self, actions: &[Action]) {
        use AlertKind::*;
        for action in actions {
            let Action::Alert(alert) = action else {
                continue;
            };
            // These are independent of the node's condition; how often they are sent is a rule of its own.
            if matches!(
                alert.kind,
                NodeContested
                    | NodeHeld
                    | NodeReleased
                    | MassSilence
                    | MassSilenceEnded
                    | NodeUnreachable
                    | NodeReachable
                    | VolumeNotMoved
                    | VolumeNotRestored
                    | BackupFailed
                    | BackupStored
                    | JobFailed
                    | JobRecovered
                    | HookFailed
            ) {
                continue;
            }
            let before = self.alerted.insert(alert.subject.clone(), alert.kind);
            let is_another = self.left.remove(&alert.subject);
            assert!(
                may_follow(before, alert.kind) || is_another && may_follow(None, alert.kind),
                "{alert:?} after {before:?}"
            );
        }
    }

    /// Never more processes are routed than configured, and never one that is not desired or not healthy.
    fn check_routes(&self, cluster: &Cluster) {
        let snapshot = cluster.snapshot();
        let records: BTreeMap<&ProcessId, &ProcessRecord> = snapshot
            .processes
            .iter()
            .map(|record| (&record.id, record))
            .collect();
        for route in cluster.routes() {
            let view = cluster
                .service(&route.service)
                .expect("only services have routes");
            let serving = route.endpoints.iter().filter(|endpoint| !endpoint.draining);
            let configured = view.wanted() as usize;
            assert!(
                serving.count() <= configured,
                "more routed than configured: {route:#?}"
            );
            for endpoint in &route.endpoints {
                let record = records[&endpoint.process];
                assert_eq!(record.node, endpoint.node);
                assert_eq!(record.draining_since.is_some(), endpoint.draining);
                assert!((1..=100).contains(&endpoint.weight));
                let node = cluster
                    .node(&endpoint.node)
                    .expect("only known workers have routes");
                let kept = cluster.is_silent(&endpoint.node);
                assert!(
                    node.condition == NodeCondition::Alive || kept,
                    "a route to a lost worker"
                );
                let report = &self.reports[&endpoint.node];
                let process = report.processes.iter().find(|p| p.id == endpoint.process);
                let process = process.expect("only what is reported is routed");
                assert_eq!(process.state, ProcessState::Healthy);
                assert_eq!(process.node_port, Some(endpoint.address.port()));
                assert_eq!(node.ip, endpoint.address.ip());
            }
        }
    }

    /// A process that gets requests drains before it is removed, unless it is not healthy any more, or its worker or its
    /// service is gone.
    fn check_retired(&mut self, actions: &[Action], cluster: &Cluster) {
        for record in records_of(actions) {
            let Record::ProcessGone(id) = record else {
                continue;
            };
            let Some(node) = self.used.get(id).filter(|_| self.routed.contains(id)) else {
                continue;
            };
            let view = cluster.node(node);
            let is_reachable = view.is_some_and(|node| node.condition == NodeCondition::Alive);
            let service = id.service_name().parse();
            let is_wanted = service.is_ok_and(|name| cluster.service(&name).is_some());
            let report = self.reports.get(node);
            let mut processes = report.into_iter().flat_map(|report| &report.processes);
            let is_healthy = processes.any(|it| it.id == *id && it.state == ProcessState::Healthy);
            assert!(
                !(is_reachable && is_wanted && is_healthy),
                "{id} got requests and is removed at once"
            );
        }
        let routes = cluster.routes();
        let endpoints = routes.iter().flat_map(|route| &route.endpoints);
        let serving = endpoints.filter(|endpoint| !endpoint.draining);
        self.routed = serving.map(|endpoint| endpoint.process.clone()).collect();
    }
}

/// Whether the process is one of a lost worker that has come back with it.
fn still_runs(event: &Event, process: &ProcessRecord) -> bool {
    match event {
        Event::NodeReported { node, report } => {
            let mut reported = report.processes.iter();
            *node == process.node && reported.any(|it| it.id == process.id)
        }
        _ => false,
    }
}

pub(crate) fn records_of(actions: &[Action]) -> impl Iterator<Item = &Record> {
    actions.iter().flat_map(|action| match action {
        Action::Persist(records) => records.as_slice(),
        _ => &[],
    })
}

/// Persist, assign, publish, names, restart, alert: in this order, persist, publish and names at most once.
fn check_order(actions: &[Action]) {
    let rank = |action: &Action| match action {
        Action::Persist(_) => 0,
        Action::Assign(_) => 1,
        Action::Publish(_) => 2,
        Action::Names(_) => 3,
        Action::Restart { .. } => 4,
        Action::Alert(_) => 5,
    };
    let ranks: Vec<i32> = actions.iter().map(rank).collect();
    assert!(ranks.is_sorted(), "{ranks:?}");
    for once in [0, 2, 3] {
        assert!(ranks.iter().filter(|rank| **rank == once).count() <= 1);
    }
    if let Some(Action::Persist(records)) = actions.first() {
        let keys: BTreeSet<String> = records.iter().map(key).collect();
        assert_eq!(keys.len(), records.len(), "each key is written once");
    }
}

fn key(record: &Record) -> String {
    match record {
        Record::Service(service) => format!("service {}", service.name),
        Record::ServiceGone(name) => format!("service {name}"),
        Record::Process(process) => format!("process {}", process.id),
        Record::ProcessGone(id) => format!("process {id}"),
        Record::Node(node) => format!("node {}", node.name),
        Record::NodeGone(name) => format!("node {name}"),
        Record::Secret(secret) => format!("secret {}", secret.name),
        Record::SecretGone(name) => format!("secret {name}"),
        Record::Volume(volume) => format!("volume {}", volume.volume),
        Record::VolumeGone(volume) => format!("volume {volume}"),
        Record::Backups(backups) => format!("backups of {}", backups.id),
        Record::Job(job) => format!("job {}", job.service),
        Record::JobGone(name) => format!("job {name}"),
        Record::Run(run) => format!("run {}", run.id()),
        Record::RunGone { service, number } => format!("run {service}/{number}"),
        Record::Counters(_) => "counters".to_owned(),
    }
}

/// Every process of the concurrency is either placed or pending, and none is too many.
fn check_count(service: &ServiceView, cluster: &Cluster) {
    let snapshot = cluster.snapshot();
    let moving = |view: &&ProcessView| {
        let record = snapshot
            .processes
            .iter()
            .find(|record| record.id == view.report.id);
        record.is_some_and(|record| record.replaces.is_some())
    };
    let current: Vec<&ProcessView> = counted(service).collect();
    let moves = current.iter().copied().filter(moving).count();
    let pending: u32 = service
        .active
        .pending
        .iter()
        .map(|pending| pending.count)
        .sum();
    assert!(moves <= 1, "one at a time");
    if all_known(cluster) {
        let expected = service.wanted() as usize;
        assert_eq!(
            current.len() - moves + pending as usize,
            expected,
            "{service:#?}"
        );
    }
}

/// Nothing is placed, and nothing grows, where there is no memory left for it.
fn check_memory<'a>(cluster: &Cluster, receiving: impl Iterator<Item = &'a ProcessRecord>) {
    let receivers: BTreeSet<&NodeName> = receiving.map(|process| &process.node).collect();
    for name in receivers {
        let node = cluster.node(name).expect("placed on a known worker");
        let alive = node.alive.expect("placed on an alive worker");
        assert!(reserved(cluster, name) <= alive.metrics.memory_reservable.0);
    }
}

fn reserved(cluster: &Cluster, node: &NodeName) -> u64 {
    cluster.reserved(node)
}

/// Before its deadline a tick does nothing; after it, the deadline is a later one.
fn check_deadline(now: Timestamp, cluster: &Cluster) {
    let mut twin = cluster.clone();
    let deadline = twin.next_deadline();
    if let Some(early) = deadline
        .and_then(|at| at.0.checked_sub(1))
        .filter(|at| *at >= now.0)
    {
        let actions = twin.step(Timestamp(early), Event::Tick);
        assert_eq!(
            actions,
            [],
            "a tick before the deadline of {deadline:?} changes nothing"
        );
    }
    for _ in 0..4 {
        twin.step(now, Event::Tick);
    }
    assert!(
        twin.next_deadline().is_none_or(|at| at > now),
        "ticks do not repeat forever"
    );
}

fn may_follow(before: Option<AlertKind>, kind: AlertKind) -> bool {
    use AlertKind::*;
    match kind {
        NodeMissing => matches!(before, None | Some(NodeBack)),
        NodeDead => before == Some(NodeMissing),
        NodeBack => matches!(before, Some(NodeMissing | NodeDead)),
        // The planner does not send it.
        NodeContested | WireUnprotected | SecretsUnreadable | NodeHeld | NodeReleased
        | MassSilence | MassSilenceEnded | NodeUnreachable | NodeReachable | VolumeNotMoved
        | VolumeNotRestored | BackupFailed | BackupStored | JobFailed | JobRecovered
        | HookFailed => false,
        VolumeAway => matches!(before, None | Some(VolumeBack)),
        VolumeMissing => matches!(before, None | Some(VolumeBack | VolumeAway)),
        VolumeBack => matches!(before, Some(VolumeAway | VolumeMissing)),
        ProcessCrashing => before != Some(ProcessCrashing),
        ProcessOomKilled => before != Some(ProcessOomKilled),
        ProcessAtPidsLimit => before != Some(ProcessAtPidsLimit),
        ProcessRecovered => matches!(
            before,
            Some(ProcessCrashing | ProcessOomKilled | ProcessAtPidsLimit)
        ),
    }
}

pub(crate) fn counted(service: &ServiceView) -> impl Iterator<Item = &ProcessView> {
    let processes = service.active.processes.iter();
    processes.filter(|process| process.current && !process.draining)
}

/// Whether no worker is awaited.
fn all_known(cluster: &Cluster) -> bool {
    let nodes = cluster.nodes();
    nodes
        .iter()
        .all(|node| node.condition != NodeCondition::Unknown)
}
