use tucano_api::{
    agent::{NodeMetrics, NodeReport, ProcessReport, ProcessState},
    ids::NodeName,
    units::{Bytes, Span, Timestamp},
};
use tucano_planner::{Action, Cluster, Event, Settings, Snapshot};

use tucano_simulator::{START, config, image, ip, name, node, workers};

const WORKERS: usize = 1000;
const SERVICES: usize = 50;
const PROCESSES_EACH: u32 = 200;

/// A cluster too large to validate each step of, whose agents are perfect.
struct Large {
    cluster: Cluster,
    now: Timestamp,
    sequence: u64,
    published: usize,
}

impl Large {
    fn new() -> Self {
        let snapshot = Snapshot::default();
        let cluster = Cluster::restore(snapshot, workers(WORKERS), Settings::default(), START);
        Self {
            cluster,
            now: START,
            sequence: 0,
            published: 0,
        }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.cluster.step(self.now, event);
        for action in &actions {
            if let Action::Publish(routes) = action {
                self.published = routes.iter().map(|route| route.endpoints.len()).sum();
            }
        }
        actions
    }

    /// One report of every worker, all of whose processes are healthy.
    fn report_all(&mut self, skip: Option<&NodeName>) {
        self.now = self.now.after(Span::secs(1));
        self.sequence += 1;
        for number in 1..=WORKERS {
            let node = node(number);
            if skip != Some(&node) {
                let report = Box::new(self.report(&node, number));
                self.step(Event::NodeReported { node, report });
            }
        }
        self.step(Event::Tick);
    }

    /// The balancers have nothing in flight to any draining process.
    fn drain_all(&mut self) {
        let processes = self.cluster.snapshot().processes.into_iter();
        let draining = processes.filter(|process| process.draining_since.is_some());
        let processes = draining.map(|process| process.id).collect();
        self.step(Event::Drained { processes });
    }

    fn report(&self, node: &NodeName, number: usize) -> NodeReport {
        let set = self.cluster.desired_set(node).unwrap();
        let healthy = set
            .processes
            .into_iter()
            .enumerate()
            .map(|(index, process)| ProcessReport {
                id: process.id,
                service: process.config.name,
                revision: process.revision,
                state: ProcessState::Healthy,
                reason: None,
                node_port: Some(20_000 + u16::try_from(index).unwrap()),
                ports: Default::default(),
                started_at: None,
                restarts: 0,
                last_exit: None,
                relaxed: Vec::new(),
                metrics: None,
                attempts: 0,
                listening: None,
                disk_used: None,
                last_lines: Vec::new(),
                devices: Vec::new(),
            });
        NodeReport {
            node: Some(node.clone()),
            ip: ip(number),
            agent_port: 7071,
            agent_id: "a".into(),
            sequence: self.sequence,
            version: "1.0.0".into(),
            architecture: "amd64".into(),
            live_changes: true,
            keys: Vec::new(),
            host_paths: Vec::new(),
            volumes: None,
            generation: set.generation,
            identity: Default::default(),
            held: None,
            metrics: NodeMetrics {
                memory_reservable: Bytes(8 << 30),
                ..NodeMetrics::default()
            },
            apis: None,
            notes: Vec::new(),
            devices: Default::default(),
            device_paths: Vec::new(),
            processes: healthy.collect(),
        }
    }
}

#[test]
fn a_thousand_workers_run_ten_thousand_processes_and_lose_one_worker() {
    let mut large = Large::new();
    large.report_all(None);
    for service in 0..SERVICES {
        let config = config(&format!("s{service}"), PROCESSES_EACH);
        large.step(Event::ServiceConfigured {
            platforms: Default::default(),
            config: Box::new(config),
            image: image(1),
        });
    }
    let each = WORKERS_SHARE;
    assert!(
        large
            .cluster
            .nodes()
            .iter()
            .all(|n| n.alive.as_ref().unwrap().processes == each)
    );
    large.report_all(None);
    assert_eq!(large.published, 10_000);

    let lost = node(500);
    for _ in 0..10 {
        large.report_all(Some(&lost));
    }
    let state = large.cluster.state();
    assert_eq!((state.alive_nodes.len(), state.dead_nodes.len()), (999, 1));
    assert!(
        state
            .active_services
            .iter()
            .all(|service| service.healthy == PROCESSES_EACH)
    );
    assert_eq!(large.published, 10_000);
}

/// Processes that each worker has when all is even.
const WORKERS_SHARE: u32 = SERVICES as u32 * PROCESSES_EACH / WORKERS as u32;

#[test]
fn one_service_of_ten_thousand_processes_scales_down_to_one() {
    let mut large = Large::new();
    large.report_all(None);
    large.step(Event::ServiceConfigured {
        platforms: Default::default(),
        config: Box::new(config("big", 10_000)),
        image: image(1),
    });
    large.report_all(None);
    assert_eq!(large.published, 10_000);
    large.step(Event::ServiceConfigured {
        platforms: Default::default(),
        config: Box::new(config("big", 1)),
        image: image(1),
    });
    large.drain_all();
    large.report_all(None);
    assert_eq!(
        large
            .cluster
            .service(&name("big"))
            .unwrap()
            .active
            .processes
            .len(),
        1
    );
}
