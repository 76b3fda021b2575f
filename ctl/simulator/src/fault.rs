//! What can happen to a cluster, as a list that replays and that proptest can shrink.

#[cfg(feature = "proptest")]
use proptest::prelude::*;
use tucano_api::{
    ids::{NodeName, ProcessId, ServiceName},
    service::{Hook, Labels, Overlap, Placement, ServiceConfig},
    state::VolumeState,
    units::{Bytes, Span, Timestamp},
};
use tucano_planner::{Cluster, Event, Platforms, Restoration, Worker};

use crate::{
    Options, Sim,
    agent::Agent,
    fixtures,
    fixtures::{backup, image, labels, name, node, with_memory, with_volumes, worker},
};

/// Workers of [`unstable_cluster`].
pub const WORKERS: usize = 4;
/// Its balancers.
pub const BALANCERS: usize = 2;
const SERVICES: [&str; 3] = ["a", "b", "c"];
/// Choices of rules.
#[cfg(feature = "proptest")]
const RULES: usize = 10;
const STATEFUL: [&str; 2] = ["v", "w"];
const JOBS: [&str; 2] = ["j", "k"];
/// Choices of devices.
const DEVICES: [&str; 5] = [
    "acme.com/gpu=1",
    "acme.com/gpu=2",
    "acme.com/gpu=id-1",
    "acme.com/gpu=all",
    "acme.com/gpu=id-0 acme.com/gpu=1",
];
const VOLUMES: [&[&str]; 4] = [&["data"], &["data", "log"], &["log"], &[]];

/// A fault, or something else that happens. Workers are numbered from 1, services from 0.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Milliseconds pass.
    Run(u64),
    /// A service is deployed.
    Deploy {
        /// The service.
        service: usize,
        /// Its processes.
        concurrency: u32,
        /// Memory of each, in MiB.
        mib: u64,
        /// Its image.
        image: u8,
    },
    /// A service with rules of placement is deployed, if that is allowed.
    DeployRules {
        /// The service.
        service: usize,
        /// Its processes, unless there is one on each worker.
        concurrency: u32,
        /// Memory of each, in MiB.
        mib: u64,
        /// CPUs that each reserves, in tenths.
        tenths: u32,
        /// Which rules.
        rules: usize,
        /// Its image.
        image: u8,
    },
    /// A service with devices is deployed: perhaps one with volumes, perhaps a job.
    DeployDevices {
        /// Which: the services, then those with volumes, then the jobs.
        service: usize,
        /// Its processes.
        concurrency: u32,
        /// Which devices.
        devices: usize,
        /// Its image.
        image: u8,
    },
    /// A worker has so many devices from now on.
    Devices(usize, usize),
    /// A worker is in another zone from now on; in none for 2.
    Relabel(usize, usize),
    /// A service with volumes is deployed.
    DeployVolumes {
        /// The service.
        service: usize,
        /// Its slots.
        concurrency: u32,
        /// Memory of each process, in MiB.
        mib: u64,
        /// Which volumes it has; none for 3.
        volumes: usize,
        /// The size of each, in MiB.
        size: u64,
        /// Its image.
        image: u8,
    },
    /// A service with volumes is removed, and perhaps its volumes.
    RemoveStateful(usize, bool),
    /// One of the volumes is removed, if that is allowed.
    RemoveVolume(usize),
    /// One of the volumes is backed up, if that is allowed.
    BackUpVolume(usize),
    /// One of the volumes is restored, if that is allowed: perhaps on this worker.
    RestoreVolume(usize, Option<usize>),
    /// One of the volumes is moved to a worker, if that is allowed.
    MoveVolume(usize, usize),
    /// Whether a worker's volumes are there.
    MountVolumes(usize, bool),
    /// A worker loses its volumes.
    LoseVolumes(usize),
    /// A job is deployed.
    DeployJob {
        /// The job.
        job: usize,
        /// How many of its processes have to succeed.
        completions: u32,
        /// How many there are at once.
        parallelism: u32,
        /// How often they may fail.
        retries: u32,
        /// What happens at a tick while a run has not ended.
        overlap: Overlap,
        /// Its image.
        image: u8,
    },
    /// A service with hooks is deployed.
    DeployHooks {
        /// Its processes.
        concurrency: u32,
        /// Its image.
        image: u8,
    },
    /// A run of one of the jobs, or of a command in a service, is asked for.
    RequestRun(usize),
    /// One of the runs is stopped.
    StopRun(usize),
    /// A job is removed.
    RemoveJob(usize),
    /// The processes of a service are replaced.
    Restart(usize),
    /// A service is removed.
    Remove(usize),
    /// A worker loses its connection.
    CutOff(usize),
    /// A worker is connected again.
    Reconnect(usize),
    /// A worker loses power.
    CutPower(usize),
    /// A worker boots.
    PowerOn(usize),
    /// An agent is restarted.
    RestartAgent(usize),
    /// An agent loses its disk.
    LoseAgentDisk(usize),
    /// Whether an agent is of an earlier version.
    OldAgent(usize, bool),
    /// The kernel kills one of the processes.
    OomKill(usize),
    /// One of the processes has reached its limit of processes and threads, or is below it again.
    PidsLimit(usize, bool),
    /// A worker gets this load, in tenths.
    Load(usize, u8),
    /// The network gets these faults.
    Network {
        /// Percentage of lost messages.
        lost: u64,
        /// Percentage of duplicated messages.
        doubled: u64,
        /// Longest delay.
        delay_ms: u64,
    },
    /// The controller dies in its next step that has actions.
    KillController {
        /// Actions that are carried out before.
        carried_out: usize,
    },
    /// The controller is started.
    StartController,
    /// Time goes by without the controller noticing.
    Pause(u64),
    /// Which of the workers are in the topology, as bits; the first one always is.
    Topology(u8),
    /// Programs of an image start to crash.
    BreakImage(u8),
    /// All programs work again.
    RepairImages,
    /// A worker's restart command fails from now on.
    BreakRestart(usize),
    /// A balancer loses its connection to the controller, and serves on.
    CutOffBalancer(usize),
    /// A balancer is connected again.
    ReconnectBalancer(usize),
    /// A balancer is killed, and another one is started.
    KillBalancer(usize),
    /// Whether a balancer is of an earlier version.
    OldBalancer(usize, bool),
}

