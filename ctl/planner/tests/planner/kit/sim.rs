//! A simulated cluster: the planner, its disk, the network, the agents.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::{NodeName, ProcessId},
    routes::ServiceRoute,
    service::ServiceConfig,
    state::{Alert, NodeCondition, ServiceView},
    units::{Bytes, Span, Timestamp},
};
use tucano_planner::{Action, Cluster, Event, Settings, Snapshot, Worker};

use super::{
    START,
    agent::{Agent, World},
    disk,
    network::{Message, Network},
    node,
    validator::Validator,
};

/// The simulation goes on in steps of this.
pub const TICK: Span = Span::millis(100);
/// How long a restart command takes.
const COMMAND_TIME: Span = Span::millis(500);

/// How a simulation begins.
pub struct Start {
    pub workers: Vec<Worker>,
    pub settings: Settings,
    pub reservable: Bytes,
    pub seed: u64,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            workers: super::workers(3),
            settings: super::settings(),
            reservable: Bytes(8 << 30),
            seed: 1,
        }
    }
}

pub struct Sim {
    pub now: Timestamp,
    /// `None` while the controller is down.
    pub cluster: Option<Cluster>,
    pub disk: Snapshot,
    pub workers: Vec<Worker>,
    pub settings: Settings,
    pub agents: BTreeMap<NodeName, Agent>,
    pub network: Network,
    pub world: World,
    /// What the balancer holds.
    pub published: Option<Vec<ServiceRoute>>,
    pub alerts: Vec<Alert>,
    pub restarts: Vec<(NodeName, u32)>,
    /// Workers whose restart command fails.
    pub unrestartable: BTreeSet<NodeName>,
    /// The controller dies in its next step that has actions, after having carried out this many.
    pub crash_after: Option<usize>,
    commands: Vec<(Timestamp, NodeName)>,
    reservable: Bytes,
    pub validator: Validator,
}

impl Sim {
    /// As many workers, all alive.
    pub fn new(workers: usize) -> Self {
        Self::begin(Start {
            workers: super::workers(workers),
            ..Start::default()
        })
    }

    /// A cluster whose workers have all reported.
    pub fn begin(start: Start) -> Self {
        let mut sim = Self::silent(start);
        sim.run(Span::millis(300));
        sim
    }

    /// A cluster whose workers have not reported yet.
    pub fn silent(start: Start) -> Self {
        let Start {
            workers,
            settings,
            reservable,
            seed,
        } = start;
        let mut sim = Self {
            now: START,
            cluster: None,
            disk: Snapshot::default(),
            agents: BTreeMap::new(),
            network: Network::reliable(seed),
            world: World {
                crashing: BTreeSet::new(),
                mute: BTreeSet::new(),
                start_time: Span::millis(300),
            },
            published: None,
            alerts: Vec::new(),
            restarts: Vec::new(),
            unrestartable: BTreeSet::new(),
            crash_after: None,
            commands: Vec::new(),
            validator: Validator::default(),
            workers,
            settings,
            reservable,
        };
        sim.employ_agents();
        sim.start_controller();
        sim
    }

    pub fn agent(&mut self, number: usize) -> &mut Agent {
        self.agents.get_mut(&node(number)).unwrap()
    }

    pub fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("the controller is down")
    }

    pub fn start_controller(&mut self) {
        let cluster = Cluster::restore(
            self.disk.clone(),
            self.workers.clone(),
            self.settings.clone(),
            self.now,
        );
        self.validator.restored(&cluster, &self.disk);
        self.cluster = Some(cluster);
    }

    pub fn restart_controller(&mut self) {
        self.cluster = None;
        self.start_controller();
    }

    pub fn reconfigure(&mut self, workers: Vec<Worker>) {
        self.workers = workers;
        self.employ_agents();
        self.event(Event::Configured {
            workers: self.workers.clone(),
            settings: self.settings.clone(),
        });
    }

    pub fn deploy(&mut self, config: ServiceConfig) {
        self.deploy_image(config, 1);
    }

    pub fn deploy_image(&mut self, config: ServiceConfig, image: u8) {
        let image = super::image(image);
        let config = Box::new(config);
        self.event(Event::ServiceConfigured { config, image });
    }

    pub fn remove(&mut self, service: &str) {
        let name = super::name(service);
        self.event(Event::ServiceRemoved { name });
    }

    /// Deploys and waits until all is well.
    pub fn serve(&mut self, config: ServiceConfig) {
        let service = config.name.to_string();
        self.deploy(config);
        self.until_settled(&service);
    }

    /// Has the controller take an event, if it is up; validates and carries out what it says.
    pub fn event(&mut self, event: Event) -> Vec<Action> {
        let Some(mut cluster) = self.cluster.take() else {
            return Vec::new();
        };
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
            self.turn();
        }
    }

    /// Lets time pass until something is so.
    pub fn until(&mut self, what: &str, condition: impl Fn(&Sim) -> bool) {
        let patience = self.now.after(Span::secs(300));
        while !condition(self) {
            assert!(
                self.now < patience,
                "waited in vain until {what}: {:#?}",
                self.cluster().state()
            );
            self.run(TICK);
        }
    }

    /// Lets time pass until a service is as it should be.
    pub fn until_settled(&mut self, service: &str) {
        self.until("all processes are healthy and no other exists", |sim| {
            let view = sim.service(service);
            let all = &view.active.processes;
            all.len() == view.configured.config.concurrency as usize
                && all.iter().all(|process| process.routed && process.current)
        });
    }

    pub fn until_condition(&mut self, number: usize, condition: NodeCondition) {
        self.until(&format!("w{number} is {condition:?}"), |sim| {
            sim.condition(number) == condition
        });
    }

    pub fn condition(&self, number: usize) -> NodeCondition {
        self.cluster().node(&node(number)).unwrap().condition
    }

    pub fn service(&self, service: &str) -> ServiceView {
        self.cluster().service(&super::name(service)).unwrap()
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

    fn employ_agents(&mut self) {
        for worker in &self.workers {
            let new = || Agent::new(worker.clone(), self.reservable);
            self.agents.entry(worker.name.clone()).or_insert_with(new);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Persist(records) => disk::write(&mut self.disk, &records),
            Action::Assign(set) => self.network.send(self.now, Message::Desired(set)),
            Action::Publish(routes) => self.published = Some(routes),
            Action::Restart { node, attempt } => {
                self.commands
                    .push((self.now.after(COMMAND_TIME), node.clone()));
                self.restarts.push((node, attempt));
            }
            Action::Alert(alert) => self.alerts.push(alert),
        }
    }

    fn turn(&mut self) {
        while let Some(message) = self.network.receive(self.now) {
            self.deliver(message);
        }
        for agent in self.agents.values_mut() {
            if let Some(report) = agent.act(self.now, &self.world) {
                let report = Message::Report(agent.name.clone(), Box::new(report));
                self.network.send(self.now, report);
            }
        }
        self.run_commands();
        let deadline = self.cluster.as_ref().and_then(Cluster::next_deadline);
        if deadline.is_some_and(|at| at <= self.now) {
            self.event(Event::Tick);
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Desired(set) => {
                if let Some(agent) = self.agents.get_mut(&set.node) {
                    agent.take(set);
                }
            }
            Message::Report(node, report) => {
                self.event(Event::NodeReported { node, report });
            }
        }
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
