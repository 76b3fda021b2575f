//! The keys of things that end: jobs, and the hooks of a rollout.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Placement, ServiceConfig};
use crate::{
    schedule::{self, Schedule},
    settings::Problem,
    units::Span,
};

/// Most retries of a run.
pub const MAX_RETRIES: u32 = 100;
/// Most completions of a run, and most of its processes at once.
pub const MAX_COMPLETIONS: u32 = 1000;
/// Longest time that a run may take.
pub const MAX_DEADLINE: Span = Span::secs(30 * 86_400);
/// Longest lateness of a tick that is still run.
pub const MAX_CATCH_UP: Span = Span::secs(7 * 86_400);
/// A tick that is no later than this is run whatever `catch_up` says.
pub const ON_TIME: Span = Span::secs(60);
/// How late a tick may be, unless `catch_up` says otherwise.
pub const DEFAULT_CATCH_UP: Span = Span::secs(3600);
/// How long a hook may take, unless its `timeout` says otherwise.
pub const DEFAULT_HOOK_TIMEOUT: Span = Span::secs(300);
/// Most words of a command, and most bytes of all of them.
const MAX_WORDS: usize = 4096;
const MAX_COMMAND_BYTES: usize = 128 << 10;

/// Whether the processes of a configuration are kept alive, or run to completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Its processes are kept alive.
    #[default]
    Service,
    /// Its processes run to completion.
    Job,
}

impl Kind {
    /// Whether it is the default.
    pub fn is_service(&self) -> bool {
        *self == Self::Service
    }
}

/// What happens at a tick while an earlier run of the job has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The tick is left out.
    #[default]
    Skip,
    /// The new run waits. At most one waits: a further tick is left out.
    Queue,
    /// The earlier run is stopped. The new one begins when nothing of it is left.
    Replace,
}

/// A command that runs once per revision, in a process of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Arguments in place of the image's `Cmd`; its `Entrypoint` stays.
    pub args: Vec<String>,
    /// How long it may take.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

fn default_timeout() -> Span {
    DEFAULT_HOOK_TIMEOUT
}

impl ServiceConfig {
    /// Whether its processes run to completion.
    pub fn is_job(&self) -> bool {
        self.kind == Kind::Job
    }

    /// How often a run's processes may fail before the run does.
    pub fn run_retries(&self) -> u32 {
        self.retries.unwrap_or(0)
    }

    /// How many processes of a run have to succeed.
    pub fn run_completions(&self) -> u32 {
        self.completions.unwrap_or(1)
    }

    /// How many processes of a run there are at once, at most.
    pub fn run_parallelism(&self) -> u32 {
        self.parallelism.unwrap_or(1)
    }

    /// How late a tick may be and is still run.
    pub fn run_catch_up(&self) -> Span {
        self.catch_up.unwrap_or(DEFAULT_CATCH_UP).max(ON_TIME)
    }

    /// The schedule, where the job has one that can be read.
    pub fn run_schedule(&self) -> Option<Schedule> {
        let zone = self.timezone.as_deref().unwrap_or(schedule::UTC);
        Schedule::parse(self.schedule.as_deref()?, zone).ok()
    }

    /// The configuration of a process that runs to completion in this one's image, environment and secrets: a job's own, that of a
    /// hook, or one with another command. It has no volumes, since those belong to slots, and no routes.
    #[must_use]
    pub fn for_run(&self, command: Option<&[String]>) -> Self {
        Self {
            kind: Kind::Job,
            concurrency: 0,
            args: command
                .map(<[String]>::to_vec)
                .or_else(|| self.args.clone()),
            port: None,
            ports: super::Ports::new(),
            hosts: Vec::new(),
            path_prefix: None,
            volume: Vec::new(),
            // It would wait for those that the service has.
            devices: match self.is_job() {
                true => self.devices.clone(),
                false => self
                    .devices
                    .iter()
                    .filter(|it| it.kind().is_none())
                    .cloned()
                    .collect(),
            },
            health: super::Health::default(),
            drain: None,
            placement: Placement {
                everywhere: false,
                ..self.placement.clone()
            },
            ..self.without_runs()
        }
    }

    /// Without the keys that concern the controller alone.
    pub(super) fn without_runs(&self) -> Self {
        Self {
            retries: None,
            deadline: None,
            parallelism: None,
            completions: None,
            schedule: None,
            timezone: None,
            overlap: None,
            catch_up: None,
            before: None,
            after: None,
            ..self.clone()
        }
    }
}

/// What holds for every configuration that is stored anywhere.
pub(super) fn stored_problems(config: &ServiceConfig) -> Vec<Problem> {
    match config.kind {
        Kind::Service => only_of_jobs(config),
        Kind::Job => not_of_jobs(config),
    }
}

/// What is checked when a configuration is deployed.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = range_problems(config);
    problems.extend(schedule_problems(config));
    for (key, hook) in [("before", &config.before), ("after", &config.after)] {
        problems.extend(hook.iter().flat_map(|hook| hook_problems(key, hook)));
    }
    problems
}