/// Any fault.
#[cfg(feature = "proptest")]
pub fn fault() -> impl Strategy<Value = Fault> {
    let worker = || 1..=WORKERS;
    prop_oneof![
        8 => (0..4000_u64).prop_map(Fault::Run),
        6 => (0..3_usize, 1..8_u32, 1..5_u64, 0..3_u8).prop_map(|(service, concurrency, quarter, image)| {
            Fault::Deploy { service, concurrency, mib: 256 * quarter, image }
        }),
        5 => (0..3_usize, 1..7_u32, 1..4_u64, 0..16_u32, 0..RULES, 0..3_u8).prop_map(
            |(service, concurrency, quarter, tenths, rules, image)| Fault::DeployRules {
                service,
                concurrency,
                mib: 256 * quarter,
                tenths,
                rules,
                image,
            }
        ),
        4 => (0..6_usize, 1..4_u32, 0..DEVICES.len(), 0..3_u8).prop_map(
            |(service, concurrency, devices, image)| Fault::DeployDevices {
                service, concurrency, devices, image,
            }
        ),
        2 => (worker(), 0..4_usize).prop_map(|(worker, count)| Fault::Devices(worker, count)),
        2 => (worker(), 0..3_usize).prop_map(|(worker, zone)| Fault::Relabel(worker, zone)),
        5 => (0..2_usize, 1..5_u32, 1..5_u64, 0..9_usize, 1..4_u64, 0..3_u8).prop_map(
            |(service, concurrency, quarter, volumes, size, image)| Fault::DeployVolumes {
                service,
                concurrency,
                mib: 256 * quarter,
                volumes: [0, 0, 0, 0, 1, 1, 1, 2, 3][volumes],
                size: 64 * size,
                image,
            }
        ),
        1 => (0..2_usize, any::<bool>()).prop_map(|(service, volumes)| Fault::RemoveStateful(service, volumes)),
        1 => (0..8_usize).prop_map(Fault::RemoveVolume),
        2 => (0..8_usize).prop_map(Fault::BackUpVolume),
        2 => (0..8_usize, proptest::option::of(worker())).prop_map(|(nth, on)| Fault::RestoreVolume(nth, on)),
        3 => (0..8_usize, worker()).prop_map(|(nth, worker)| Fault::MoveVolume(nth, worker)),
        1 => (worker(), any::<bool>()).prop_map(|(worker, there)| Fault::MountVolumes(worker, there)),
        1 => worker().prop_map(Fault::LoseVolumes),
        3 => (0..2_usize, 1..5_u32, 1..4_u32, 0..3_u32, overlap(), 0..3_u8).prop_map(
            |(job, completions, parallelism, retries, overlap, image)| Fault::DeployJob {
                job, completions, parallelism, retries, overlap, image,
            }
        ),
        2 => (1..4_u32, 0..3_u8).prop_map(|(concurrency, image)| Fault::DeployHooks { concurrency, image }),
        2 => (0..5_usize).prop_map(Fault::RequestRun),
        1 => (0..6_usize).prop_map(Fault::StopRun),
        1 => (0..3_usize).prop_map(Fault::RemoveJob),
        1 => (0..3_usize).prop_map(Fault::Restart),
        1 => (0..3_usize).prop_map(Fault::Remove),
        2 => worker().prop_map(Fault::CutOff),
        2 => worker().prop_map(Fault::Reconnect),
        2 => worker().prop_map(Fault::CutPower),
        2 => worker().prop_map(Fault::PowerOn),
        1 => worker().prop_map(Fault::RestartAgent),
        1 => worker().prop_map(Fault::LoseAgentDisk),
        1 => (worker(), any::<bool>()).prop_map(|(worker, old)| Fault::OldAgent(worker, old)),
        1 => (0..8_usize).prop_map(Fault::OomKill),
        1 => (0..8_usize, any::<bool>()).prop_map(|(nth, is_reached)| Fault::PidsLimit(nth, is_reached)),
        1 => (worker(), 0..=10_u8).prop_map(|(worker, tenths)| Fault::Load(worker, tenths)),
        2 => (0..50_u64, 0..30_u64, 0..1500_u64)
            .prop_map(|(lost, doubled, delay_ms)| Fault::Network { lost, doubled, delay_ms }),
        2 => (0..4_usize).prop_map(|carried_out| Fault::KillController { carried_out }),
        2 => Just(Fault::StartController),
        1 => (0..20_000_u64).prop_map(Fault::Pause),
        1 => any::<u8>().prop_map(Fault::Topology),
        1 => (0..3_u8).prop_map(Fault::BreakImage),
        1 => Just(Fault::RepairImages),
        1 => worker().prop_map(Fault::BreakRestart),
        1 => (0..BALANCERS).prop_map(Fault::CutOffBalancer),
        1 => (0..BALANCERS).prop_map(Fault::ReconnectBalancer),
        1 => (0..BALANCERS).prop_map(Fault::KillBalancer),
        1 => (0..BALANCERS, any::<bool>()).prop_map(|(which, old)| Fault::OldBalancer(which, old)),
    ]
}

