//! A volume that gets the files of a backup. What an earlier attempt has written is removed first.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::spawn_blocking, time::interval};
use tucano_api::{
    units::Bytes,
    volumes::{Repository, VolumeFill},
};

use super::{Progress, copy::Failure};
use crate::{backups::restore_into, runner::execute::Executor, volumes::Volumes};

/// Time between two updates of the progress.
const INTERVAL: Duration = Duration::from_secs(1);

/// Restores a backup into the volume of a fill, until that is whole.
pub(super) async fn restore(
    executor: &Arc<Executor>,
    fill: &VolumeFill,
    repository: &Repository,
    snapshot: &str,
    progress: &Arc<Progress>,
) -> Result<(), Failure> {
    let directory = blocking(executor, fill, |volumes, fill| {
        let directory = volumes.mount_fill(&fill.volume)?;
        Ok(empty(&directory).map(|()| directory))
    });
    let directory: PathBuf = directory
        .await?
        .map_err(|error| Failure::passing(&format!("cannot empty the volume: {error}")))?;
    let done = Arc::new(AtomicU64::new(0));
    let restored = restore_into(executor, &directory, repository, snapshot, &done);
    tokio::pin!(restored);
    let mut ticks = interval(INTERVAL);
    let restored = loop {
        tokio::select! {
            restored = &mut restored => break restored,
            _ = ticks.tick() => {
                progress.change(|report| report.done = Bytes(done.load(Ordering::Relaxed)));
            }
        }
    };
    // The storage may be reachable again, and a secret corrected.
    restored.map_err(|message| Failure::passing(&message))?;
    progress.change(|report| {
        report.done = Bytes(done.load(Ordering::Relaxed));
        report.total = Some(report.done);
    });
    blocking(executor, fill, |volumes, fill| {
        volumes.set_whole(&fill.volume)
    })
    .await
}

/// Removes all that is in a directory. No link is followed.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.symlink_metadata()?.is_dir() {
            true => fs::remove_dir_all(&path)?,
            false => fs::remove_file(&path)?,
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    executor: &Arc<Executor>,
    fill: &VolumeFill,
    run: impl FnOnce(&Volumes, &VolumeFill) -> Result<T, crate::volumes::Error> + Send + 'static,
) -> Result<T, Failure> {
    let (volumes, fill) = (Arc::clone(&executor.volumes), fill.clone());
    let done = spawn_blocking(move || run(&volumes, &fill)).await;
    done.map_err(|error| Failure::passing(&error))?
        .map_err(Failure::from)
}
