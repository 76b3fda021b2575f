//! The simulation: the controller's planner and disk, the network, and the agents.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::{Epoch, NodeName, ProcessId},
    routes::ServiceRoute,
    service::ServiceConfig,
    state::{Alert, AlertKind, NodeCondition, ServiceView},
    units::{Bytes, Span, Timestamp},
};
use tucano_planner::{
    Action, Cluster, Event, Followers, Identity, Platforms, Sealed, Settings, Snapshot, Worker,
};

use crate::{
    agent::{Agent, Workloads},
    balancer::{Balancer, Version},
    device_rules, disk, fixtures,
    fixtures::node,
    network::{Message, Network, Rng},
    validator::Validator,
};

/// When every simulation begins.
pub const START: Timestamp = Timestamp(1_000_000);

/// The simulation advances in steps of this.
pub const TICK: Span = Span::millis(100);
/// How long a restart command takes.
const COMMAND_TIME: Span = Span::millis(500);

/// What a simulation begins with.
pub struct Options {
    /// The topology.
    pub workers: Vec<Worker>,
    /// The planner's settings.
    pub settings: Settings,
    /// Memory that processes may reserve on each worker.
    pub reservable: Bytes,
    /// Seed of the network's faults.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: fixtures::workers(3),
            settings: fixtures::settings(),
            reservable: Bytes(8 << 30),
            seed: 1,
        }
    }
}

/// A simulation.
pub struct Sim {
    /// The present time.
    pub now: Timestamp,
    /// `None` while the controller is down.
    pub cluster: Option<Cluster>,
    /// The controller's disk.
    pub disk: Snapshot,
    /// The topology.
    pub workers: Vec<Worker>,
    /// Workers that have left it and may be added again.
    pub(crate) absent_workers: Vec<Worker>,
    /// The planner's settings.
    pub settings: Settings,
    /// The agents, also of workers that have left the topology.
    pub agents: BTreeMap<NodeName, Agent>,
    /// The network.
    pub network: Network,
    /// How programs behave.
    pub workloads: Workloads,
    /// The routes that the controller has published.
    pub published: Option<Vec<ServiceRoute>>,
    /// Their version.
    pub(crate) published_version: Version,
    /// The controller's present start.
    pub(crate) starts: u64,
    /// The balancers; none in simulations that are not about them.
    pub balancers: Vec<Balancer>,
    /// What the controller knows of them.
    pub(crate) followers: Followers,
    pub(crate) requests: Rng,
    /// All alerts that were sent.
    pub alerts: Vec<Alert>,
    /// All restart commands that were run, with the number of the attempt.
    pub restarts: Vec<(NodeName, u32)>,
    /// Workers whose restart command fails.
    pub unrestartable: BTreeSet<NodeName>,
    /// The controller dies in its next step that has actions, after having carried out this many.
    pub crash_after: Option<usize>,
    /// Processes that somebody had replaced.
    pub restarted: BTreeSet<ProcessId>,
    commands: Vec<(Timestamp, NodeName)>,
    reservable: Bytes,
    /// Checks every step.
    pub validator: Validator,
}

impl Sim {
    /// A cluster of so many workers, all alive.
    pub fn new(workers: usize) -> Self {
        Self::with(Options {
            workers: fixtures::workers(workers),
            ..Options::default()
        })
    }

    /// A cluster whose workers have all reported.
    pub fn with(options: Options) -> Self {
        let mut sim = Self::unreported(options);
        sim.run(Span::millis(300));
        sim
    }

    /// A cluster whose workers have not reported yet.
    pub fn unreported(options: Options) -> Self {
        let Options {
            workers,
            settings,
            reservable,
            seed,
        } = options;
        let mut sim = Self {
            now: START,
            cluster: None,
            disk: new_disk(1),
            agents: BTreeMap::new(),
            network: Network::reliable(seed),
            workloads: Workloads {
                crashing: BTreeSet::new(),
                unresponsive: BTreeSet::new(),
                start_time: Span::millis(300),
                run_time: Span::secs(2),
            },
            published: None,
            published_version: (0, 0),
            starts: 0,
            balancers: Vec::new(),
            followers: Followers::new(START),
            requests: Rng(seed),
            alerts: Vec::new(),
            restarts: Vec::new(),
            unrestartable: BTreeSet::new(),
            crash_after: None,
            restarted: BTreeSet::new(),
            commands: Vec::new(),
            validator: Validator::default(),
            absent_workers: Vec::new(),
            workers,
            settings,
            reservable,
        };
        sim.create_agents();
        sim.start_controller();
        sim
    }

