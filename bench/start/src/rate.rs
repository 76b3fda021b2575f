//! Starts per second, with as many at once as there are cores.

use std::{thread, time::Instant};

use anyhow::Result;

use crate::contender::Contender;

/// Containers of each core.
const TURNS: usize = 25;

/// That of each contender.
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
                    (0..TURNS).try_for_each(|turn| {
                        contender.turn(&format!("rate-{core}-{turn}")).map(drop)
                    })
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            let ended = worker.join();
            ended.unwrap_or_else(|_| anyhow::bail!("a worker panicked"))
        })
    })?;
    Ok((cores * TURNS) as f64 / begin.elapsed().as_secs_f64())
}
