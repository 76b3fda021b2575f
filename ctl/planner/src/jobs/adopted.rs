//! Processes of runs on nodes on hold: they go on as runs that the present database has not begun.

use tucano_api::{
    agent::DesiredProcess,
    ids::NodeName,
    jobs::{Attempt, Run, Trigger},
};

use super::entry;
use crate::state::State;

/// Records the run of an adopted process. Whether it is to go on: a run that has ended does not.
pub(crate) fn adopt(state: &mut State, node: &NodeName, process: &DesiredProcess) -> bool {
    let Some(desired) = &process.run else {
        return false;
    };
    let (now, epoch) = (state.now, state.identity.epoch);
    let name = process.config.name.clone();
    let job = entry(state, &name);
    job.record.last_run = job.record.last_run.max(desired.number);
    if let Trigger::Schedule { tick, .. } = &desired.trigger {
        job.record.claimed = job.record.claimed.max(Some(*tick));
    }
    // What its configuration says of failures is not known here.
    let run = job.runs.entry(desired.number).or_insert_with(|| Run {
        number: desired.number,
        command: process.config.args.clone(),
        completions: 0,
        parallelism: 0,
        began_at: Some(now),
        ..Run::new(
            name.clone(),
            process.revision,
            desired.trigger.clone(),
            now,
            epoch,
        )
    });
    if run.outcome.is_some() || run.revision != process.revision {
        return false;
    }
    if run.attempts.iter().any(|it| it.process == process.id) {
        return true;
    }
    run.completions = run.completions.saturating_add(1);
    run.parallelism = run.completions;
    run.attempts.push(Attempt {
        process: process.id.clone(),
        task: run.completions,
        node: node.clone(),
        placed_at: now,
        started_at: (!desired.may_start).then_some(now),
        stopping: false,
        ended_at: None,
        end: None,
        memory_peak: None,
        last_lines: Vec::new(),
    });
    state.changes.jobs.insert(name.clone());
    state.changes.runs.insert((name.clone(), desired.number));
    state.changes.reconcile.insert(name);
    true
}
