//! kill -9 of every program, again and again, while services change: no acknowledged change is lost, no process runs twice, no
//! request fails but those that a killed balancer had taken, and nothing is left when the services are removed.

use std::time::Instant;

use tucano_testkit::needs;
use tucano_tests::{
    CLUSTER, Cluster, Options, images,
    processes::Process,
    user::{Load, Sample},
};

use crate::storm::{WORKERS, another_moment, assert_configured, change, ends_well, hello};

/// How many kills there are, unless TUCANO_KILLS says.
const KILLS: u32 = 40;

/// What a round kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Controller,
    Agent,
    EveryAgent,
    Balancer,
    /// The image's program in a container.
    Program,
    /// The supervisor of a container.
    Supervisor,
    /// Everything on a worker at once: its power is cut.
    Worker,
}

/// One after the other; a worker's power is cut seldom, since its containers take a while to be placed again.
const VICTIMS: [Victim; 9] = [
    Victim::Controller,
    Victim::Agent,
    Victim::Balancer,
    Victim::Program,
    Victim::EveryAgent,
    Victim::Supervisor,
    Victim::Controller,
    Victim::Balancer,
    Victim::Worker,
];

fn kills() -> u32 {
    std::env::var("TUCANO_KILLS").map_or(KILLS, |text| text.parse().expect("a number"))
}

/// One of the processes on a worker that are chosen; `None` if there are none.
fn one_of(
    cluster: &Cluster,
    worker: usize,
    round: u32,
    choose: fn(&Process) -> bool,
) -> Option<Process> {
    let mut all = cluster.running_on(worker);
    all.retain(choose);
    let index = round as usize % all.len().max(1);
    (index < all.len()).then(|| all.swap_remove(index))
}

fn kill(cluster: &mut Cluster, victim: Victim, round: u32) {
    let worker = round as usize % WORKERS;
    match victim {
        Victim::Controller => {
            cluster.kill_ctld();
            cluster.start_ctld();
            assert_configured(cluster, round);
        }
        Victim::Agent => {
            cluster.kill_agent(worker);
            cluster.start_agent(worker);
        }
        Victim::EveryAgent => {
            (0..WORKERS).for_each(|worker| cluster.kill_agent(worker));
            (0..WORKERS).for_each(|worker| cluster.start_agent(worker));
        }
        Victim::Balancer => {
            let balancer = cluster.wait("a balancer", || cluster.balancer_process());
            balancer.kill();
            cluster.wait("another balancer", || {
                cluster.balancer_process().filter(|it| *it != balancer)
            });
        }
        Victim::Program => {
            let is_program = |process: &Process| process.arguments == "/hello";
            // It may have ended since it was listed.
            if let Some(program) = one_of(cluster, worker, round, is_program) {
                program.try_kill();
            }
        }
        Victim::Supervisor => {
            let is_supervisor = |process: &Process| process.arguments.contains(" supervise");
            if let Some(supervisor) = one_of(cluster, worker, round, is_supervisor) {
                supervisor.try_kill();
            }
        }
        Victim::Worker => {
            cluster.power_off(worker);
            cluster.boot(worker);
        }
    }
}

/// Waits for more requests that are answered with 200.
fn goes_on(cluster: &Cluster, load: &Load) {
    let enough = load.successes() + 20;
    cluster.wait("the service to answer", || {
        (load.successes() >= enough).then_some(())
    });
}

/// Whether the request was under way in one of the periods without a balancer.
fn is_excused(sample: &Sample, periods: &[(Instant, Instant)]) -> bool {
    periods
        .iter()
        .any(|(from, until)| sample.sent <= *until && sample.ended >= *from)
}

#[test]
fn kills_of_all_programs_lose_double_and_leak_nothing() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut cluster = Cluster::start(&Options::default());
    let steady = hello(6, 0).replace("\"hello\"", "\"steady\"");
    cluster.deploy_healthy(&steady, &images::sample("hello"));
    let load = cluster
        .user()
        .load(cluster.balancer(), "steady.localhost", 4);
    let mut without_balancer = Vec::new();
    let mut done = [0; VICTIMS.len()];
    for round in 0..kills() {
        change(&cluster, round);
        another_moment(round);
        let index = round as usize % VICTIMS.len();
        let from = Instant::now();
        kill(&mut cluster, VICTIMS[index], round);
        goes_on(&cluster, &load);
        if VICTIMS[index] == Victim::Balancer {
            without_balancer.push((from, Instant::now()));
        }
        done[index] += 1;
    }
    println!("kills: {:?}", VICTIMS.iter().zip(done).collect::<Vec<_>>());
    let samples = load.stop();
    let failed: Vec<_> = samples
        .iter()
        .filter(|sample| !sample.is_ok() && !is_excused(sample, &without_balancer))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", cluster.logs());
    let answer = cluster.curl(&["-X", "DELETE"], "/v1/services/steady?wait=true");
    assert_eq!(answer.status, 200, "{answer:?}");
    ends_well(&cluster);
}
