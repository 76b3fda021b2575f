//! Starts per second, with one starter per core.

use std::{thread, time::Instant};

use anyhow::Result;

use crate::contender::Contender;

/// Containers per core.
const RUNS_PER_CORE: usize = 25;

/// The rate of each contender.
pub(crate) fn of_all(contenders: &[Contender]) -> Result<Vec<f64>> {
    contenders.iter().map(of).collect()
}

fn of(contender: &Contender) -> Result<f64> {
    let cores = thread::available_parallelism()?.get();
    let begin = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn(move || {
                    (0..RUNS_PER_CORE).try_for_each(|run| {
                        contender.run_once(&format!("rate-{core}-{run}")).map(drop)
                    })
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            let ended = worker.join();
            ended.unwrap_or_else(|_| anyhow::bail!("a worker panicked"))
        })
    })?;
    Ok((cores * RUNS_PER_CORE) as f64 / begin.elapsed().as_secs_f64())
}
