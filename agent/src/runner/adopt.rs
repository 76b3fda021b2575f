//! What an earlier agent left on the node: what runs is taken over, what ended is noted, the rest is cleared away.

use std::{path::Path, time::Duration};

use tucano_api::{agent::Exit, ids::ProcessId};
use tucano_oci_runtime::supervisor::{self, Status};

use super::{
    execute::{self, destroy_cgroup, exit_of},
    lifecycle::{Health, Phase, restart_delay},
    network::Network,
    process::Process,
    state::{DataDir, ProcessDir, Record},
};
use crate::files::remove_if_there;

/// Looks at every process directory. Blocking. `now` is time since the agent's start.
pub fn adopt(
    data: &DataDir,
    network: &Network,
    now: Duration,
) -> Result<Vec<Process>, super::state::Error> {
    let mut adopted = Vec::new();
    for entry in data.processes()? {
        match entry {
            Ok(id) => adopted.extend(adopt_one(data.process(&id), &id, network, now)),
            Err(stray) => clear_away(&stray, &stray.join("home")),
        }
    }
    Ok(adopted)
}

fn adopt_one(
    directory: ProcessDir,
    id: &ProcessId,
    network: &Network,
    now: Duration,
) -> Option<Process> {
    let record = match directory.record() {
        Ok(Some(record)) if record.process.id == *id => record,
        Ok(_) => {
            clear_away(directory.path(), &directory.home());
            return None;
        }
        Err(error) => {
            tracing::warn!(%id, %error, "removing a process of which nothing is known");
            clear_away(directory.path(), &directory.home());
            return None;
        }
    };
    match supervisor::find(&directory.home()) {
        Ok(found) => Some(take_over(record, found, &directory, network, now)),
        Err(error) => {
            tracing::warn!(%id, %error, "cannot tell what became of the process; starting it again");
            let lost = Status::Lost;
            Some(take_over(record, lost, &directory, network, now))
        }
    }
}

/// The process as it stands now.
fn take_over(
    mut record: Record,
    found: Status,
    directory: &ProcessDir,
    network: &Network,
    now: Duration,
) -> Process {
    let id = &record.process.id;
    let port = matches!(found, Status::Running(_)).then_some(record.process.config.port);
    let reachable = record.lease.is_some_and(|lease| network.adopt(lease, port));
    match found {
        Status::Running(running) if reachable => {
            tracing::info!(%id, pid = running.pid, "adopted");
            let health = if record.healthy {
                Health::Healthy
            } else {
                Health::Starting
            };
            let phase = Phase::Running { health, since: now };
            Process::adopted(record, phase, Some(running))
        }
        Status::NeverStarted => {
            if !reachable {
                record.lease = None;
            }
            Process::adopted(record, Phase::New, None)
        }
        found => {
            if !reachable {
                tracing::warn!(%id, "its address is not usable any more; starting it again");
                record.lease = None;
            }
            if let Err(error) = destroy_cgroup(&directory.home()) {
                tracing::warn!(%id, %error, "cannot end what is left of the process");
            }
            note_exit(&mut record, exit_of(found));
            let restart_at = now + restart_delay(record.crashes);
            let mut process = Process::adopted(record, Phase::Ended { restart_at }, None);
            process.reason = process.last_exit.map(|exit| exit.to_string());
            process
        }
    }
}

/// Counts an end, unless the earlier agent had already counted it.
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

/// Removes a directory that no process belongs to, and ends what may still run in it.
fn clear_away(directory: &Path, home: &Path) {
    let ended: Result<(), execute::Error> = destroy_cgroup(home);
    if let Err(error) = ended {
        tracing::warn!(path = %directory.display(), %error, "cannot end what is left of a process");
    }
    if let Err(error) = remove_if_there(directory) {
        tracing::warn!(path = %directory.display(), %error, "cannot remove what is left of a process");
    }
}

#[cfg(test)]
mod tests {
    use tucano_api::{
        agent::DesiredProcess,
        ids::{Digest, Revision},
        settings::parse,
        units::Timestamp,
    };

    use super::*;

    fn record() -> Record {
        Record::new(DesiredProcess {
            id: "a-1".parse().unwrap(),
            revision: Revision(1),
            image: Digest::sha256(&"0".repeat(64)).unwrap(),
            config: parse("a", "name = \"a\"\nconcurrency = 1\nport = 80").unwrap(),
        })
    }

    fn exit(code: Option<i32>, at: u64) -> Exit {
        Exit {
            code,
            signal: None,
            oom_killed: false,
            disk_exceeded: false,
            at: Timestamp(at),
        }
    }

    #[test]
    fn an_end_that_nobody_saw_is_counted_and_its_code_kept() {
        let mut record = Record {
            started_at: Some(Timestamp(10)),
            ..record()
        };
        note_exit(&mut record, exit(Some(3), 20));
        assert_eq!(
            (record.crashes, record.last_exit),
            (1, Some(exit(Some(3), 20)))
        );
    }

    #[test]
    fn an_end_that_was_counted_is_not_counted_again() {
        let mut record = Record {
            started_at: Some(Timestamp(10)),
            crashes: 4,
            last_exit: Some(exit(Some(3), 20)),
            ..record()
        };
        note_exit(&mut record, exit(Some(3), 20));
        // Lost tells neither code nor time: the one that is known since the last start is it.
        note_exit(&mut record, exit(None, 99));
        assert_eq!(
            (record.crashes, record.last_exit),
            (4, Some(exit(Some(3), 20)))
        );
        record.started_at = Some(Timestamp(30));
        note_exit(&mut record, exit(None, 99));
        assert_eq!(
            (record.crashes, record.last_exit),
            (5, Some(exit(None, 99)))
        );
    }

    #[test]
    fn a_directory_that_belongs_to_no_process_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let stray = root.path().join("stray");
        std::fs::create_dir_all(stray.join("home/upper")).unwrap();
        clear_away(&stray, &stray.join("home"));
        assert!(!stray.exists());
    }
}
