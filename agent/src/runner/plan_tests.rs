use proptest::prelude::*;
use tucano_api::{
    ids::{Digest, Revision},
    service::ServiceConfig,
    settings::parse,
    units::Span,
};

use super::*;
use crate::runner::lifecycle::{
    Change, FIRST_RESTART_DELAY, HEALTHY_RESETS_AFTER, LONGEST_RESTART_DELAY, RESIZE_RETRY_DELAY,
    restart_delay,
};

const SECOND: Duration = Duration::from_secs(1);

fn process(number: u64) -> DesiredProcess {
    let config: ServiceConfig = parse(
        "a",
        "name = \"a\"\nconcurrency = 1\nport = 80\nstop_timeout = \"3s\"",
    )
    .unwrap();
    DesiredProcess {
        address: None,
        kept: Default::default(),
        devices: Vec::new(),
        id: ProcessId::new(&config.name, number),
        revision: Revision(1),
        image: Digest::sha256(&"0".repeat(64)).unwrap(),
        config,
        slot: None,
        volumes: Vec::new(),
        run: None,
    }
}

fn wanting(numbers: &[u64]) -> Desired {
    let processes = numbers.iter().map(|&n| (process(n).id, process(n)));
    Desired {
        processes: Some(processes.collect()),
        starts_allowed: true,
        removed_volumes: Vec::new(),
    }
}

fn existing(phase: Phase) -> BTreeMap<ProcessId, Actual> {
    let mut actual = Actual::new(process(1));
    actual.phase = phase;
    BTreeMap::from([(process(1).id, actual)])
}

fn step(desired: &Desired, phase: Phase, now: Duration) -> Option<Step> {
    plan(desired, &existing(phase), now)
        .pop()
        .map(|(_, step)| step)
}

fn running(health: Health) -> Phase {
    Phase::Running {
        health,
        since: SECOND,
    }
}

#[test]
fn a_missing_process_is_pulled_then_started() {
    let desired = wanting(&[1]);
    assert_eq!(
        plan(&desired, &BTreeMap::<_, Actual>::new(), SECOND),
        [(process(1).id, Step::Pull)]
    );
    assert_eq!(step(&desired, Phase::Pulling, SECOND), None);
    assert_eq!(step(&desired, Phase::Pulled, SECOND), Some(Step::Start));
    assert_eq!(step(&desired, Phase::Launching, SECOND), None);
}

#[test]
fn a_desired_and_healthy_process_is_left_alone() {
    let (desired, actual) = (wanting(&[1]), existing(running(Health::Healthy)));
    assert_eq!(plan(&desired, &actual, SECOND * 1_000_000), []);
    assert_eq!(next_change(&desired, &actual, SECOND), None);
}

#[test]
fn a_change_of_routing_alone_does_not_restart() {
    let mut desired = wanting(&[1]);
    let changed = desired
        .processes
        .as_mut()
        .unwrap()
        .values_mut()
        .next()
        .unwrap();
    changed.config.hosts = vec!["a.example".into()];
    changed.revision = Revision(2);
    assert_eq!(step(&desired, running(Health::Healthy), SECOND), None);
    let changed = desired
        .processes
        .as_mut()
        .unwrap()
        .values_mut()
        .next()
        .unwrap();
    changed.config.args = Some(Vec::new());
    assert_eq!(
        step(&desired, running(Health::Healthy), SECOND),
        Some(Step::Terminate)
    );
}

/// A desired process with another limit.
fn resized() -> Desired {
    let mut desired = wanting(&[1]);
    for process in desired.processes.iter_mut().flat_map(BTreeMap::values_mut) {
        process.config.pids = 7;
        process.revision = Revision(2);
    }
    desired
}

#[test]
fn other_limits_are_set_as_the_process_runs_and_once_at_a_time() {
    let desired = resized();
    let mut actual = existing(running(Health::Healthy));
    assert_eq!(plan(&desired, &actual, SECOND)[0].1, Step::Resize);
    let process = actual.values_mut().next().unwrap();
    process.begin(Step::Resize, SECOND);
    assert_eq!(process.phase, running(Health::Healthy));
    assert_eq!(plan(&desired, &actual, SECOND), []);
    // Limits that differ are no reason to spare a process that is not healthy.
    assert_eq!(
        step(&desired, running(Health::Unhealthy), SECOND * 31),
        Some(Step::Terminate)
    );
    for phase in [Phase::Pulling, Phase::Launching, Phase::Removing] {
        assert_eq!(step(&desired, phase, SECOND), None, "{phase:?}");
    }
}

