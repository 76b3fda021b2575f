//! Whatever is said to the planner at whatever time, it answers and keeps its rules.

use proptest::prelude::*;
use tucano_api::{
    agent::{
        Enforcement, Exit, NodeMetrics, NodeReport, NodeVolumes, ProcessReport, ProcessState,
        VolumeInstance, VolumeReport,
    },
    ids::{Generation, ProcessId, Revision},
    service::{AGENT_KEYS, ServiceConfig},
    units::{Bytes, Span, Timestamp},
    volumes::{BackupEnd, BackupReport, FillReport, LoadReport},
};
use tucano_planner::{Cluster, Event, Restoration, Settings, Snapshot};

use tucano_simulator::{
    config, image, ip, name, node, process, settings, with_volumes, worker, workers,
};

fn report() -> impl Strategy<Value = Event> {
    let process = (
        0..12_u64,
        0..7_u8,
        any::<Option<u16>>(),
        any::<u32>(),
        any::<bool>(),
        0..3_u64,
    );
    let processes = prop::collection::vec(process, 0..12);
    let head = (
        0..5_usize,
        0..3_u8,
        any::<u64>(),
        prop_oneof![0..9_u64, any::<u64>()],
    );
    let metrics = (
        any::<f64>(),
        any::<f64>(),
        prop_oneof![0..4_u64 << 30, any::<u64>()],
    );
    (head, metrics, processes).prop_map(|(head, metrics, processes)| {
        let (number, agent, sequence, generation) = head;
        let (cpu_used, load, reservable) = metrics;
        let report = NodeReport {
            node: Some(node(number)),
            ip: ip(number),
            agent_port: 0,
            agent_id: agent.to_string(),
            sequence,
            version: String::new(),
            architecture: String::new(),
            live_changes: true,
            keys: AGENT_KEYS.map(str::to_owned).to_vec(),
            host_paths: Vec::new(),
            volumes: (agent > 0).then(|| odd_volumes(sequence, reservable)),
            generation: Generation(generation),
            identity: Default::default(),
            held: None,
            metrics: NodeMetrics {
                cpu_used,
                load: [load; 3],
                memory_reservable: Bytes(reservable),
                ..NodeMetrics::default()
            },
            apis: None,
            notes: Vec::new(),
            devices: Default::default(),
            device_paths: Vec::new(),
            processes: processes.into_iter().map(odd_process).collect(),
        };
        Event::NodeReported {
            node: node(number),
            report: Box::new(report),
        }
    })
}

fn odd_volumes(number: u64, capacity: u64) -> NodeVolumes {
    let report = |id: &str, instance| VolumeReport {
        volume: VolumeInstance {
            id: id.parse().unwrap(),
            instance,
        },
        size: Bytes(number),
        used: Some(Bytes(capacity)),
        enforcement: Some(Enforcement::ProjectQuota),
        problem: number.is_multiple_of(3).then(|| "odd".into()),
        load: Some(LoadReport {
            snapshot: "s".into(),
            done: Bytes(number),
            loaded: number.is_multiple_of(2),
            error: number.is_multiple_of(3).then(|| "odd".into()),
        }),
    };
    NodeVolumes {
        capacity: Bytes(capacity),
        enforcement: Enforcement::ProjectQuota,
        can_copy: true,
        can_back_up: number.is_multiple_of(2),
        backup_paths: vec!["/".into()],
        backups: vec![BackupReport {
            volume: VolumeInstance {
                id: "b/data/1".parse().unwrap(),
                instance: number % 5,
            },
            number: number % 3,
            done: Bytes(capacity),
            end: Some(BackupEnd::Failed {
                error: "odd".into(),
            }),
        }],
        fills: vec![FillReport {
            volume: VolumeInstance {
                id: "b/data/1".parse().unwrap(),
                instance: number % 5,
            },
            done: Bytes(capacity),
            total: Some(Bytes(number)),
            whole: number.is_multiple_of(2),
            problem: number.is_multiple_of(3).then(|| "odd".into()),
            failed: number.is_multiple_of(9),
        }],
        all: vec![
            report("a/data/1", number % 7),
            report("b/data/1", number),
            report("b/data/1", u64::MAX),
        ],
    }
}

fn odd_process(parts: (u64, u8, Option<u16>, u32, bool, u64)) -> ProcessReport {
    let (number, state, node_port, restarts, oom_killed, at) = parts;
    use ProcessState::*;
    let states = [
        Assigned, Pulling, Starting, Healthy, Unhealthy, BackOff, Stopping,
    ];
    ProcessReport {
        id: process(&format!("a-{number}")),
        service: name("a"),
        revision: Revision(number),
        state: states[usize::from(state) % states.len()],
        reason: None,
        node_port,
        ports: Default::default(),
        started_at: None,
        restarts,
        last_exit: Some(Exit {
            code: None,
            signal: None,
            oom_killed,
            disk_exceeded: false,
            memory_peak: None,
            at: Timestamp(at),
        }),
        relaxed: Vec::new(),
        metrics: None,
        attempts: 0,
        listening: None,
        disk_used: None,
        last_lines: Vec::new(),
        devices: Vec::new(),
    }
}