#[cfg(feature = "proptest")]
fn overlap() -> impl Strategy<Value = Overlap> {
    prop_oneof![
        Just(Overlap::Skip),
        Just(Overlap::Queue),
        Just(Overlap::Replace)
    ]
}

/// A cluster in which half of the workers have a restart command and memory is scarce.
pub fn unstable_cluster(seed: u64) -> Sim {
    let mut sim = Sim::with(Options {
        workers: all_workers(),
        reservable: Bytes::mib(4096),
        seed,
        ..Options::default()
    });
    for agent in sim.agents.values_mut() {
        agent.devices = fixtures::devices(2);
        agent.volumes.capacity = Bytes::mib(1024);
    }
    sim.set_backup_secret();
    sim.add_balancers(BALANCERS);
    sim
}

/// The services that one of this image needs: none, or another one, or a service with volumes and itself.
fn needs(service: usize, image: u8) -> Vec<ServiceName> {
    let own = SERVICES[service];
    let names = match image {
        0 => Vec::new(),
        1 => vec![SERVICES[(service + 1) % SERVICES.len()]],
        _ => vec![STATEFUL[0], own],
    };
    names.into_iter().map(name).collect()
}

fn all_workers() -> Vec<Worker> {
    let with_restart = |number| Worker {
        can_restart: number % 2 == 0,
        labels: zone_labels(number / 2),
        ..worker(number)
    };
    (1..=WORKERS).map(with_restart).collect()
}

