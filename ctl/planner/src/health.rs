//! Alerts about a process's crashes and limits: one when they begin, one when it has recovered.

use tucano_api::{
    agent::{Exit, ProcessReport},
    state::AlertKind,
    units::Timestamp,
};

use crate::{
    live_changes,
    messages::{bytes, plural},
    state::{Process, State},
};

/// Applies a process's part of a report, `None` if the report does not name it.
pub(crate) fn observe(state: &mut State, number: u64, report: Option<ProcessReport>) {
    let now = state.now;
    let Some(process) = state.processes.get_mut(&number) else {
        return;
    };
    if process.update(report, now) {
        state
            .changes
            .reconcile
            .insert(process.record.service.clone());
        state.changes.reroute.insert(process.record.service.clone());
    }
    live_changes::settle(state, number);
    reset_lost_count(state, number);
    alert_oom_kill(state, number);
    alert_crashes(state, number);
    alert_pids_limit(state, number);
    if state
        .processes
        .get(&number)
        .is_some_and(Process::may_recover)
    {
        state.watched.insert(number);
    }
}

/// Reports the processes that have been healthy for long enough as recovered.
pub(crate) fn expire_recoveries(state: &mut State) {
    let watched = state.watched.iter().copied();
    let due: Vec<u64> = watched
        .filter(|number| recovers_at(state, *number).is_some_and(|at| at <= state.now))
        .collect();
    for number in due {
        state.watched.remove(&number);
        recovered(state, number);
    }
}

/// When the next process counts as recovered.
pub(crate) fn next_recovery(state: &State) -> Option<Timestamp> {
    state
        .watched
        .iter()
        .filter_map(|number| recovers_at(state, *number))
        .min()
}

fn recovers_at(state: &State, number: u64) -> Option<Timestamp> {
    let process = state.processes.get(&number)?;
    let since = process
        .healthy_since?
        .max(process.at_pids_limit.unwrap_or_default());
    Some(since.after(state.settings.recovered_after))
}

fn recovered(state: &mut State, number: u64) {
    let Some(process) = state.processes.get_mut(&number) else {
        return;
    };
    let before = process.record.crashes.clone();
    let restarts = process.report.as_ref().map_or(0, |report| report.restarts);
    let crashes = &mut process.record.crashes;
    crashes.baseline_restarts = restarts;
    crashes.crash_alerted = false;
    crashes.oom_alerted = false;
    crashes.pids_alerted = false;
    if *crashes == before {
        return;
    }
    let id = process.record.id.clone();
    state.changes.processes.insert(id.clone());
    if before.is_alerted() {
        let healthy_for = state.settings.recovered_after;
        let message = if before.crash_alerted || before.oom_alerted {
            format!("process {id} has been healthy for {healthy_for} again")
        } else {
            format!("process {id} has been below its limit of `pids` for {healthy_for} again")
        };
        state.alert(AlertKind::ProcessRecovered, id, message);
    }
}

/// An agent that has lost its count of restarts counts from 0 again; so does the baseline.
fn reset_lost_count(state: &mut State, number: u64) {
    let Some(process) = state.processes.get_mut(&number) else {
        return;
    };
    let Some(restarts) = process.report.as_ref().map(|report| report.restarts) else {
        return;
    };
    let baseline = &mut process.record.crashes.baseline_restarts;
    if restarts < *baseline {
        *baseline = restarts;
        state.changes.processes.insert(process.record.id.clone());
    }
}

fn alert_oom_kill(state: &mut State, number: u64) {
    let Some(process) = state.processes.get_mut(&number) else {
        return;
    };
    let killed_at = process.oom_killed_at();
    if killed_at.is_none() || killed_at == process.record.crashes.oom_killed_at {
        return;
    }
    process.record.crashes.oom_killed_at = killed_at;
    let alerted = std::mem::replace(&mut process.record.crashes.oom_alerted, true);
    let id = process.record.id.clone();
    state.changes.processes.insert(id.clone());
    if !alerted {
        let message = format!(
            "process {id} on {} was killed: it reached its memory limit of {}. \
             Give service {} more `memory`, or have it use less",
            process.record.node,
            bytes(process.reserved.memory),
            process.record.service,
        );
        state.alert(AlertKind::ProcessOomKilled, id, message);
    }
}

fn alert_crashes(state: &mut State, number: u64) {
    let limit = state.settings.crash_alert_after.max(1);
    let Some(process) = state.processes.get_mut(&number) else {
        return;
    };
    let crashes = process.crashes();
    if crashes < limit || process.record.crashes.crash_alerted {
        return;
    }
    process.record.crashes.crash_alerted = true;
    let id = process.record.id.clone();
    let exit = process.report.as_ref().and_then(|report| report.last_exit);
    let how = exit.map_or(String::new(), |exit| {
        format!("; it last {}", describe_exit(exit))
    });
    let message = format!(
        "process {id} on {} keeps crashing: it ended {} in a row{how}. \
         `tucano logs {id}` shows what it wrote",
        process.record.node,
        plural(crashes as usize, "time", "times"),
    );
    state.changes.processes.insert(id.clone());
    state.alert(AlertKind::ProcessCrashing, id, message);
}

fn alert_pids_limit(state: &mut State, number: u64) {
    let Some(process) = state.processes.get_mut(&number) else {
        return;
    };
    let Some(limit) = process.pids_limit() else {
        return;
    };
    if std::mem::replace(&mut process.record.crashes.pids_alerted, true) {
        return;
    }
    let id = process.record.id.clone();
    let message = format!(
        "process {id} on {} has reached its limit of {limit} processes and threads, zombies included: it cannot start \
         more. Give service {} more `pids`, or `init = true` if what it starts is not waited for",
        process.record.node, process.record.service,
    );
    state.changes.processes.insert(id.clone());
    state.alert(AlertKind::ProcessAtPidsLimit, id, message);
}

fn describe_exit(exit: Exit) -> String {
    if exit.oom_killed {
        "was killed for reaching its memory limit".to_owned()
    } else {
        exit.to_string()
    }
}