fn only_of_jobs(config: &ServiceConfig) -> Vec<Problem> {
    let given = [
        ("retries", config.retries.is_some()),
        ("deadline", config.deadline.is_some()),
        ("parallelism", config.parallelism.is_some()),
        ("completions", config.completions.is_some()),
        ("schedule", config.schedule.is_some()),
        ("timezone", config.timezone.is_some()),
        ("overlap", config.overlap.is_some()),
        ("catch_up", config.catch_up.is_some()),
    ];
    let given = given.into_iter().filter(|(_, given)| *given);
    given
        .map(|(key, _)| {
            let message = "only a job has it: add `kind = \"job\"`, or leave it out";
            Problem::new(key, message).depending_on("kind")
        })
        .collect()
}

fn not_of_jobs(config: &ServiceConfig) -> Vec<Problem> {
    let routed = "a job is never routed: leave it out";
    let given = [
        (
            "concurrency",
            config.concurrency > 0,
            "a job has no processes that are kept alive: `parallelism` and `completions` say how many run",
        ),
        ("port", config.port.is_some(), routed),
        ("ports", !config.ports.is_empty(), routed),
        ("hosts", !config.hosts.is_empty(), routed),
        ("path_prefix", config.path_prefix.is_some(), routed),
        ("drain", config.drain.is_some(), routed),
        (
            "placement.everywhere",
            config.placement.everywhere,
            "nothing of a job is kept alive: leave it out",
        ),
        (
            "volume",
            !config.volume.is_empty(),
            "a volume belongs to a slot of a service, and a job has no slots: leave it out",
        ),
        (
            "before",
            config.before.is_some(),
            "only a service has a rollout: leave it out",
        ),
        (
            "after",
            config.after.is_some(),
            "only a service has a rollout: leave it out",
        ),
    ];
    let given = given.into_iter().filter(|(_, given, _)| *given);
    given
        .map(|(key, _, message)| Problem::new(key, message).depending_on("kind"))
        .collect()
}

fn range_problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    let numbers = [
        ("retries", config.retries, 0, MAX_RETRIES),
        ("parallelism", config.parallelism, 1, MAX_COMPLETIONS),
        ("completions", config.completions, 1, MAX_COMPLETIONS),
    ];
    for (key, number, least, most) in numbers {
        if let Some(number) = number.filter(|number| !(least..=most).contains(number)) {
            let message = format!("{number} is out of range: write {least} to {most}");
            problems.push(Problem::new(key, message));
        }
    }
    if let Some(span) = config
        .deadline
        .filter(|span| !(Span::secs(1)..=MAX_DEADLINE).contains(span))
    {
        let message = format!("{span} is out of range: write 1s to {MAX_DEADLINE}");
        problems.push(Problem::new("deadline", message));
    }
    if config.catch_up.is_some_and(|span| span > MAX_CATCH_UP) {
        let message = format!("write at most {MAX_CATCH_UP}");
        problems.push(Problem::new("catch_up", message));
    }
    problems
}

fn schedule_problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    let zone = config.timezone.as_deref().unwrap_or(schedule::UTC);
    let is_known = schedule::is_time_zone(zone);
    if !is_known {
        let message = format!(
            "{zone:?} is not a time zone: write a name of the IANA database, such as \"America/Sao_Paulo\" or \"UTC\""
        );
        problems.push(Problem::new("timezone", message));
    }
    let Some(text) = &config.schedule else {
        let unused = [
            ("timezone", config.timezone.is_some() && is_known),
            ("overlap", config.overlap.is_some()),
            ("catch_up", config.catch_up.is_some()),
        ];
        let unused = unused.into_iter().filter(|(_, given)| *given);
        problems.extend(unused.map(|(key, _)| {
            let message = "has no effect without `schedule`: a job without one runs when `tucano run` says so";
            Problem::new(key, message).depending_on("schedule")
        }));
        return problems;
    };
    let zone = if is_known { zone } else { schedule::UTC };
    if let Err(error) = Schedule::parse(text, zone) {
        problems.push(Problem::new("schedule", error.to_string()));
    }
    problems
}

fn hook_problems(key: &str, hook: &Hook) -> Vec<Problem> {
    let mut problems = command_problem(&hook.args)
        .map(|message| Problem::new(format!("{key}.args"), message))
        .into_iter()
        .collect::<Vec<_>>();
    if !(Span::secs(1)..=MAX_DEADLINE).contains(&hook.timeout) {
        let message = format!(
            "{} is out of range: write 1s to {MAX_DEADLINE}",
            hook.timeout
        );
        problems.push(Problem::new(format!("{key}.timeout"), message));
    }
    problems
}

/// Why these are no arguments of a run, as a message for the user.
pub fn command_problem(command: &[String]) -> Option<String> {
    let bytes: usize = command.iter().map(String::len).sum();
    if command.is_empty() {
        return Some("write at least one argument".to_owned());
    }
    if command.len() > MAX_WORDS || bytes > MAX_COMMAND_BYTES {
        return Some(format!(
            "a command has at most {MAX_WORDS} words and {MAX_COMMAND_BYTES} bytes"
        ));
    }
    command
        .iter()
        .any(|word| word.contains('\0'))
        .then(|| "an argument cannot contain a NUL byte".to_owned())
}

#[cfg(test)]
mod tests;
