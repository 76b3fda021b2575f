//! Runs: what runs to completion, and what became of it.
//!
//! ```text
//!   waiting ──▶ running ──▶ succeeded     as many processes as `completions` says ended with exit code 0
//!      │           ├──────▶ failed        more of them failed than `retries` says
//!      │           ├──────▶ deadline      it took longer than `deadline`, or a hook longer than its `timeout`
//!      ├───────────┼──────▶ stopped       somebody stopped it
//!      │           ├──────▶ replaced      a later tick took its place
//!      │           └──────▶ unknown       nobody can tell how it ended
//!      └── (of a tick, while an earlier run has not ended)
//! ```

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::Exit,
    ids::{Epoch, NodeName, ProcessId, Revision, ServiceName},
    reasons::PendingReason,
    units::{Bytes, Span, Timestamp},
};

/// Lines of a process's output that its agent reports at its end, and that are kept with its run.
pub const LAST_LINES: usize = 10;
/// Longest of those lines, in bytes; a longer one is cut.
pub const MAX_LINE_BYTES: usize = 512;
/// Processes of a run that are remembered after their end: the last ones.
pub const MAX_ATTEMPTS: usize = 20;

/// Why a run was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Trigger {
    /// A tick of the job's schedule.
    Schedule {
        /// When the tick was. No two runs of a job have the same.
        tick: Timestamp,
        /// The same as the clocks of the schedule's time zone showed it.
        wall_time: String,
    },
    /// Somebody asked for it.
    Request,
    /// It is what runs before the first process of a revision.
    Before,
    /// It is what runs after the rollout of a revision.
    After,
}

impl Trigger {
    /// Whether it is part of a rollout.
    pub fn is_hook(&self) -> bool {
        matches!(self, Self::Before | Self::After)
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedule { wall_time, .. } => f.write_str(wall_time),
            Self::Request => f.write_str("on request"),
            Self::Before => f.write_str("before the rollout"),
            Self::After => f.write_str("after the rollout"),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// It is complete.
    Succeeded,
    /// More of its processes failed than it may have retries.
    Failed,
    /// It took too long.
    Deadline,
    /// Somebody stopped it.
    Stopped,
    /// A later run took its place.
    Replaced,
    /// Nobody can tell: it may have done all of its work, or nothing. It is not run again.
    Unknown {
        /// Why not, in words for a person.
        why: String,
    },
}

impl Outcome {
    /// One word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Deadline => "deadline",
            Self::Stopped => "stopped",
            Self::Replaced => "replaced",
            Self::Unknown { .. } => "unknown",
        }
    }
}

/// How a process of a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum AttemptEnd {
    /// It ended by itself, or by a signal.
    Exited {
        /// How.
        exit: Exit,
    },
    /// It could not be started.
    NotStarted {
        /// Why not, in words for a person.
        why: String,
    },
    /// It was stopped with its run.
    Stopped,
    /// Nobody can tell. It counts as failed.
    Unknown {
        /// Why not, in words for a person.
        why: String,
    },
}

impl AttemptEnd {
    /// Whether it did its work.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { exit } if exit.is_success())
    }

    /// Its exit code as a shell has it; `None` where there is none.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Exited { exit } => exit.shell_code(),
            _ => None,
        }
    }
}

impl fmt::Display for AttemptEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { exit } => exit.fmt(f),
            Self::NotStarted { why } => write!(f, "could not be started: {why}"),
            Self::Stopped => f.write_str("stopped"),
            Self::Unknown { why } => write!(f, "unknown: {why}"),
        }
    }
}

/// One process of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// The process.
    pub process: ProcessId,
    /// Which of the run's completions it works on, from 1.
    pub task: u32,
    /// Where it runs.
    pub node: NodeName,
    /// When it was placed there.
    pub placed_at: Timestamp,
    /// When its worker reported that it was started. From then on its agent does not start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Whether it is being stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
    /// When its end was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(flatten)]
    pub end: Option<AttemptEnd>,
    /// Most memory that it used, where its agent knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<Bytes>,
    /// The last lines of its output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

impl Attempt {
    /// Whether it may run.
    pub fn is_active(&self) -> bool {
        self.ended_at.is_none()
    }
}