#[test]
fn refused_limits_are_tried_again_after_a_delay() {
    let desired = resized();
    let mut actual = existing(running(Health::Healthy));
    let process = actual.values_mut().next().unwrap();
    process.begin(Step::Resize, SECOND);
    process.apply(Change::NotResized, SECOND);
    let retry_at = SECOND + RESIZE_RETRY_DELAY;
    assert_eq!(plan(&desired, &actual, SECOND * 2), []);
    assert_eq!(next_change(&desired, &actual, SECOND * 2), Some(retry_at));
    assert_eq!(plan(&desired, &actual, retry_at)[0].1, Step::Resize);
    // The earlier limits are desired again: some of the refused ones may have been written.
    assert_eq!(plan(&wanting(&[1]), &actual, retry_at)[0].1, Step::Resize);
}

#[test]
fn a_result_that_arrives_after_the_end_changes_nothing() {
    let mut process = existing(running(Health::Healthy))
        .remove(&process(1).id)
        .unwrap();
    process.begin(Step::Resize, SECOND);
    process.apply(Change::Ended, SECOND);
    let ended = process.clone();
    assert_eq!(ended.resize, Resize::Idle);
    process.apply(Change::NotResized, SECOND);
    assert_eq!(process, ended);
}

#[test]
fn an_undesired_process_is_terminated_then_killed_then_removed() {
    let nothing = wanting(&[]);
    let mut actual = existing(running(Health::Healthy));
    assert_eq!(plan(&nothing, &actual, SECOND)[0].1, Step::Terminate);
    let process = actual.values_mut().next().unwrap();
    process.begin(Step::Terminate, SECOND);
    assert_eq!(plan(&nothing, &actual, SECOND * 3), []);
    assert_eq!(next_change(&nothing, &actual, SECOND * 3), Some(SECOND * 4));
    assert_eq!(plan(&nothing, &actual, SECOND * 4)[0].1, Step::Kill);
    let process = actual.values_mut().next().unwrap();
    process.begin(Step::Kill, SECOND * 4);
    assert_eq!(plan(&nothing, &actual, SECOND * 9), []);
    actual
        .values_mut()
        .next()
        .unwrap()
        .apply(Change::Ended, SECOND * 5);
    assert_eq!(plan(&nothing, &actual, SECOND * 5)[0].1, Step::Remove);
}

#[test]
fn failed_kills_and_removals_are_retried() {
    let nothing = wanting(&[]);
    let mut actual = Actual::new(process(1));
    actual.phase = Phase::Stopping {
        kill_at: SECOND,
        killing: true,
    };
    actual.apply(Change::NotKilled, SECOND * 2);
    assert_eq!(step(&nothing, actual.phase, SECOND * 2), None);
    assert_eq!(step(&nothing, actual.phase, SECOND * 3), Some(Step::Kill));
    actual.phase = Phase::Removing;
    actual.apply(Change::NotRemoved, SECOND * 2);
    assert_eq!(step(&nothing, actual.phase, SECOND * 2), None);
    assert_eq!(step(&nothing, actual.phase, SECOND * 3), Some(Step::Remove));
}

#[test]
fn a_process_that_is_unhealthy_beyond_its_grace_is_restarted() {
    let desired = wanting(&[1]);
    let grace = process(1).config.health.grace.0;
    for health in [Health::Starting, Health::Unhealthy] {
        assert_eq!(step(&desired, running(health), grace), None);
        assert_eq!(
            step(&desired, running(health), grace + SECOND),
            Some(Step::Terminate)
        );
    }
}

#[test]
fn nothing_is_started_before_starts_are_allowed() {
    let mut desired = wanting(&[1, 2]);
    desired.starts_allowed = false;
    for phase in [
        Phase::New,
        Phase::Pulled,
        Phase::Ended { restart_at: SECOND },
    ] {
        assert_eq!(plan(&desired, &existing(phase), SECOND * 2), []);
    }
    let unwanted = Desired {
        starts_allowed: false,
        ..wanting(&[])
    };
    assert_eq!(
        step(&unwanted, running(Health::Healthy), SECOND),
        Some(Step::Terminate)
    );
}

#[test]
fn nothing_changes_before_the_first_desired_set() {
    let unknown = Desired {
        processes: None,
        ..wanting(&[])
    };
    assert_eq!(step(&unknown, running(Health::Healthy), SECOND), None);
}

