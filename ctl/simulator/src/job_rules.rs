//! The rules of runs that no step may break:
//!
//! - No two runs of a job are of one tick, and no number is used twice.
//! - A run keeps its revision, and has no more processes at once than its parallelism.
//! - What has ended stays ended: no process of it is placed, and none of its completions is done twice.
//! - Runs of a job do not overlap; hooks of a service run one at a time, each once.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::{ProcessId, ServiceName},
    jobs::{AttemptEnd, Run, Trigger},
    state::NodeCondition,
    units::Timestamp,
};
use tucano_planner::{Action, Cluster, Record};

use crate::validator::records_of;

/// What has to be known of the steps before.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobRules {
    runs: BTreeMap<(ServiceName, u64), Run>,
    ticks: BTreeMap<(ServiceName, Timestamp), u64>,
    /// Every process of a run, and its completion.
    processes: BTreeMap<ProcessId, (ServiceName, u64, u32)>,
}

impl JobRules {
    pub(crate) fn check(&mut self, now: Timestamp, actions: &[Action], cluster: &Cluster) {
        for record in records_of(actions) {
            match record {
                Record::Run(run) => self.check_run(run, cluster),
                Record::JobGone(name) => {
                    self.runs.retain(|(service, _), _| service != name);
                    self.ticks.retain(|(service, _), _| service != name);
                }
                _ => {}
            }
        }
        let runs = cluster.snapshot().runs;
        check_processes(cluster, &runs);
        let active: Vec<&Run> = runs.iter().filter(|run| run.is_active()).collect();
        check_overlap(&active);
        check_deadlines(now, &active, cluster);
    }

    fn check_run(&mut self, run: &Run, cluster: &Cluster) {
        let key = (run.service.clone(), run.number);
        if let Trigger::Schedule { tick, .. } = &run.trigger {
            let number = self.ticks.entry((run.service.clone(), *tick));
            let number = number.or_insert(run.number);
            assert_eq!(*number, run.number, "two runs of one tick: {run:#?}");
        }
        assert!(run.active().count() <= run.parallelism as usize, "{run:#?}");
        if let Some(before) = self.runs.get(&key) {
            check_step(before, run);
        }
        for attempt in &run.attempts {
            let of = (run.service.clone(), run.number, attempt.task);
            let known = self.processes.entry(attempt.process.clone());
            assert_eq!(*known.or_insert(of.clone()), of, "{run:#?}");
        }
        check_lost(self.runs.get(&key), run, cluster);
        self.runs.insert(key, run.clone());
    }
}

fn check_step(before: &Run, run: &Run) {
    assert_eq!(before.revision, run.revision, "a run keeps its revision");
    assert_eq!(before.trigger, run.trigger);
    assert!(before.done.is_subset(&run.done), "{run:#?}");
    assert!(before.failures <= run.failures);
    assert!(
        before.is_active() || before == run,
        "it had ended: {run:#?}"
    );
    let old: BTreeSet<&ProcessId> = before.attempts.iter().map(|it| &it.process).collect();
    let new = run.attempts.iter().filter(|it| !old.contains(&it.process));
    for attempt in new {
        assert!(before.outcome.is_none(), "its end was decided: {run:#?}");
        assert!(
            !before.done.contains(&attempt.task),
            "it was done: {run:#?}"
        );
    }
    for attempt in &before.attempts {
        let after = run.attempts.iter().find(|it| it.process == attempt.process);
        let reopened = after.is_some_and(|after| after.is_active() && !attempt.is_active());
        assert!(!reopened, "{run:#?}");
    }
}

/// Nobody says that the end of a process is unknown while its worker may tell.
fn check_lost(before: Option<&Run>, run: &Run, cluster: &Cluster) {
    let had_ended = |id: &ProcessId| {
        let mut attempts = before.into_iter().flat_map(|run| &run.attempts);
        attempts.any(|it| it.process == *id && !it.is_active())
    };
    for attempt in run.attempts.iter().filter(|it| !had_ended(&it.process)) {
        let is_lost =
            matches!(&attempt.end, Some(AttemptEnd::Unknown { why }) if why.contains("is dead"));
        let node = cluster.node(&attempt.node).filter(|_| is_lost);
        let condition = node.map_or(NodeCondition::Dead, |node| node.condition);
        assert_eq!(condition, NodeCondition::Dead, "{run:#?}");
    }
}

/// The processes of runs that are desired are those that runs may have.
fn check_processes(cluster: &Cluster, runs: &[Run]) {
    let nodes = cluster.nodes();
    // While workers are awaited nothing is stopped.
    let is_awaiting = nodes
        .iter()
        .any(|it| it.condition == NodeCondition::Unknown);
    let mut wanted: BTreeSet<&ProcessId> = BTreeSet::new();
    for run in runs
        .iter()
        .filter(|run| is_awaiting || run.outcome.is_none())
    {
        wanted.extend(run.active().map(|attempt| &attempt.process));
    }
    let snapshot = cluster.snapshot();
    for process in snapshot.processes.iter().filter(|it| it.run.is_some()) {
        let service = cluster.service(&process.service);
        assert!(
            service.is_some() && wanted.contains(&process.id),
            "{process:#?}"
        );
        assert_eq!(process.slot, None);
    }
    for route in cluster.routes() {
        let mut endpoints = route.endpoints.iter();
        let is_run = |id: &ProcessId| {
            let mut processes = snapshot.processes.iter();
            processes.any(|it| it.id == *id && it.run.is_some())
        };
        assert!(
            !endpoints.any(|it| is_run(&it.process)),
            "a run is never routed"
        );
    }
}

fn check_overlap(active: &[&Run]) {
    let mut begun: BTreeSet<(&ServiceName, bool)> = BTreeSet::new();
    let counted = active
        .iter()
        .filter(|run| run.began_at.is_some() && (run.trigger.is_hook() || run.command.is_none()));
    for run in counted {
        let is_first = begun.insert((&run.service, run.trigger.is_hook()));
        assert!(is_first, "runs overlap: {active:#?}");
    }
}

/// A run whose time is over is being stopped.
fn check_deadlines(now: Timestamp, active: &[&Run], cluster: &Cluster) {
    let nodes = cluster.nodes();
    let all_known = nodes
        .iter()
        .all(|it| it.condition != NodeCondition::Unknown);
    for run in active.iter().filter(|_| all_known) {
        let deadline = run.began_at.zip(run.deadline);
        let is_over = deadline.is_some_and(|(began_at, span)| began_at.after(span) <= now);
        assert!(!is_over || run.outcome.is_some(), "{run:#?}");
    }
}