fn event() -> impl Strategy<Value = Event> {
    let service = (0..2_usize, 0..6_u32, any::<bool>(), 0..3_u8);
    let span = || prop_oneof![0..5_u64, Just(2000), any::<u64>()].prop_map(Span::millis);
    let times = (span(), span(), span(), span(), span(), span());
    prop_oneof![
           6 => report(),
           4 => Just(Event::Tick),
           3 => service.prop_map(|(which, concurrency, huge, digit)| Event::ServiceConfigured {
    platforms: Default::default(),
               config: Box::new(ServiceConfig {
                   memory: if huge { Bytes(u64::MAX) } else { Bytes::mib(64) },
                   ..match digit {
                       2 => with_volumes(["a", "b"][which], concurrency, &[("data", 64)]),
                       _ => config(["a", "b"][which], concurrency),
                   }
               }),
               image: image(digit),
           }),
           1 => (0..3_usize, any::<bool>()).prop_map(|(which, volumes)| Event::ServiceRemoved {
               name: name(["a", "b", "c"][which]),
               volumes,
           }),
           1 => (0..3_usize, 1..4_u32).prop_map(|(which, slot)| Event::VolumeRemoved {
               id: format!("{}/data/{slot}", ["a", "b", "c"][which]).parse().unwrap(),
           }),
           1 => (0..3_usize, 1..4_u32, 0..5_usize).prop_map(|(which, slot, to)| Event::VolumeMoved {
               id: format!("{}/data/{slot}", ["a", "b", "c"][which]).parse().unwrap(),
               to: node(to),
           }),
           1 => (0..3_usize, 1..4_u32).prop_map(|(which, slot)| Event::BackupRequested {
               id: format!("{}/data/{slot}", ["a", "b", "c"][which]).parse().unwrap(),
           }),
           1 => (0..3_usize, 1..4_u32, 0..5_usize, any::<bool>()).prop_map(|(which, slot, on, flag)| {
               Event::VolumeRestored(Restoration {
                   id: format!("{}/data/{slot}", ["a", "b", "c"][which]).parse().unwrap(),
                   from: flag.then(|| "s".into()),
                   on: Some(node(on)),
                   lost: flag.then(|| node(on)),
                   replace: !flag,
               })
           }),
           1 => Just(Event::Adopt),
           1 => (0..5_usize, any::<bool>()).prop_map(|(number, ok)| Event::RestartFinished {
               node: node(number),
               result: if ok { Ok(()) } else { Err("failed".into()) },
           }),
           1 => prop::collection::vec((0..2_usize, 0..12_u64), 0..4).prop_map(|processes| Event::Drained {
               processes: processes.into_iter().map(|(which, n)| ProcessId::new(&name(["a", "b"][which]), n)).collect(),
           }),
           1 => (0..4_usize, any::<u32>(), 0..4_usize, times).prop_map(odd_configuration),
       ]
}

type Times = (Span, Span, Span, Span, Span, Span);

fn odd_configuration((count, attempts, kept, times): (usize, u32, usize, Times)) -> Event {
    let mut workers = workers(count);
    workers.extend([worker(1), worker(2)]);
    for worker in &mut workers {
        worker.can_restart = attempts % 2 == 1;
    }
    Event::Configured {
        workers,
        settings: Settings {
            lease: times.0,
            drain: times.1,
            rebalance_after: times.2,
            restart_backoff: times.3,
            restart_grace: times.4,
            recovered_after: times.5,
            restart_attempts: attempts,
            crash_alert_after: attempts % 3,
            revisions_kept: kept,
            runs_kept: kept,
            service_subnet: Default::default(),
            domain: String::new(),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_event_at_any_time_is_handled(
        steps in prop::collection::vec((prop_oneof![8 => 0..100_000_u64, 1 => any::<u64>()], event()), 1..60)
    ) {
        let mut cluster = Cluster::restore(Snapshot::default(), workers(3), settings(), Timestamp(0));
        for (now, event) in steps {
            cluster.step(Timestamp(now), event);
            check(&cluster);
        }
    }

    #[test]
    fn every_snapshot_can_be_restored(
        steps in prop::collection::vec((0..100_000_u64, event()), 1..30),
        lost in any::<u64>(),
        left in 0..4_usize,
    ) {
        let mut cluster = Cluster::restore(Snapshot::default(), workers(3), settings(), Timestamp(0));
        for (now, event) in steps {
            cluster.step(Timestamp(now), event);
        }
        let mut snapshot = cluster.snapshot();
        let mut index = 0;
        let mut keep = || { index += 1; lost >> (index % 64) & 1 == 0 };
        snapshot.services.retain(|_| keep());
        snapshot.processes.retain(|_| keep());
        snapshot.nodes.retain(|_| keep());
        snapshot.volumes.retain(|_| keep());
        let mut restored = Cluster::restore(snapshot, workers(left), settings(), Timestamp(50_000));
        for now in [50_000, 60_000, 500_000] {
            restored.step(Timestamp(now), Event::Tick);
            check(&restored);
        }
    }
}

/// What holds even where the workloads makes no sense.
fn check(cluster: &Cluster) {
    cluster.next_deadline();
    cluster.nodes();
    for route in cluster.routes() {
        let view = cluster.service(&route.service).unwrap();
        let serving = route
            .endpoints
            .iter()
            .filter(|endpoint| !endpoint.draining)
            .count();
        assert!(serving <= view.configured.config.concurrency as usize);
        let weights = route.endpoints.iter().map(|endpoint| endpoint.weight);
        assert!(
            weights
                .into_iter()
                .all(|weight| (1..=100).contains(&weight))
        );
    }
}
