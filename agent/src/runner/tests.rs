//! The runner with a recording fake in place of the machine: plan, execute and adopt, without root.

mod fake;
mod live_changes;
mod runs;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, ProcessReport, ProcessState, ReportAccepted},
    ids::{Digest, Generation, ProcessId, Revision},
    settings::parse,
    units::Span,
};

use self::fake::{Call, FakeNode};
use super::{
    DesiredSetError, Handle, InitialState, Process, Runner, Snapshot,
    lifecycle::{Health, Phase},
    state::Record,
};
use crate::clock::Stopwatch;

/// A runner on a fake node; dropping it stops the runner's task.
struct Setup {
    node: Arc<FakeNode>,
    calls: mpsc::UnboundedReceiver<Call>,
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Setup {
    fn start() -> Self {
        Self::start_with(|_| initial())
    }

    fn start_with(initial: impl FnOnce(&FakeNode) -> InitialState) -> Self {
        let (node, calls) = FakeNode::new();
        let initial = initial(&node);
        let (runner, handle) = Runner::new(Arc::clone(&node), Stopwatch::start(), initial);
        Self {
            node,
            calls,
            handle,
            task: tokio::spawn(runner.run()),
        }
    }

    async fn desire(&self, generation: u64, processes: Vec<DesiredProcess>) {
        let accepted = self.handle.desire(set(generation, processes)).await;
        assert_eq!(accepted, Ok(Generation(generation)));
    }

    /// The next call of the runner.
    async fn next_call(&mut self) -> Call {
        self.calls.recv().await.unwrap()
    }

    /// Waits until the snapshot satisfies the condition.
    async fn wait_for(&self, mut condition: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        let mut snapshots = self.handle.snapshots();
        let snapshot = snapshots.wait_for(|snapshot| condition(snapshot)).await;
        snapshot.unwrap().clone()
    }

    async fn wait_for_state(&self, state: ProcessState) -> ProcessReport {
        let is_in = |snapshot: &Snapshot| snapshot.processes.iter().any(|p| p.state == state);
        let snapshot = self.wait_for(is_in).await;
        let mut processes = snapshot.processes.into_iter();
        processes.find(|process| process.state == state).unwrap()
    }

    /// Starts process 1, and makes it healthy.
    async fn run_one(&mut self) -> ProcessId {
        let process = process(1);
        self.desire(1, vec![process.clone()]).await;
        assert_eq!(self.next_call().await, Call::StoreDesired(1));
        assert_eq!(self.next_call().await, Call::Pull(process.image));
        assert_eq!(self.next_call().await, Call::Launch(process.id.clone()));
        self.node.probed(&process.id, Health::Healthy).await;
        self.wait_for_state(ProcessState::Healthy).await;
        process.id
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn initial() -> InitialState {
    InitialState {
        adopted: Vec::new(),
        desired: None,
        node: Some("w1".parse().unwrap()),
        controller_wait: Duration::ZERO,
        fallback_name: "w1".parse().unwrap(),
        notes: Vec::new(),
    }
}

fn process(number: u64) -> DesiredProcess {
    let text = "name = \"a\"\nconcurrency = 1\nport = 80\ndisk = \"1MiB\"\nstop_timeout = \"20ms\"";
    let config: tucano_api::service::ServiceConfig = parse("a", text).unwrap();
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

fn set(generation: u64, processes: Vec<DesiredProcess>) -> DesiredSet {
    DesiredSet {
        generation: Generation(generation),
        processes,
        ..DesiredSet::empty("w1".parse().unwrap())
    }
}

fn adopted(number: u64) -> Process {
    let record = Record {
        healthy: true,
        ..Record::new(process(number))
    };
    let phase = Phase::Running {
        health: Health::Healthy,
        since: Duration::ZERO,
    };
    Process::adopted(record, phase)
}

#[tokio::test]
async fn a_desired_process_is_pulled_launched_and_removed_again() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    assert_eq!(setup.node.running(), std::slice::from_ref(&id));
    assert!(setup.node.record(&id).unwrap().healthy);

    setup.desire(2, Vec::new()).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(2));
    assert_eq!(setup.next_call().await, Call::Signal(id.clone(), 15));
    assert_eq!(setup.next_call().await, Call::Remove(id));
    assert_eq!(setup.next_call().await, Call::RemoveShared);
    setup
        .wait_for(|snapshot| snapshot.processes.is_empty())
        .await;
}

#[tokio::test]
async fn an_ended_process_is_started_again_and_its_exit_reported() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    setup.node.end(&id, 3);
    let report = setup.wait_for_state(ProcessState::BackOff).await;
    assert_eq!(report.last_exit.unwrap().code, Some(3));
    assert_eq!(setup.next_call().await, Call::Pull(process(1).image));
    assert_eq!(setup.next_call().await, Call::Launch(id.clone()));
    setup.node.probed(&id, Health::Healthy).await;
    let report = setup.wait_for_state(ProcessState::Healthy).await;
    assert_eq!(report.restarts, 1);
    assert_eq!(setup.node.record(&id).unwrap().restarts, 1);
}

#[tokio::test]
async fn a_failed_step_is_reported_and_retried() {
    for (step, word) in [("pull", "pull fails"), ("launch", "launch fails")] {
        let setup = Setup::start();
        setup.node.set_failing(step, true);
        setup.desire(1, vec![process(1)]).await;
        let report = setup.wait_for_state(ProcessState::BackOff).await;
        assert_eq!(report.reason.as_deref(), Some(word));
        setup.node.set_failing(step, false);
        setup.node.probed(&process(1).id, Health::Healthy).await;
        setup.wait_for_state(ProcessState::Healthy).await;
    }
}

#[tokio::test]
async fn a_process_that_ignores_its_stop_signal_is_killed_and_a_failed_removal_is_retried() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    setup.node.set_failing("signal", true);
    setup.node.set_failing("remove", true);
    setup.desire(2, Vec::new()).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(2));
    assert_eq!(setup.next_call().await, Call::Signal(id.clone(), 15));
    assert_eq!(setup.next_call().await, Call::Kill(id.clone()));
    assert_eq!(setup.next_call().await, Call::Remove(id.clone()));
    let report = setup.wait_for_state(ProcessState::Stopping).await;
    assert_eq!(report.id, id);
    setup.node.set_failing("remove", false);
    setup
        .wait_for(|snapshot| snapshot.processes.is_empty())
        .await;
}

