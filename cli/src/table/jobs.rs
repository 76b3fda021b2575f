//! Jobs and runs.

use tucano_api::{
    jobs::{JobView, Outcome, Run},
    units::{Bytes, Timestamp},
};

use super::{Cell, Color, Column, Style, Table, column, short};

const JOBS: [Column; 7] = [
    column("JOB", 0),
    column("SCHEDULE", 1),
    column("NEXT", 2),
    column("LAST", 3),
    column("RUNNING", 4),
    column("LEFT OUT", 5),
    column("RESULT", 0),
];

/// Jobs, when they run next, and what became of their last runs.
pub fn jobs(jobs: &[JobView], style: Style) -> String {
    let mut table = Table::new(&JOBS);
    for job in jobs {
        let dash = || "-".to_owned();
        let schedule = job.schedule.as_ref().map_or_else(dash, |schedule| {
            let zone = job.timezone.as_ref();
            zone.map_or_else(|| schedule.clone(), |zone| format!("{schedule} {zone}"))
        });
        let last = job.last.as_ref();
        let result = match (&job.pending, last) {
            (Some(pending), _) => Cell::colored(format!("waits: {pending}"), Color::Yellow),
            (None, Some(run)) => result(run),
            (None, None) => Cell::new("-"),
        };
        table.push(vec![
            Cell::new(&job.name),
            Cell::new(schedule),
            Cell::new(job.next.map_or_else(dash, |next| until(style, next))),
            Cell::new(style.age(last.and_then(|run| run.ended_at))),
            Cell::new(job.active.len()),
            Cell::new(job.left_out),
            result,
        ]);
    }
    style.render(&table)
}

const RUNS: [Column; 8] = [
    column("RUN", 0),
    column("WHY", 1),
    column("REVISION", 5),
    column("AGE", 2),
    column("TOOK", 3),
    column("PROCESS", 4),
    column("MEMORY", 6),
    column("RESULT", 0),
];

/// Runs, the newest first.
pub fn runs(runs: &[Run], style: Style) -> String {
    let mut table = Table::new(&RUNS);
    for run in runs {
        let dash = || "-".to_owned();
        let took = run.began_at.map(|began_at| {
            let end = run.ended_at.unwrap_or(style.now);
            short(end.since(began_at))
        });
        let process = run
            .attempts
            .last()
            .map(|attempt| attempt.process.to_string());
        let peaks = run
            .attempts
            .iter()
            .filter_map(|attempt| attempt.memory_peak);
        table.push(vec![
            Cell::new(run.number),
            Cell::new(&run.trigger),
            Cell::new(run.revision),
            Cell::new(style.age(Some(run.created_at))),
            Cell::new(took.unwrap_or_else(dash)),
            Cell::new(process.unwrap_or_else(dash)),
            Cell::new(
                peaks
                    .max()
                    .map_or_else(dash, |peak: Bytes| peak.to_string()),
            ),
            result(run),
        ]);
    }
    style.render(&table)
}

/// What became of a run, with the last lines of its output where it has not succeeded.
fn result(run: &Run) -> Cell {
    let mut text = run.describe();
    let has_failed = !matches!(run.outcome, None | Some(Outcome::Succeeded));
    let lines = run.last_end().map(|attempt| attempt.last_lines.as_slice());
    if let Some([.., last]) = lines.filter(|_| has_failed) {
        text += &format!(" | {last}");
    }
    match &run.outcome {
        Some(Outcome::Succeeded) => Cell::colored(text, Color::Green),
        Some(Outcome::Stopped | Outcome::Replaced) => Cell::new(text),
        Some(_) => Cell::colored(text, Color::Red),
        None => Cell::colored(text, Color::Yellow),
    }
}

fn until(style: Style, time: Timestamp) -> String {
    format!("in {}", short(time.since(style.now)))
}
