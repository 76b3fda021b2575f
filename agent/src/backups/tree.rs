//! The files of a volume, in two passes where a process has it: the first while it runs, the second, of the differences, while it
//! is frozen.

use std::{num::NonZeroU32, path::Path, sync::atomic::Ordering};

use tucano_api::{ids::ProcessId, units::Timestamp, volumes::Consistency};
use tucano_backup::{BackedUp, Backup, Operation, Outcome, Parent, Source};

use super::{
    Job, Stored,
    engine::{Events, Input, internal},
};
use crate::{
    clock::timestamp,
    runner::{Presence, freezer::Thawed},
    volumes::Held,
};

/// How often a backup is begun again because its process was started or stopped meanwhile.
const ATTEMPTS: u32 = 5;
/// Time between two looks at a process that is being started.
const LAUNCH_POLL: std::time::Duration = std::time::Duration::from_millis(50);

/// Stores the files of the job's volume.
///
/// # Errors
/// A message for the user.
pub(super) async fn store(job: &Job, held: &Held) -> Result<Stored, String> {
    for _ in 0..ATTEMPTS {
        job.progress.store(0, Ordering::Relaxed);
        let count = held.count();
        let stored = match user(job, held).await {
            None => unused(job, held, count).await?,
            Some(process) => frozen(job, held, &process).await?,
        };
        if let Some(stored) = stored {
            return Ok(stored);
        }
        tracing::info!(volume = %job.order.volume.id, "a process was started or stopped during its backup, which begins again");
    }
    Err("its process was started or stopped each time while the files were read".to_owned())
}

/// The process whose container has the volume.
async fn user(job: &Job, held: &Held) -> Option<ProcessId> {
    loop {
        let process = held.holder()?;
        match job.executor.containers.presence(&process) {
            Presence::Absent => return None,
            Presence::Running => return Some(process),
            Presence::Launching => tokio::time::sleep(LAUNCH_POLL).await,
        }
    }
}

/// One pass, which counts if no process was started with the volume meanwhile.
async fn unused(job: &Job, held: &Held, count: u64) -> Result<Option<Stored>, String> {
    let at = timestamp();
    let (mut input, mut events) = begin(job, request(job, held.data(), at)).await?;
    job.explained(events.ready().await)?;
    if held.count() != count {
        return Ok(None);
    }
    let result = commit(job, &mut input, &mut events).await?;
    Ok(Some(Stored::new(result, at, Consistency::Unused)))
}

/// Two passes. None if the process has ended, or is being stopped.
async fn frozen(job: &Job, held: &Held, process: &ProcessId) -> Result<Option<Stored>, String> {
    let draft = Backup {
        draft: true,
        ..request(job, held.data(), timestamp())
    };
    let (mut input, mut events) = begin(job, draft).await?;
    job.explained(events.ready().await)?;
    let draft = commit(job, &mut input, &mut events).await?;
    drop((input, events));

    let limit = job.order.freeze_at_most;
    let executor = &job.executor;
    let frozen = match executor.freeze(process, limit.0).await {
        Ok(frozen) => frozen,
        Err(_) if executor.containers.presence(process) != Presence::Running => return Ok(None),
        Err(reason) => return Err(format!("{reason} (freeze_at_most is {limit})")),
    };
    let at = timestamp();
    let differences = Backup {
        parent: Parent::Snapshot(draft.snapshot.clone()),
        forget_parent: true,
        ..request(job, held.data(), at)
    };
    let passed = async {
        let (input, mut events) = begin(job, differences).await?;
        job.explained(events.ready().await)?;
        Ok::<_, String>((input, events))
    };
    let passed = tokio::select! {
        biased;
        reason = frozen.thawed() => Err(reason),
        passed = passed => Ok(passed),
    };
    let (reason, passed) = match passed {
        Err(reason) => (reason, None),
        // All of it is stored: the process goes on before the snapshot is saved.
        Ok(passed) => {
            let passed = passed?;
            let thawed = tokio::task::spawn_blocking(move || frozen.thaw()).await;
            (thawed.unwrap_or(Thawed::Stopped), Some(passed))
        }
    };
    match (reason, passed) {
        (Thawed::Done, Some((mut input, mut events))) => {
            let mut result = commit(job, &mut input, &mut events).await?;
            result.added = result.added.saturating_add(draft.added);
            Ok(Some(Stored::new(result, at, Consistency::Frozen)))
        }
        (Thawed::Over, _) => Err(format!(
            "the differences could not be stored within freeze_at_most ({limit}): make that longer, or configure `dump`, which \
             needs no freeze"
        )),
        _ => Ok(None),
    }
}

fn request(job: &Job, data: &Path, at: Timestamp) -> Backup {
    let path = data.to_owned();
    job.backup(Source::Tree { path }, at)
}

async fn begin(job: &Job, backup: Backup) -> Result<(Input, Events), String> {
    let operation = Operation::Backup(backup);
    let (input, events, _) = job.explained(job.start(operation).await)?;
    Ok((input, events))
}

/// Has the snapshot saved.
pub(super) async fn commit(
    job: &Job,
    input: &mut Input,
    events: &mut Events,
) -> Result<BackedUp, String> {
    // A program that has ended says why.
    input.commit().await.ok();
    job.explained(stored(events).await)
}

/// The snapshot.
pub(super) async fn stored(events: &mut Events) -> Result<BackedUp, tucano_backup::Failure> {
    match events.result().await? {
        Outcome::BackedUp(result) => Ok(result),
        other => Err(internal(format!(
            "tucano_backup has another result: {other:?}"
        ))),
    }
}

/// What `forget` keeps.
pub(super) fn kept(keep: u32) -> NonZeroU32 {
    NonZeroU32::new(keep).unwrap_or(NonZeroU32::MIN)
}
