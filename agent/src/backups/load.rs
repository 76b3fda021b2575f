//! Restored dumps that commands in the containers read, and restored files.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{io::AsyncReadExt, process::ChildStdout};
use tucano_api::{
    agent::VolumeInstance,
    ids::ProcessId,
    volumes::{Repository, VolumeLoad},
};
use tucano_backup::{Failure, Operation, Outcome, Request, Restore, Target};

use super::{
    Backups,
    engine::internal,
    repository,
    session::{self, Said},
};
use crate::runner::execute::Executor;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Loads a stored dump into a volume, once for the volume's life.
pub(super) async fn load(
    executor: Arc<Executor>,
    process: ProcessId,
    volume: VolumeInstance,
    load: VolumeLoad,
) {
    let progress = Arc::new(AtomicU64::new(0));
    let (noted, snapshot) = (Arc::clone(&progress), load.snapshot.clone());
    let (volumes, of) = (Arc::clone(&executor.volumes), volume.clone());
    let begun = tokio::task::spawn_blocking(move || volumes.begin_load(&of, &snapshot, noted));
    match begun.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(id = %volume.id, %error, "cannot note that a load begins");
            return;
        }
        Err(_) => return,
    }
    tracing::info!(id = %volume.id, snapshot = load.snapshot, "loading a backup into a volume");
    let limit = executor.backups.options.timeout;
    let run = run(&executor, &process, &load, &progress);
    let result = tokio::time::timeout(limit.0, run).await;
    let result = result.unwrap_or_else(|_| {
        Err(format!(
            "it took longer than {limit} (backups.timeout in agent.toml)"
        ))
    });
    let name = load.command.first().map_or("load", String::as_str);
    let result = result.map_err(|reason| format!("`load`: {name} {reason}"));
    match &result {
        Ok(()) => tracing::info!(id = %volume.id, "loaded a backup into a volume"),
        Err(error) => tracing::warn!(id = %volume.id, error, "cannot load a backup into a volume"),
    }
    let volumes = Arc::clone(&executor.volumes);
    let ended = tokio::task::spawn_blocking(move || volumes.end_load(&volume, result));
    if let Ok(Err(error)) = ended.await {
        tracing::warn!(%error, "cannot note the end of a load");
    }
}

async fn run(
    executor: &Executor,
    process: &ProcessId,
    load: &VolumeLoad,
    progress: &Arc<AtomicU64>,
) -> Result<(), String> {
    let unread = |reason: String| format!("was not run: {reason}");
    let backups = &executor.backups;
    let request = restore(executor, &load.repository, &load.snapshot, Target::Stream);
    let request = request.await.map_err(unread)?;
    let of_program = Arc::new(AtomicU64::new(0));
    let explain = |failure: &Failure| repository::explain(failure, &load.repository);
    let started = backups.engine.start(&request, &of_program).await;
    let (_input, mut events, mut stdout) = started.map_err(|it| unread(explain(&it)))?;
    let home = executor.data.process(process).home();
    let (mut input, mut output) = session::start(&executor.runtime, &home, &load.command).await?;
    let fed = async {
        let feed = feed(&mut stdout, &mut input, progress);
        let ((), result) = tokio::join!(feed, events.result());
        match result {
            Ok(Outcome::Restored(_)) => {}
            Ok(other) => {
                return Err(format!(
                    "was stopped: tucano_backup has another result: {other:?}"
                ));
            }
            Err(failure) => return Err(format!("was stopped: {}", explain(&failure))),
        }
        // Only now: a command whose input just ends would take a part for the whole.
        input.end().await.ok();
        Ok(())
    };
    let mut fed = std::pin::pin!(fed);
    let mut is_fed = false;
    loop {
        tokio::select! {
            biased;
            result = &mut fed, if !is_fed => {
                result?;
                is_fed = true;
            }
            said = output.next() => match said? {
                Said::Output(_) => {}
                Said::Success if is_fed => return Ok(()),
                Said::Success => return Err("ended before it had read everything".to_owned()),
            }
        }
    }
}

/// Passes the restored bytes to the command. One that has closed its input is not to be fed further; its end says why.
async fn feed(stdout: &mut ChildStdout, input: &mut session::Input, progress: &AtomicU64) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match stdout.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if input.data(&buffer[..length]).await.is_err() {
                    return;
                }
                progress.fetch_add(length as u64, Ordering::Relaxed);
            }
        }
    }
}

/// Restores the files of a backup into an empty directory, such as that of a volume which is mounted. The bytes that are written are
/// counted in `progress`. Dropping the future kills the program; the directory has a part then.
///
/// # Errors
/// A message for the user.
pub async fn restore_into(
    executor: &Executor,
    directory: &Path,
    repository: &Repository,
    snapshot: &str,
    progress: &Arc<AtomicU64>,
) -> Result<(), String> {
    let path = directory.to_owned();
    let request = restore(executor, repository, snapshot, Target::Tree { path }).await?;
    let restored = restored(&executor.backups, &request, progress).await;
    restored.map_err(|failure| repository::explain(&failure, repository))
}

async fn restored(
    backups: &Backups,
    request: &Request,
    progress: &Arc<AtomicU64>,
) -> Result<(), Failure> {
    progress.store(0, Ordering::Relaxed);
    let (_input, mut events, _stdout) = backups.engine.start(request, progress).await?;
    match events.result().await? {
        Outcome::Restored(restored) => {
            progress.store(restored.bytes, Ordering::Relaxed);
            for warning in &restored.warnings {
                tracing::warn!(warning, "a restored volume");
            }
            Ok(())
        }
        other => Err(internal(format!(
            "tucano_backup has another result: {other:?}"
        ))),
    }
}

async fn restore(
    executor: &Executor,
    repository: &Repository,
    snapshot: &str,
    target: Target,
) -> Result<Request, String> {
    let repository = executor.backups.repository(executor, repository).await?;
    Ok(Request {
        repository,
        operation: Operation::Restore(Restore {
            snapshot: snapshot.to_owned(),
            target,
        }),
        limits: Default::default(),
    })
}
