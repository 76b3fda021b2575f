//! A volume that gets the files of a backup. What an earlier attempt has written is removed first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::interval;
use tucano_api::{
    units::Bytes,
    volumes::{Repository, VolumeFill},
};

use super::{Fills, Progress, copy::Failure};
use crate::{backups::restore_into, runner::execute::Executor, volumes::Volumes};

/// Time between two updates of the progress.
const INTERVAL: Duration = Duration::from_secs(1);

/// Restores a backup into the volume of a fill, until that is whole.
pub(super) async fn restore(
    fills: &Fills,
    executor: &Executor,
    fill: &VolumeFill,
    repository: &Repository,
    snapshot: &str,
    progress: &Arc<Progress>,
) -> Result<(), Failure> {
    let mount = |volumes: &Volumes, fill: &VolumeFill| volumes.mount_empty_fill(&fill.volume);
    let directory = fills.blocking(fill, mount).await?;
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
    let set_whole = |volumes: &Volumes, fill: &VolumeFill| volumes.set_whole(&fill.volume);
    fills.blocking(fill, set_whole).await
}
