//! Everything that can happen to a cluster, as a list that proptest can shrink and that replays.

use proptest::prelude::*;
use tucano_api::{
    ids::NodeName,
    units::{Bytes, Span},
};
use tucano_planner::{Event, Worker};

use super::{Sim, Start, image, name, node, with_memory, worker};

pub const WORKERS: usize = 4;
const SERVICES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
pub enum Chaos {
    Run(u64),
    Deploy {
        service: usize,
        concurrency: u32,
        mib: u64,
        image: u8,
    },
    Remove(usize),
    CutOff(usize),
    Reconnect(usize),
    CutPower(usize),
    PowerOn(usize),
    RestartAgent(usize),
    LoseAgentDisk(usize),
    OomKill(usize),
    Load(usize, u8),
    Network {
        lost: u64,
        doubled: u64,
        delay_ms: u64,
    },
    KillController {
        carried_out: usize,
    },
    StartController,
    /// Time goes by without the controller noticing.
    Pause(u64),
    /// Which of the workers are in the topology, as bits; the first one always is.
    Topology(u8),
    BreakImage(u8),
    RepairImages,
    BreakRestart(usize),
}

pub fn chaos() -> impl Strategy<Value = Chaos> {
    let worker = || 1..=WORKERS;
    prop_oneof![
        8 => (0..4000_u64).prop_map(Chaos::Run),
        6 => (0..3_usize, 1..8_u32, 1..5_u64, 0..3_u8).prop_map(|(service, concurrency, quarter, image)| {
            Chaos::Deploy { service, concurrency, mib: 256 * quarter, image }
        }),
        1 => (0..3_usize).prop_map(Chaos::Remove),
        2 => worker().prop_map(Chaos::CutOff),
        2 => worker().prop_map(Chaos::Reconnect),
        2 => worker().prop_map(Chaos::CutPower),
        2 => worker().prop_map(Chaos::PowerOn),
        1 => worker().prop_map(Chaos::RestartAgent),
        1 => worker().prop_map(Chaos::LoseAgentDisk),
        1 => (0..8_usize).prop_map(Chaos::OomKill),
        1 => (worker(), 0..=10_u8).prop_map(|(worker, tenths)| Chaos::Load(worker, tenths)),
        2 => (0..50_u64, 0..30_u64, 0..1500_u64)
            .prop_map(|(lost, doubled, delay_ms)| Chaos::Network { lost, doubled, delay_ms }),
        2 => (0..4_usize).prop_map(|carried_out| Chaos::KillController { carried_out }),
        2 => Just(Chaos::StartController),
        1 => (0..20_000_u64).prop_map(Chaos::Pause),
        1 => any::<u8>().prop_map(Chaos::Topology),
        1 => (0..3_u8).prop_map(Chaos::BreakImage),
        1 => Just(Chaos::RepairImages),
        1 => worker().prop_map(Chaos::BreakRestart),
    ]
}

/// A cluster of which half of the workers have a restart command, and memory is scarce.
pub fn fragile(seed: u64) -> Sim {
    Sim::begin(Start {
        workers: all_workers(),
        reservable: Bytes::mib(4096),
        seed,
        ..Start::default()
    })
}

fn all_workers() -> Vec<Worker> {
    let with_restart = |number| Worker {
        can_restart: number % 2 == 0,
        ..worker(number)
    };
    (1..=WORKERS).map(with_restart).collect()
}

impl Sim {
    pub fn suffer(&mut self, chaos: Chaos) {
        match chaos {
            Chaos::Run(ms) => self.run(Span::millis(ms)),
            Chaos::Deploy {
                service,
                concurrency,
                mib,
                image,
            } => {
                self.deploy_image(with_memory(SERVICES[service], concurrency, mib), image);
            }
            Chaos::Remove(service) => {
                self.event(Event::ServiceRemoved {
                    name: name(SERVICES[service]),
                });
            }
            Chaos::KillController { carried_out } => self.crash_after = Some(carried_out),
            Chaos::StartController => self.restart_controller(),
            Chaos::Pause(ms) => self.now = self.now.after(Span::millis(ms)),
            Chaos::Topology(bits) => {
                let workers = all_workers().into_iter().enumerate();
                let chosen = workers.filter(|(index, _)| *index == 0 || bits & (1 << index) != 0);
                self.reconfigure(chosen.map(|(_, worker)| worker).collect());
            }
            other => self.suffer_outside(other),
        }
    }

    /// All faults cease, and whatever is down comes up; the services stay as they were configured.
    pub fn heal(&mut self) {
        self.crash_after = None;
        self.network.mend();
        self.world.crashing.clear();
        self.unrestartable.clear();
        for agent in self.agents.values_mut() {
            agent.metrics.cpu_used = 0.0;
            if !agent.powered {
                agent.power_on();
            }
        }
        if self.cluster.is_none() {
            self.start_controller();
        }
        self.reconfigure(all_workers());
    }

    fn suffer_outside(&mut self, chaos: Chaos) {
        match chaos {
            Chaos::CutOff(number) => {
                self.network.cut_off.insert(node(number));
            }
            Chaos::Reconnect(number) => {
                self.network.cut_off.remove(&node(number));
            }
            Chaos::CutPower(number) => self.agent(number).cut_power(),
            Chaos::PowerOn(number) if !self.agent(number).powered => self.agent(number).power_on(),
            Chaos::RestartAgent(number) => self.agent(number).restart(),
            Chaos::LoseAgentDisk(number) => self.agent(number).forget(),
            Chaos::OomKill(nth) => self.oom_kill_some(nth),
            Chaos::Load(number, tenths) => {
                self.agent(number).metrics.cpu_used = f64::from(tenths) / 10.0;
            }
            Chaos::Network {
                lost,
                doubled,
                delay_ms,
            } => {
                self.network.lost = lost;
                self.network.doubled = doubled;
                self.network.delay_ms = delay_ms;
            }
            Chaos::BreakImage(digit) => {
                self.world.crashing.insert(image(digit));
            }
            Chaos::RepairImages => self.world.crashing.clear(),
            Chaos::BreakRestart(number) => {
                self.unrestartable.insert(node(number));
            }
            _ => {}
        }
    }

    fn oom_kill_some(&mut self, nth: usize) {
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
            agent.oom_kill(&id, now);
        }
    }
}