    /// The agent of a worker.
    pub fn agent(&mut self, number: usize) -> &mut Agent {
        self.agents.get_mut(&node(number)).unwrap()
    }

    /// The planner's cluster, while the controller is up.
    pub fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("the controller is down")
    }

    /// Starts the controller from its disk.
    pub fn start_controller(&mut self) {
        let cluster = Cluster::restore(
            self.disk.clone(),
            self.workers.clone(),
            self.settings.clone(),
            self.now,
        );
        self.validator.restored(&cluster, &self.disk);
        self.starts += 1;
        self.followers = Followers::new(self.now);
        self.cluster = Some(cluster);
    }

    /// Kills the controller and starts it.
    pub fn restart_controller(&mut self) {
        self.cluster = None;
        self.start_controller();
    }

    /// The controller dies, and starts with another disk: a new one, or an older copy.
    pub fn replace_disk(&mut self, disk: Snapshot) {
        self.disk = disk;
        self.restarted.clear();
        self.validator = Validator::default();
        self.restart_controller();
    }

    /// Changes the topology.
    pub fn reconfigure(&mut self, workers: Vec<Worker>) {
        self.workers = workers;
        self.create_agents();
        self.event(Event::Configured {
            workers: self.workers.clone(),
            settings: self.settings.clone(),
        });
    }

    /// Deploys a service with image 1.
    pub fn deploy(&mut self, config: ServiceConfig) {
        self.deploy_image(config, 1);
    }

    /// Deploys a service.
    pub fn deploy_image(&mut self, config: ServiceConfig, image: u8) {
        self.deploy_platforms(config, image, Platforms::new());
    }

    /// Deploys a service whose image runs on some architectures only.
    pub fn deploy_platforms(&mut self, config: ServiceConfig, image: u8, platforms: Platforms) {
        let image = fixtures::image(image);
        let config = Box::new(config);
        self.event(Event::ServiceConfigured {
            config,
            image,
            platforms,
        });
    }

    /// Stores the secret that backups need.
    pub fn set_backup_secret(&mut self) {
        self.event(Event::SecretSet {
            name: "backups".parse().unwrap(),
            version: 1,
            sealed: Sealed::from(String::new()),
        });
    }

    /// Has the processes of a service replaced, if it exists. None of those that are there may be left in the end.
    pub fn restart(&mut self, service: &str) {
        let name = fixtures::name(service);
        let view = self.cluster.as_ref().and_then(|it| it.service(&name));
        let stored = |disk: &Snapshot| {
            let record = disk.services.iter().find(|it| it.name == name);
            record.map(|it| it.replaced_below)
        };
        let before = stored(&self.disk);
        self.event(Event::ServiceRestarted { name: name.clone() });
        // A controller that died before has promised nothing.
        let is_stored = stored(&self.disk) != before;
        let processes = view.into_iter().flat_map(|it| it.active.processes);
        let processes = processes.filter(|_| is_stored);
        self.restarted.extend(processes.map(|it| it.report.id));
    }

    /// Removes a service.
    pub fn remove(&mut self, service: &str) {
        let name = fixtures::name(service);
        self.event(Event::ServiceRemoved {
            name,
            volumes: false,
        });
    }

    /// Deploys a service and waits until it is complete.
    pub fn serve(&mut self, config: ServiceConfig) {
        let service = config.name.to_string();
        self.deploy(config);
        self.until_settled(&service);
    }

    /// Takes a step of the controller, if it is up; checks its actions and carries them out.
    pub fn event(&mut self, event: Event) -> Vec<Action> {
        let Some(mut cluster) = self.cluster.take() else {
            return Vec::new();
        };
        if let Event::Drained { processes } = &event {
            self.check_drained(&cluster, processes);
        }
        let before = self.validator.clone();
        let mut twin = cluster.clone();
        let actions = cluster.step(self.now, event.clone());
        assert_eq!(
            twin.step(self.now, event.clone()),
            actions,
            "the same events, the same actions"
        );
        let crash = self.crash_after.filter(|_| !actions.is_empty());
        let done = crash.map_or(actions.len(), |count| count.min(actions.len()));
        for action in &actions[..done] {
            self.carry_out(action.clone());
        }
        if done == 0 && crash.is_some() {
            self.validator = before;
        } else {
            let routes = self.published.as_deref();
            self.validator.check(
                self.now,
                &event,
                &actions,
                &cluster,
                crash.is_none().then_some(routes),
            );
        }
        if crash.is_some() {
            self.crash_after = None;
        } else {
            assert_eq!(
                disk::sorted(cluster.snapshot()),
                self.disk,
                "all that matters is on disk"
            );
            self.cluster = Some(cluster);
        }
        actions
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Span) {
        let end = self.now.after(span);
        while self.now < end {
            self.now = self.now.after(TICK);
            self.tick();
        }
    }

    /// Lets time pass until a condition holds.
    pub fn until(&mut self, what: &str, condition: impl Fn(&Sim) -> bool) {
        let deadline = self.now.after(Span::secs(300));
        while !condition(self) {
            assert!(
                self.now < deadline,
                "timed out: {what}: {:#?}",
                self.cluster().state()
            );
            self.run(TICK);
        }
    }

    /// Lets time pass until a service has exactly its processes, all healthy and current.
    pub fn until_settled(&mut self, service: &str) {
        self.until("all processes are healthy and no other exists", |sim| {
            let view = sim.service(service);
            let all = &view.active.processes;
            all.len() == view.wanted() as usize
                && all.iter().all(|process| process.routed && process.current)
        });
    }

    /// Lets time pass until a worker has this condition.
    pub fn until_condition(&mut self, number: usize, condition: NodeCondition) {
        self.until(&format!("w{number} is {condition:?}"), |sim| {
            sim.condition(number) == condition
        });
    }

    /// The condition of a worker.
    pub fn condition(&self, number: usize) -> NodeCondition {
        self.cluster().node(&node(number)).unwrap().condition
    }

    /// A service as the API shows it.
    pub fn service(&self, service: &str) -> ServiceView {
        self.cluster().service(&fixtures::name(service)).unwrap()
    }

    /// How many processes of a service each worker has, in the topology's order; draining ones do not count.
    pub fn spread(&self, service: &str) -> Vec<usize> {
        let view = self.service(service);
        let on = |worker: &Worker| {
            let all = view.active.processes.iter();
            all.filter(|p| p.node == worker.name && !p.draining).count()
        };
        self.workers.iter().map(on).collect()
    }

    /// Identities of a service's processes.
    pub fn ids(&self, service: &str) -> Vec<ProcessId> {
        let view = self.service(service);
        view.active
            .processes
            .into_iter()
            .map(|process| process.report.id)
            .collect()
    }

    /// Processes that the balancer sends requests of a service to.
    pub fn routed(&self, service: &str) -> Vec<ProcessId> {
        let table = self.published.iter().flatten();
        let route = table.filter(|route| route.service.as_str() == service);
        let endpoints = route.flat_map(|route| &route.endpoints);
        endpoints
            .filter(|e| !e.draining)
            .map(|e| e.process.clone())
            .collect()
    }

    fn create_agents(&mut self) {
        for worker in &self.workers {
            let new = || Agent::new(worker.clone(), self.reservable);
            self.agents.entry(worker.name.clone()).or_insert_with(new);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Persist(records) => disk::write(&mut self.disk, &records),
            Action::Assign(set) => self.network.send(self.now, Message::Desired(set)),
            Action::Publish(routes) => self.publish(routes),
            // The validator is told.
            Action::Names(_) => {}
            Action::Restart { node, attempt } => {
                self.commands
                    .push((self.now.after(COMMAND_TIME), node.clone()));
                self.restarts.push((node, attempt));
            }
            Action::Alert(alert) => self.alerts.push(alert),
        }
    }

    fn tick(&mut self) {
        while let Some(message) = self.network.receive(self.now) {
            self.deliver(message);
        }
        for agent in self.agents.values_mut() {
            if let Some(report) = agent.poll(self.now, &self.workloads) {
                let report = Message::Report(agent.name.clone(), Box::new(report));
                self.network.send(self.now, report);
            }
        }
        for agent in self.agents.values().filter(|agent| agent.powered) {
            let (used, all) = (agent.memory_used(), agent.metrics.memory_reservable.0);
            let started = agent.run_starts.values();
            assert!(
                started.max().is_none_or(|times| *times == 1),
                "{} has started a process of a run again: {:?}",
                agent.name,
                agent.run_starts
            );
            assert!(
                used <= all || agent.overcommitted,
                "{} has containers of {used} bytes and only {all}",
                agent.name
            );
            agent.check_architecture();
            device_rules::check_containers(agent);
            assert!(
                agent.millicpus_used() <= u64::from(agent.metrics.cpus) * 1000,
                "the CPUs of {} are reserved twice",
                agent.name
            );
        }
        self.use_volumes();
        self.check_volumes();
        self.run_commands();
        self.run_balancers();
        let deadline = self.cluster.as_ref().and_then(Cluster::next_deadline);
        if deadline.is_some_and(|at| at <= self.now) {
            self.event(Event::Tick);
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Desired(set) => {
                if let Some(agent) = self.agents.get_mut(&set.node) {
                    agent.receive(set);
                }
            }
            Message::Report(node, report) => {
                self.event(Event::NodeReported {
                    node: node.clone(),
                    report,
                });
                self.answer(&node);
            }
        }
    }

    /// The answer to a report. The set of an agent that cannot be reached goes with it.
    fn answer(&mut self, node: &NodeName) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let wants_held_set = cluster.wants_held_set(node);
        let reachable = !self.network.unreachable.contains(node);
        let set = cluster.desired_set(node).filter(|_| !reachable);
        let on_hold = cluster.node(node).is_some_and(|node| node.hold.is_some());
        if let Some(agent) = self.agents.get_mut(node) {
            agent.send_held = wants_held_set;
            if let Some(set) = set.filter(|_| !on_hold) {
                agent.receive(set);
            }
        }
        let node = node.clone();
        self.event(Event::AgentReachable { node, reachable });
    }

    fn run_commands(&mut self) {
        let (due, later) = std::mem::take(&mut self.commands)
            .into_iter()
            .partition(|(at, _)| *at <= self.now);
        self.commands = later;
        let due: Vec<(Timestamp, NodeName)> = due;
        for (_, node) in due {
            let works = !self.unrestartable.contains(&node);
            if let Some(agent) = self.agents.get_mut(&node).filter(|a| works && !a.powered) {
                agent.power_on();
            }
            let result = if works {
                Ok(())
            } else {
                Err("no route to host".to_owned())
            };
            self.event(Event::RestartFinished { node, result });
        }
    }
}

/// The disk of a new controller: a new cluster, in an epoch.
pub fn new_disk(epoch: u64) -> Snapshot {
    let id = format!("{epoch:032x}");
    Snapshot {
        identity: Identity {
            cluster: id.parse().ok(),
            epoch: Epoch(epoch),
        },
        ..Snapshot::default()
    }
}

/// Kinds and subjects of all alerts.
pub fn alerts(sim: &Sim) -> Vec<(AlertKind, &str)> {
    let alerts = sim.alerts.iter();
    alerts
        .map(|alert| (alert.kind, alert.subject.as_str()))
        .collect()
}

/// How many alerts are of one kind.
pub fn of_kind(alerts: &[Alert], kind: AlertKind) -> usize {
    alerts.iter().filter(|alert| alert.kind == kind).count()
}