#[test]
fn the_restart_delay_grows_to_its_limit_and_health_resets_it() {
    let mut actual = Actual::new(process(1));
    let mut delays = Vec::new();
    for crash in 1..=10 {
        actual.phase = running(Health::Starting);
        actual.apply(Change::Ended, SECOND);
        assert_eq!(actual.crashes, crash);
        let Phase::Ended { restart_at } = actual.phase else {
            panic!("{:?}", actual.phase)
        };
        delays.push(restart_at - SECOND);
    }
    assert_eq!(delays[..3], [FIRST_RESTART_DELAY, SECOND, SECOND * 2]);
    assert!(delays.is_sorted() && delays[9] == LONGEST_RESTART_DELAY);
    assert_eq!(restart_delay(u32::MAX), LONGEST_RESTART_DELAY);

    actual.phase = running(Health::Healthy);
    actual.apply(Change::Ended, SECOND + HEALTHY_RESETS_AFTER);
    assert_eq!(actual.crashes, 1);
}

#[test]
fn late_events_change_nothing() {
    for phase in [
        Phase::New,
        Phase::Pulled,
        Phase::Removing,
        Phase::Ended { restart_at: SECOND },
    ] {
        for change in [
            Change::Started,
            Change::Failed,
            Change::Ended,
            Change::Probed(Health::Healthy),
        ] {
            let mut actual = Actual::new(process(1));
            actual.phase = phase;
            actual.apply(change, SECOND);
            assert_eq!(actual.phase, phase, "{change:?}");
        }
    }
}

/// A model of a node on which each step may fail.
#[derive(Default)]
struct Model {
    actual: BTreeMap<ProcessId, Actual>,
    containers: std::collections::BTreeSet<ProcessId>,
    now: Duration,
}

impl Model {
    /// Executes one plan; `outcomes` decides whether each step succeeds.
    fn round(&mut self, desired: &Desired, mut outcomes: impl FnMut() -> bool) -> usize {
        let steps = plan(desired, &self.actual, self.now);
        for (id, step) in &steps {
            self.execute(desired, id, *step, outcomes());
        }
        steps.len()
    }

    fn execute(&mut self, desired: &Desired, id: &ProcessId, step: Step, succeeds: bool) {
        let now = self.now;
        let made_from = |desired: &Desired| desired.processes.as_ref().unwrap()[id].clone();
        let actual = self
            .actual
            .entry(id.clone())
            .or_insert_with(|| Actual::new(made_from(desired)));
        actual.begin(step, now);
        let change = match (step, succeeds) {
            (Step::Pull, true) => Change::Pulled,
            (Step::Start, true) => {
                assert!(self.containers.insert(id.clone()), "{id} was started twice");
                Change::Started
            }
            (Step::Pull | Step::Start, false) => Change::Failed,
            (Step::Terminate, false) => return,
            (Step::Kill, false) => Change::NotKilled,
            (Step::Terminate | Step::Kill, true) => {
                self.containers.remove(id);
                Change::Ended
            }
            (Step::Resize, false) => Change::NotResized,
            (Step::Resize, true) => {
                actual.process = made_from(desired);
                Change::Resized
            }
            (Step::Remove, false) => Change::NotRemoved,
            (Step::Remove, true) => {
                assert!(
                    !self.containers.contains(id),
                    "{id} was removed while it ran"
                );
                self.actual.remove(id);
                return;
            }
        };
        actual.apply(change, now);
    }

    fn crash(&mut self, id: &ProcessId) {
        if self.containers.remove(id)
            && let Some(actual) = self.actual.get_mut(id)
        {
            actual.apply(Change::Ended, self.now);
        }
    }

    fn probe_all(&mut self, health: Health) {
        for actual in self.actual.values_mut() {
            actual.apply(Change::Probed(health), self.now);
        }
    }

    fn is_settled(&self, desired: &Desired) -> bool {
        let wanted = desired.processes.as_ref().unwrap();
        self.actual.keys().eq(wanted.keys())
            && self.actual.values().all(|actual| {
                matches!(
                    actual.phase,
                    Phase::Running {
                        health: Health::Healthy,
                        ..
                    }
                )
            })
            && self.containers.iter().eq(wanted.keys())
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Desire(Vec<u64>),
    Crash(u64),
    Probe(bool),
    Wait(u64),
    Round(Vec<bool>),
}

fn any_operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        proptest::collection::vec(0..6_u64, 0..6).prop_map(Operation::Desire),
        (0..6_u64).prop_map(Operation::Crash),
        any::<bool>().prop_map(Operation::Probe),
        (0..40_000_u64).prop_map(Operation::Wait),
        proptest::collection::vec(any::<bool>(), 8).prop_map(Operation::Round),
    ]
}