#[tokio::test]
async fn a_process_that_exceeds_its_disk_limit_is_killed_once() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    setup.node.disk_used(&id, 1 << 20).await;
    setup.node.disk_used(&id, (1 << 20) + 1).await;
    setup.node.disk_used(&id, (1 << 20) + 2).await;
    assert_eq!(setup.next_call().await, Call::Kill(id.clone()));
    let report = setup.wait_for_state(ProcessState::BackOff).await;
    assert!(report.last_exit.unwrap().disk_exceeded);
    assert_ne!(setup.next_call().await, Call::Kill(id));
}

#[tokio::test]
async fn adopted_processes_are_reported_at_once_and_not_started_again() {
    let mut setup = Setup::start_with(|node| {
        node.add_container(&process(1).id);
        InitialState {
            adopted: vec![adopted(1)],
            desired: Some(set(7, vec![process(1)])),
            ..initial()
        }
    });
    let first = setup.handle.snapshots().borrow().clone();
    assert_eq!(first.generation, Generation(7));
    assert_eq!(first.processes[0].state, ProcessState::Healthy);
    // The container of the earlier agent is watched: its end is noticed.
    setup.node.end(&process(1).id, 1);
    assert_eq!(setup.next_call().await, Call::Pull(process(1).image));
}

#[tokio::test]
async fn an_adopted_process_that_is_not_desired_any_more_is_removed() {
    let mut setup = Setup::start_with(|node| {
        node.add_container(&process(2).id);
        InitialState {
            adopted: vec![adopted(2)],
            desired: Some(set(7, Vec::new())),
            ..initial()
        }
    });
    assert_eq!(setup.next_call().await, Call::Signal(process(2).id, 15));
    assert_eq!(setup.next_call().await, Call::Remove(process(2).id));
}