/// A run of a job, or of a command in a service's image: element of `GET /v1/jobs/{name}/runs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Its service.
    pub service: ServiceName,
    /// Its number, from 1. None is used twice.
    pub number: u64,
    /// The revision that its processes are of, from its beginning to its end.
    pub revision: Revision,
    /// Why it was begun.
    pub trigger: Trigger,
    /// The arguments in place of the revision's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// How many of its processes have to succeed.
    pub completions: u32,
    /// How many of them there are at once, at most.
    pub parallelism: u32,
    /// How often they may fail.
    pub retries: u32,
    /// How long it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it began: until then it waits for an earlier run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Timestamp>,
    /// The epoch of the controller's database at that time.
    pub epoch: Epoch,
    /// Which of its completions are done.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub done: BTreeSet<u32>,
    /// How often its processes failed.
    #[serde(default)]
    pub failures: u32,
    /// When the next process is started after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Its processes, oldest first: all that may run, and the last ones of those that have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// What became of it. It may have processes that are being stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(flatten)]
    pub outcome: Option<Outcome>,
    /// When nothing of it was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl Run {
    /// One of a single process, which is not tried again, as it is recorded before it begins.
    pub fn new(
        service: ServiceName,
        revision: Revision,
        trigger: Trigger,
        created_at: Timestamp,
        epoch: Epoch,
    ) -> Self {
        Self {
            service,
            number: 0,
            revision,
            trigger,
            command: None,
            completions: 1,
            parallelism: 1,
            retries: 0,
            deadline: None,
            created_at,
            began_at: None,
            epoch,
            done: BTreeSet::new(),
            failures: 0,
            retry_at: None,
            attempts: Vec::new(),
            outcome: None,
            ended_at: None,
        }
    }

    /// `nightly/3`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.service, self.number)
    }

    /// Whether something of it is left to do, or to stop.
    pub fn is_active(&self) -> bool {
        self.ended_at.is_none()
    }

    /// The processes that may run.
    pub fn active(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.is_active())
    }

    /// Its state in a word.
    pub fn state(&self) -> &'static str {
        match (&self.outcome, self.began_at) {
            (Some(outcome), _) if self.ended_at.is_some() => outcome.name(),
            (Some(_), _) => "stopping",
            (None, Some(_)) => "running",
            (None, None) => "waiting",
        }
    }

    /// The last of its processes that has ended.
    pub fn last_end(&self) -> Option<&Attempt> {
        let mut ended = self.attempts.iter().rev();
        ended.find(|attempt| attempt.end.is_some())
    }

    /// Its exit code for a shell: that of its last process, or 125 where it has none.
    pub fn code(&self) -> i32 {
        if self.outcome == Some(Outcome::Succeeded) {
            return 0;
        }
        let end = self.last_end().and_then(|attempt| attempt.end.as_ref());
        match end.and_then(AttemptEnd::code) {
            Some(code) if code != 0 => code,
            _ => NO_CODE,
        }
    }

    /// What became of it, in words for a person.
    pub fn describe(&self) -> String {
        let end = self.last_end().and_then(|attempt| attempt.end.as_ref());
        let end = end.filter(|end| **end != AttemptEnd::Stopped);
        let last = || end.map_or_else(String::new, |end| format!(": {end}"));
        match &self.outcome {
            None => self.state().to_owned(),
            Some(Outcome::Succeeded) => "succeeded".to_owned(),
            Some(Outcome::Failed) => format!("failed{}", last()),
            Some(Outcome::Deadline) => {
                let deadline = self.deadline.unwrap_or_default();
                format!("stopped: it took longer than {deadline}")
            }
            Some(Outcome::Stopped) => "stopped on request".to_owned(),
            Some(Outcome::Replaced) => "stopped: a later run took its place".to_owned(),
            Some(Outcome::Unknown { why }) => format!("unknown: {why}"),
        }
    }
}

/// The exit code of a run whose processes have none.
pub const NO_CODE: i32 = 125;

/// A job: element of `GET /v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Its name.
    pub name: ServiceName,
    /// Its current revision.
    pub revision: Revision,
    /// Its schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The time zone of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// When the next tick is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// The same as the clocks of the time zone show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_wall_time: Option<String>,
    /// How often ticks were left out: since they were too late, or since an earlier run had not ended.
    #[serde(default)]
    pub left_out: u64,
    /// The runs that have not ended, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<Run>,
    /// The last run that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Run>,
    /// Why a process of an active run is not placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingReason>,
}

/// A run is asked for: body of `POST /v1/jobs/{name}/runs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunRequest {
    /// The arguments in place of the configuration's `args`. A service, which is no job, needs some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Begin none where the job's present revision has a run that has succeeded or has not ended: that one is the answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
}

/// How far a revision is that has a hook before its first process or after its rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookView {
    /// The revision.
    pub revision: Revision,
    /// Whether it is what runs after the rollout.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after: bool,
    /// Its run.
    pub run: Run,
}

/// The run that a desired process belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DesiredRun {
    /// Its number.
    pub number: u64,
    /// Which of its completions the process works on.
    pub task: u32,
    /// Why it was begun.
    pub trigger: Trigger,
    /// Whether the agent may start the process: false once it has reported that it did. An agent that does not know the process then
    /// reports that it does not know how it ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_start: bool,
}