proptest! {
    /// Safety: never two containers of one process, nor a running one removed (asserted by `Model`), nor a step for a healthy
    /// desired one. Liveness: once steps succeed, exactly the desired processes run.
    #[test]
    fn any_history_converges_and_starts_nothing_twice(history in proptest::collection::vec(any_operation(), 0..60)) {
        let (mut node, mut desired) = (Model::default(), wanting(&[]));
        for event in history {
            match event {
                Operation::Desire(numbers) => desired = wanting(&numbers),
                Operation::Crash(number) => node.crash(&process(number).id),
                Operation::Probe(healthy) => node.probe_all(if healthy { Health::Healthy } else { Health::Unhealthy }),
                Operation::Wait(ms) => node.now += Duration::from_millis(ms),
                Operation::Round(outcomes) => {
                    for (id, step) in plan(&desired, &node.actual, node.now) {
                        let healthy = node.actual.get(&id).is_some_and(|actual| desired.wants(actual)
                            && matches!(actual.phase, Phase::Running { health: Health::Healthy, .. }));
                        prop_assert!(!healthy, "{step:?} for {id}, which is healthy");
                    }
                    let mut outcomes = outcomes.into_iter().cycle();
                    node.round(&desired, || outcomes.next().unwrap());
                }
            }
        }
        for _ in 0..12 {
            while node.round(&desired, || true) > 0 {}
            node.probe_all(Health::Healthy);
            node.now = next_change(&desired, &node.actual, node.now).unwrap_or(node.now);
        }
        prop_assert!(node.is_settled(&desired), "{:?}", node.actual);
    }

    #[test]
    fn the_next_change_is_when_the_plan_changes(phase_at in 0..100_000_u64, now in 0..100_000_u64, grace in 10..50_000_u64) {
        let at = Duration::from_millis(phase_at);
        let now = Duration::from_millis(now);
        let desired = wanting(&[1]);
        for phase in [
            Phase::Ended { restart_at: at },
            Phase::Stopping { kill_at: at, killing: false },
            Phase::NotRemoved { retry_at: at },
            Phase::Running { health: Health::Starting, since: at },
        ] {
            let mut actual = existing(phase);
            actual.values_mut().next().unwrap().process.config.health.grace = Span::millis(grace);
            let mut desired = desired.clone();
            desired.processes.as_mut().unwrap().values_mut().next().unwrap().config.health.grace = Span::millis(grace);
            match next_change(&desired, &actual, now) {
                None => prop_assert_eq!(plan(&desired, &actual, now).len(), 1),
                Some(look) => {
                    prop_assert!(look > now && plan(&desired, &actual, now).is_empty());
                    prop_assert_eq!(plan(&desired, &actual, look).len(), 1);
                }
            }
        }
    }
}

/// A process with a volume, which process 1 and process 2 share.
fn with_volume(number: u64) -> DesiredProcess {
    let volume = VolumeInstance {
        id: "a/data/1".parse().unwrap(),
        instance: 7,
    };
    let volume = tucano_api::agent::DesiredVolume {
        volume,
        may_create: false,
        load: None,
    };
    DesiredProcess {
        kept: Default::default(),
        devices: Vec::new(),
        slot: Some(1),
        volumes: vec![volume],
        ..process(number)
    }
}

fn with_volumes(numbers: &[u64]) -> Desired {
    let processes = numbers.iter().map(|&n| (process(n).id, with_volume(n)));
    Desired {
        processes: Some(processes.collect()),
        ..wanting(&[])
    }
}

fn two(first: Phase, second: Phase) -> BTreeMap<ProcessId, Actual> {
    let actual = |number: u64, phase: Phase| {
        let mut actual = Actual::new(with_volume(number));
        actual.was_started = !matches!(phase, Phase::New | Phase::Pulling | Phase::Pulled);
        actual.phase = phase;
        (actual.process.id.clone(), actual)
    };
    BTreeMap::from([actual(1, first), actual(2, second)])
}

#[test]
fn a_process_waits_until_nothing_is_left_of_the_one_with_its_volume() {
    let desired = with_volumes(&[2]);
    let earlier = [
        Phase::Launching,
        running(Health::Healthy),
        Phase::Stopping {
            kill_at: SECOND * 9,
            killing: true,
        },
        Phase::Ended { restart_at: SECOND },
        Phase::Removing,
        Phase::NotRemoved {
            retry_at: SECOND * 9,
        },
    ];
    for phase in earlier {
        let actual = two(phase, Phase::Pulled);
        let steps = plan(&desired, &actual, SECOND);
        let starts = steps.iter().any(|(_, step)| *step == Step::Start);
        assert!(!starts, "{phase:?}: {steps:?}");
        let (other, volume) = predecessor(&desired, &actual, &actual[&process(2).id]).unwrap();
        assert_eq!(
            (other.as_str(), volume.as_str()),
            ("a-1", "volume a/data/1")
        );
    }
    let mut actual = two(Phase::Removing, Phase::Pulled);
    actual.remove(&process(1).id);
    let start = [(process(2).id, Step::Start)];
    assert_eq!(plan(&desired, &actual, SECOND), start);
}