#[tokio::test]
async fn processes_of_a_stored_set_wait_for_the_announced_one() {
    let mut setup = Setup::start_with(|_| InitialState {
        desired: Some(set(7, vec![process(1)])),
        controller_wait: Duration::from_secs(3600),
        ..initial()
    });
    let answer = ReportAccepted {
        node: "w1".parse().unwrap(),
        generation: Generation(8),
        lease: Span::secs(6),
        apis: None,
        send_held: false,
        desired: None,
    };
    setup.handle.controller_answered(answer).await;
    setup.wait_for(|snapshot| !snapshot.notes.is_empty()).await;
    setup.desire(8, vec![process(2)]).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(8));
    assert_eq!(setup.next_call().await, Call::Pull(process(2).image));
    assert_eq!(setup.next_call().await, Call::Launch(process(2).id));
}

#[tokio::test]
async fn older_sets_sets_of_other_nodes_and_sets_that_cannot_be_stored_change_nothing() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    let stale = setup.handle.desire(set(0, Vec::new())).await;
    assert!(
        matches!(stale, Err(DesiredSetError::Stale { .. })),
        "{stale:?}"
    );
    let other = DesiredSet {
        node: "w2".parse().unwrap(),
        ..set(2, Vec::new())
    };
    let other = setup.handle.desire(other).await;
    assert!(
        matches!(other, Err(DesiredSetError::WrongNode { .. })),
        "{other:?}"
    );
    setup.node.set_failing("store_desired", true);
    let full = setup.handle.desire(set(2, Vec::new())).await;
    assert!(
        matches!(full, Err(DesiredSetError::NotStored(_))),
        "{full:?}"
    );
    assert_eq!(setup.node.running(), [id]);
}

fn with_volume(number: u64) -> DesiredProcess {
    let volume = tucano_api::agent::VolumeInstance {
        id: "a/data/1".parse().unwrap(),
        instance: 1,
    };
    let volume = tucano_api::agent::DesiredVolume {
        volume,
        may_create: true,
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

#[tokio::test]
async fn a_volume_is_removed_only_when_nothing_is_left_of_its_process() {
    let mut setup = Setup::start();
    setup.desire(1, vec![with_volume(1)]).await;
    let id = with_volume(1).id;
    setup.node.probed(&id, Health::Healthy).await;
    setup.wait_for_state(ProcessState::Healthy).await;
    setup.node.set_failing("remove", true);
    let removal = DesiredSet {
        removed_volumes: vec![with_volume(1).volumes[0].volume.clone()],
        ..set(2, Vec::new())
    };
    setup.handle.desire(removal).await.unwrap();
    loop {
        let call = setup.next_call().await;
        assert!(
            !matches!(call, Call::RemoveVolume(_)),
            "the process is there"
        );
        if call == Call::Remove(id.clone()) {
            break;
        }
    }
    setup.node.set_failing("remove", false);
    while setup.next_call().await != Call::RemoveVolume("a/data/1".to_owned()) {}
    assert!(setup.node.running().is_empty());
}

#[tokio::test]
async fn a_process_that_waits_for_a_volume_says_for_which() {
    let setup = Setup::start();
    setup.desire(1, vec![with_volume(1), with_volume(2)]).await;
    let says = |snapshot: &Snapshot| {
        let reason = "it waits until a-1, which has volume a/data/1, is gone";
        let mut all = snapshot.processes.iter();
        all.any(|process| process.reason.as_deref() == Some(reason))
    };
    setup.wait_for(says).await;
    assert!(!setup.node.running().contains(&with_volume(2).id));
}