fn zone_labels(zone: usize) -> Labels {
    labels(["zone=a", "zone=b", ""][zone])
}

/// Some of the rules of placement for a service.
fn placement(service: usize, rules: usize) -> Placement {
    let other = |step: usize| vec![name(SERVICES[(service + step) % SERVICES.len()])];
    let none = Placement::default;
    match rules {
        0 => Placement {
            labels: labels("zone=a"),
            ..none()
        },
        1 => Placement {
            spread: Some("zone".parse().unwrap()),
            ..none()
        },
        2 => Placement {
            everywhere: true,
            ..none()
        },
        3 => Placement {
            everywhere: true,
            labels: labels("zone=b"),
            ..none()
        },
        4 => Placement {
            with: other(1),
            ..none()
        },
        5 => Placement {
            with: other(2),
            ..none()
        },
        6 => Placement {
            apart_from: other(1),
            ..none()
        },
        7 => Placement {
            apart_from: other(2),
            ..none()
        },
        8 => Placement {
            everywhere: true,
            with: other(1),
            ..none()
        },
        _ => none(),
    }
}

impl Sim {
    /// Deploys a service that is started after those that it needs, unless they wait for it.
    fn deploy_in_order(&mut self, config: ServiceConfig, image: u8) {
        let mut others = config.needs.clone();
        others.retain(|it| *it != config.name);
        let ordered = ServiceConfig {
            start_after: others,
            ..config.clone()
        };
        let cluster = self.cluster.as_ref();
        let is_accepted = cluster.is_some_and(|it| it.names_obstacle(&ordered).is_none());
        self.deploy_image(if is_accepted { ordered } else { config }, image);
    }
}