/// A process with a device that is called by these names, and is these devices.
fn with_device(number: u64, name: &str, units: &[&str]) -> DesiredProcess {
    let units = units.iter().map(|unit| unit.parse().unwrap());
    DesiredProcess {
        devices: vec![tucano_api::service::AssignedDevice {
            kind: "acme.com/gpu".parse().unwrap(),
            name: name.parse().unwrap(),
            units: units.collect(),
        }],
        ..process(number)
    }
}

#[test]
fn a_process_waits_until_nothing_is_left_of_the_one_that_had_its_device() {
    let all = [
        with_device(1, "all", &["0", "1"]),
        with_device(2, "1", &["1"]),
        with_device(3, "2", &["2"]),
    ];
    let desired = Desired {
        processes: Some(
            all[1..]
                .iter()
                .map(|it| (it.id.clone(), it.clone()))
                .collect(),
        ),
        starts_allowed: true,
        ..Desired::default()
    };
    let mut actual: BTreeMap<ProcessId, Actual> = all
        .iter()
        .map(|it| {
            (
                it.id.clone(),
                Actual {
                    phase: Phase::Pulled,
                    ..Actual::new(it.clone())
                },
            )
        })
        .collect();
    let first = actual.get_mut(&all[0].id).unwrap();
    first.was_started = true;
    first.phase = Phase::Removing;
    assert_eq!(
        plan(&desired, &actual, SECOND),
        [(all[2].id.clone(), Step::Start)]
    );
    let (other, device) = predecessor(&desired, &actual, &actual[&all[1].id]).unwrap();
    assert_eq!(
        (other.as_str(), device.as_str()),
        ("a-1", "device acme.com/gpu=1")
    );
    actual.remove(&all[0].id);
    assert_eq!(plan(&desired, &actual, SECOND).len(), 2);
}

#[test]
fn of_two_desired_processes_with_one_volume_one_starts() {
    let desired = with_volumes(&[1, 2]);
    let start = [(process(1).id, Step::Start)];
    let both = two(Phase::Pulled, Phase::Pulled);
    assert_eq!(plan(&desired, &both, SECOND), start);
    // The one that was there first restarts, whatever its id.
    let mut restarting = two(Phase::Pulled, Phase::Pulled);
    restarting.get_mut(&process(2).id).unwrap().was_started = true;
    let start = [(process(2).id, Step::Start)];
    assert_eq!(plan(&desired, &restarting, SECOND), start);
}

#[test]
fn another_instance_of_a_volume_is_another_container() {
    let mut other = with_volume(1);
    other.volumes[0].may_create = true;
    assert!(same_container(&with_volume(1), &other));
    other.volumes[0].volume.instance = 8;
    assert!(!same_container(&with_volume(1), &other));
}

proptest! {
    /// However two processes of one volume came to their phases, no step starts one while the other has, or may have, a container.
    #[test]
    fn a_volume_has_one_writer(
        changes in prop::collection::vec((0_usize..2, 0_usize..8, prop::bool::ANY), 1..60)
    ) {
        let mut actual = two(Phase::New, Phase::New);
        let mut has_container = [false, false];
        let mut now = SECOND;
        for (which, change, wanted) in changes {
            now += SECOND;
            let wanted: Vec<u64> = if wanted { vec![1, 2] } else { vec![which as u64 + 1] };
            for (id, step) in plan(&with_volumes(&wanted), &actual, now) {
                let number = usize::from(id == process(2).id);
                if step == Step::Start {
                    prop_assert!(!has_container[1 - number], "{actual:#?}");
                    has_container[number] = true;
                }
                actual.get_mut(&id).unwrap().begin(step, now);
            }
            let id = process(which as u64 + 1).id;
            let it = actual.get_mut(&id).unwrap();
            match [Change::Pulled, Change::Started, Change::Failed, Change::Ended, Change::NotKilled, Change::NotRemoved].get(change) {
                Some(change) => it.apply(*change, now),
                None if it.phase == Phase::Removing => {
                    has_container[which] = false;
                    *it = Actual::new(with_volume(which as u64 + 1));
                }
                None => {}
            }
        }
    }
}
