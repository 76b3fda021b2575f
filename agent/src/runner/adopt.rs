//! Takes over the processes of an earlier agent: running ones are adopted, ends are noted, leftovers are removed.

use std::{fs::File, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use tucano_api::{agent::Exit, ids::ProcessId};
use tucano_oci_runtime::supervisor::{self, Status};

use super::{
    execute::{Executor, exit_of, keep_output},
    freezer,
    lifecycle::{Health, Phase, restart_delay},
    machine::last_lines,
    process::Process,
    state::Record,
};
use crate::files::remove_if_exists;

/// Examines every process directory. Blocking. `now` is the time since the agent's start. A damaged record costs its own process
/// a restart, which `notes` say, and never stops the agent.
///
/// # Errors
/// The directory of processes cannot be listed.
pub fn adopt(
    executor: &Executor,
    now: Duration,
    notes: &mut Vec<String>,
) -> Result<Vec<Process>, super::state::Error> {
    let mut adopted = Vec::new();
    for entry in executor.data.processes()? {
        match entry {
            Ok(id) => adopted.extend(adopt_one(executor, &id, now, notes)),
            Err(stray) => remove_stray(&stray),
        }
    }
    let known = adopted.iter().map(|process| process.id().clone());
    executor.secrets.retain_processes(&known.collect());
    Ok(adopted)
}

fn adopt_one(
    executor: &Executor,
    id: &ProcessId,
    now: Duration,
    notes: &mut Vec<String>,
) -> Option<Process> {
    let record = match executor.data.process(id).record() {
        Ok(Some(record)) if record.process.id == *id => record,
        Ok(Some(_)) => {
            note(
                notes,
                format!("process {id}: its record is that of another process: removing it"),
            );
            remove_leftover(executor, id);
            return None;
        }
        Ok(None) => {
            remove_leftover(executor, id);
            return None;
        }
        Err(error) => {
            note(notes, format!("process {id}: removing it: {error}"));
            remove_leftover(executor, id);
            return None;
        }
    };
    thaw(executor, id);
    let status = status(executor, id).unwrap_or_else(|error| {
        note(
            notes,
            format!("process {id}: its state is unknown, starting it again: {error}"),
        );
        Status::Lost
    });
    Some(take_over(executor, record, status, now))
}

fn note(notes: &mut Vec<String>, text: String) {
    tracing::warn!("{text}");
    notes.push(text);
}

/// An agent that was killed may have left the container frozen.
fn thaw(executor: &Executor, id: &ProcessId) {
    let workspace = executor.workspace(id);
    match freezer::recover(workspace.recorded_cgroup(), &workspace.frozen()) {
        Ok(true) => tracing::info!(%id, "thawed what an earlier agent had frozen"),
        Ok(false) => {}
        Err(error) => tracing::error!(%id, %error, "cannot thaw what an earlier agent had frozen"),
    }
}

/// The state of a process's container by the records of its supervisor.
fn status(executor: &Executor, id: &ProcessId) -> Result<Status, String> {
    let workspace = executor.workspace(id);
    let status = supervisor::find(&workspace.home()).map_err(|error| error.to_string())?;
    if matches!(status, Status::Running(_)) && workspace.recorded_cgroup().is_none() {
        return Err("supervisor.json is of another container".to_owned());
    }
    Ok(status)
}

/// The process in the phase that matches the state of its container.
fn take_over(executor: &Executor, mut record: Record, status: Status, now: Duration) -> Process {
    let id = record.process.id.clone();
    claim_volumes(executor, &record, &status);
    let is_running = matches!(status, Status::Running(_));
    let reachable = record.lease.is_some_and(|lease| {
        let config = &record.process.config;
        executor
            .network
            .adopt(lease, &record.ports, config, is_running)
    });
    if reachable && let Some(lease) = record.lease {
        executor.network.note_process(lease, &record.process);
    }
    match status {
        Status::Running(running) if reachable => {
            let pid = running.pid;
            tracing::info!(%id, pid, "adopted");
            if let Some(lease) = record.lease {
                let network = File::open(format!("/proc/{pid}/ns/net"));
                executor
                    .network
                    .keep_namespace(lease, network.map(OwnedFd::from));
            }
            executor.containers.insert(id, Arc::new(running));
            let health = if record.healthy {
                Health::Healthy
            } else {
                Health::Starting
            };
            Process::adopted(record, Phase::Running { health, since: now }).with_pid(pid)
        }
        status => {
            if !reachable && record.lease.take().is_some() {
                tracing::warn!(%id, "starting it again: its address is not available any more");
            }
            // Whatever the records say, nothing of it may run on.
            if let Err(error) = executor.workspace(&id).destroy_cgroup() {
                tracing::warn!(%id, %error, "cannot remove the process's cgroup");
            }
            if matches!(status, Status::NeverStarted) && !record.begun {
                return Process::adopted(record, Phase::New);
            }
            note_exit(&mut record, exit_of(status));
            let restart_at = now + restart_delay(record.crashes);
            let mut process = Process::adopted(record, Phase::Ended { restart_at });
            process.reason = process.last_exit.map(|exit| exit.to_string());
            if process.actual.is_run() {
                process.last_lines = last_lines(&executor.data.process(&id).home());
            }
            process
        }
    }
}

/// Whatever of its container is left has its volumes.
fn claim_volumes(executor: &Executor, record: &Record, status: &Status) {
    let process = &record.process;
    if matches!(status, Status::NeverStarted) {
        return;
    }
    let ids = process.volumes.iter().map(|it| &it.volume.id);
    if let Err(error) = executor.volumes.claims().claim(&process.id, ids) {
        tracing::error!(id = %process.id, %error, "two processes had a volume");
    }
}

/// Counts an exit that the earlier agent has not counted.
fn note_exit(record: &mut Record, exit: Exit) {
    let counted = record.last_exit.is_some_and(|last| {
        last.at == exit.at
            || (exit.code, exit.signal) == (None, None) && record.started_at < Some(last.at)
    });
    if !counted {
        record.crashes = record.crashes.saturating_add(1);
        record.last_exit = Some(exit);
    }
}

/// Removes the directory of a process without a usable record, and kills what may still run in its cgroup.
fn remove_leftover(executor: &Executor, id: &ProcessId) {
    if let Err(error) = executor.workspace(id).destroy_cgroup() {
        tracing::warn!(%id, %error, "cannot kill the remains of a process");
    }
    keep_output(&executor.retained, id, &executor.data.process(id).home());
    if let Err(error) = executor.data.process(id).remove() {
        tracing::warn!(%id, %error, "cannot remove the remains of a process");
    }
}

/// Removes a directory whose name is not a process id. No container runs in it.
fn remove_stray(directory: &Path) {
    if let Err(error) = remove_if_exists(directory) {
        tracing::warn!(path = %directory.display(), %error, "cannot remove a stray directory");
    }
}

#[cfg(test)]
mod tests;