impl Sim {
    /// Has a fault happen.
    pub fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::Run(ms) => self.run(Span::millis(ms)),
            Fault::Deploy {
                service,
                concurrency,
                mib,
                image,
            } => {
                let config = ServiceConfig {
                    needs: needs(service, image),
                    drain: (image == 2).then_some(Span::secs(3)),
                    ..with_memory(SERVICES[service], concurrency, mib)
                };
                self.deploy_in_order(config, image);
            }
            Fault::DeployRules {
                service,
                concurrency,
                mib,
                tenths,
                rules,
                image,
            } => {
                let placement = placement(service, rules);
                let config = ServiceConfig {
                    concurrency: if placement.everywhere { 0 } else { concurrency },
                    cpus_reserved: (tenths > 0).then_some(f64::from(tenths) / 10.0),
                    placement,
                    ..with_memory(SERVICES[service], concurrency, mib)
                };
                let cluster = self.cluster.as_ref();
                let obstacle =
                    cluster.and_then(|it| it.placement_obstacle(&config, &Platforms::new()));
                if obstacle.is_none() {
                    self.deploy_image(config, image);
                }
            }
            Fault::DeployDevices {
                service,
                concurrency,
                devices,
                image,
            } => {
                let base = match service {
                    0..3 => fixtures::config(SERVICES[service], concurrency),
                    3 | 4 => with_volumes(STATEFUL[service - 3], concurrency, &[("data", 64)]),
                    _ => fixtures::job(JOBS[0]),
                };
                let config = ServiceConfig {
                    devices: fixtures::with_devices("x", 1, DEVICES[devices]).devices,
                    ..base
                };
                self.deploy_image(config, image);
            }
            Fault::Relabel(number, zone) => {
                for worker in self.workers.iter_mut().chain(&mut self.absent_workers) {
                    if worker.name == node(number) {
                        worker.labels = zone_labels(zone);
                    }
                }
                self.reconfigure(self.workers.clone());
            }
            Fault::Restart(service) => self.restart(SERVICES[service]),
            Fault::Remove(service) => {
                self.event(Event::ServiceRemoved {
                    name: name(SERVICES[service]),
                    volumes: false,
                });
            }
            Fault::DeployVolumes {
                service,
                concurrency,
                mib,
                volumes,
                size,
                image,
            } => {
                let volumes: Vec<_> = VOLUMES[volumes].iter().map(|name| (*name, size)).collect();
                let mut config = ServiceConfig {
                    memory: Bytes::mib(mib),
                    ..with_volumes(STATEFUL[service], concurrency, &volumes)
                };
                for volume in &mut config.volume {
                    volume.backup = Some(match volume.name.as_str() {
                        "data" => backup(&[]),
                        _ => backup(&["dump"]),
                    });
                }
                self.deploy_image(config, image);
            }
            Fault::DeployJob {
                job,
                completions,
                parallelism,
                retries,
                overlap,
                image,
            } => {
                let config = ServiceConfig {
                    completions: Some(completions),
                    parallelism: Some(parallelism),
                    retries: Some(retries),
                    // The first job runs whenever it is asked to.
                    schedule: (job == 1).then(|| "* * * * *".to_owned()),
                    overlap: (job == 1).then_some(overlap),
                    deadline: (image == 2).then_some(Span::secs(20)),
                    ..fixtures::job(JOBS[job])
                };
                self.deploy_image(config, image);
            }
            Fault::DeployHooks { concurrency, image } => {
                let hook = |word: &str| Hook {
                    args: vec![word.to_owned()],
                    timeout: Span::secs(30),
                };
                let config = ServiceConfig {
                    before: Some(hook("before")),
                    after: (image != 1).then(|| hook("after")),
                    ..with_memory("h", concurrency, 256)
                };
                self.deploy_image(config, image);
            }
            Fault::RequestRun(which) => {
                let command = (which > 1).then(|| vec!["command".to_owned()]);
                let service = name(["j", "k", "a", "v", "h"][which]);
                self.event(Event::RunRequested { service, command });
            }
            Fault::StopRun(nth) => {
                let snapshot = self.cluster.iter().flat_map(|it| it.snapshot().runs);
                let mut active = snapshot.filter(|run| run.is_active());
                if let Some(run) = active.nth(nth) {
                    let (service, number) = (run.service, run.number);
                    self.event(Event::RunStopped { service, number });
                }
            }
            Fault::RemoveJob(which) => self.remove(["j", "k", "h"][which]),
            Fault::RemoveStateful(service, volumes) => {
                let name = name(STATEFUL[service]);
                self.event(Event::ServiceRemoved { name, volumes });
            }
            Fault::RemoveVolume(nth) => {
                let volumes = self.cluster.iter().flat_map(Cluster::volumes);
                if let Some(volume) = volumes.into_iter().nth(nth) {
                    let (id, node) = (volume.volume.id, volume.node);
                    self.event(match volume.state {
                        VolumeState::Orphan => Event::OrphanRemoved { id, node },
                        _ => Event::VolumeRemoved { id },
                    });
                }
            }
            Fault::BackUpVolume(nth) => {
                let volumes = self.cluster.iter().flat_map(Cluster::volumes);
                if let Some(volume) = volumes.into_iter().nth(nth) {
                    let id = volume.volume.id;
                    self.event(Event::BackupRequested { id });
                }
            }
            Fault::RestoreVolume(nth, on) => {
                let volumes = self.cluster.iter().flat_map(Cluster::volumes);
                if let Some(volume) = volumes.into_iter().nth(nth) {
                    let is_away = matches!(volume.state, VolumeState::Away { .. });
                    self.event(Event::VolumeRestored(Restoration {
                        id: volume.volume.id,
                        from: None,
                        on: on.map(node),
                        lost: is_away.then_some(volume.node),
                        replace: true,
                    }));
                }
            }
            Fault::MoveVolume(nth, to) => {
                let volumes = self.cluster.iter().flat_map(Cluster::volumes);
                if let Some(volume) = volumes.into_iter().nth(nth) {
                    let (id, to) = (volume.volume.id, node(to));
                    self.event(Event::VolumeMoved { id, to });
                }
            }
            Fault::KillController { carried_out } => self.crash_after = Some(carried_out),
            Fault::StartController => self.restart_controller(),
            Fault::Pause(ms) => self.now = self.now.after(Span::millis(ms)),
            Fault::Topology(bits) => {
                let workers = self.all_workers().into_iter().enumerate();
                let (chosen, absent): (Vec<_>, Vec<_>) =
                    workers.partition(|(index, _)| *index == 0 || bits & (1 << index) != 0);
                self.absent_workers = absent.into_iter().map(|(_, worker)| worker).collect();
                self.reconfigure(chosen.into_iter().map(|(_, worker)| worker).collect());
            }
            other => self.inject_outside(other),
        }
    }

    /// Ends all faults and starts whatever is down; services stay as they are configured.
    pub fn heal(&mut self) {
        self.crash_after = None;
        self.network.mend();
        self.workloads.crashing.clear();
        self.unrestartable.clear();
        for balancer in &mut self.balancers {
            balancer.connected = true;
        }
        for agent in self.agents.values_mut() {
            agent.metrics.cpu_used = 0.0;
            agent.volumes.mounted = true;
            agent.devices = fixtures::devices(2);
            if !agent.powered {
                agent.power_on();
            }
        }
        if self.cluster.is_none() {
            self.start_controller();
        }
        let workers = self.all_workers();
        self.absent_workers.clear();
        self.reconfigure(workers);
    }

    /// Those in the topology and those that have left it, in their order.
    fn all_workers(&self) -> Vec<Worker> {
        let mut workers = [self.workers.clone(), self.absent_workers.clone()].concat();
        workers.sort_by(|a, b| a.name.cmp(&b.name));
        workers
    }

    fn inject_outside(&mut self, fault: Fault) {
        match fault {
            Fault::CutOff(number) => {
                self.network.cut_off.insert(node(number));
            }
            Fault::Reconnect(number) => {
                self.network.cut_off.remove(&node(number));
            }
            Fault::CutPower(number) => self.agent(number).cut_power(),
            Fault::PowerOn(number) if !self.agent(number).powered => self.agent(number).power_on(),
            Fault::RestartAgent(number) => self.agent(number).restart(),
            Fault::LoseAgentDisk(number) => self.agent(number).lose_disk(),
            Fault::OldAgent(number, is_old) => {
                let agent = self.agent(number);
                agent.is_old = is_old;
                agent.restart();
            }
            Fault::Devices(number, count) => {
                self.agent(number).devices = fixtures::devices(count);
            }
            Fault::MountVolumes(number, mounted) => self.agent(number).volumes.mounted = mounted,
            Fault::LoseVolumes(number) => self.agent(number).volumes.all.clear(),
            Fault::OomKill(nth) => self.on_some(nth, |agent, id, now| agent.oom_kill(id, now)),
            Fault::PidsLimit(nth, is_reached) => {
                self.on_some(nth, |agent, id, now| agent.fill_pids(id, is_reached, now));
            }
            Fault::Load(number, tenths) => {
                self.agent(number).metrics.cpu_used = f64::from(tenths) / 10.0;
            }
            Fault::Network {
                lost,
                doubled,
                delay_ms,
            } => {
                self.network.lost = lost;
                self.network.doubled = doubled;
                self.network.delay_ms = delay_ms;
            }
            Fault::BreakImage(digit) => {
                self.workloads.crashing.insert(image(digit));
            }
            Fault::RepairImages => self.workloads.crashing.clear(),
            Fault::BreakRestart(number) => {
                self.unrestartable.insert(node(number));
            }
            Fault::CutOffBalancer(which) => self.balancers[which].connected = false,
            Fault::ReconnectBalancer(which) => self.balancers[which].connected = true,
            Fault::OldBalancer(which, is_old) => self.balancers[which].is_old = is_old,
            Fault::KillBalancer(which) => self.restart_balancer(which),
            _ => {}
        }
    }

    /// Acts on one of the healthy processes.
    fn on_some(&mut self, nth: usize, act: impl Fn(&mut Agent, &ProcessId, Timestamp)) {
        let now = self.now;
        let victim = |sim: &Self| -> Option<(NodeName, _)> {
            let all = sim
                .agents
                .values()
                .flat_map(|a| a.healthy().map(move |id| (&a.name, id)));
            all.map(|(node, id)| (node.clone(), id.clone())).nth(nth)
        };
        if let Some((node, id)) = victim(self)
            && let Some(agent) = self.agents.get_mut(&node)
        {
            act(agent, &id, now);
        }
    }
}
