//! Medians and their ratios.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What one of something took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Seconds.
    pub(crate) wall: f64,
    /// Seconds of this program's CPU time, in user space and in the kernel.
    pub(crate) cpu: f64,
}

/// Measures work, for each of so many.
pub(crate) fn cost(
    count: usize,
    clock: ClockId,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Cost> {
    let cpu = || Duration::try_from(clock_gettime(clock));
    let (begin, before) = (std::time::Instant::now(), cpu()?);
    work()?;
    let (wall, cpu) = (begin.elapsed(), cpu()?.saturating_sub(before));
    Ok(Cost {
        wall: wall.as_secs_f64() / count as f64,
        cpu: cpu.as_secs_f64() / count as f64,
    })
}

/// The median of each.
pub(crate) fn median(costs: &[Cost]) -> Cost {
    let middle = |of: fn(&Cost) -> f64| {
        let mut all: Vec<f64> = costs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Cost {
        wall: middle(|it| it.wall),
        cpu: middle(|it| it.cpu),
    }
}

/// Prints medians in microseconds, and their ratios to the first.
pub(crate) fn print(title: &str, rows: &[(String, Vec<Cost>)]) {
    println!(
        "\n{title:<28} {:>9} {:>9} {:>9} {:>9}",
        "wall us", "cpu us", "wall", "cpu"
    );
    let medians: Vec<Cost> = rows.iter().map(|(_, costs)| median(costs)).collect();
    for ((name, _), cost) in rows.iter().zip(&medians) {
        println!(
            "{name:<28} {:>9.1} {:>9.1} {:>9.2} {:>9.2}",
            cost.wall * 1e6,
            cost.cpu * 1e6,
            cost.wall / medians[0].wall,
            cost.cpu / medians[0].cpu
        );
    }
}
