//! How one process lives on this node. Pure: no clock, no IO; `now` is time since the agent's start.
//!
//! ```text
//!            pull          pulled         start           started
//!   New ───────────▶ Pulling ───▶ Pulled ───────▶ Launching ────▶ Running ──▶ health: Starting
//!    ▲                  │                            │             │  ▲              │  ▲
//!    │ (restart is due) │ failed              failed │    ended    │  │ probed       ▼  │
//!    └────────────── Ended ◀─────────────────────────┴─────────────┤  └──── Healthy ⇄ Unhealthy
//!                       │  ▲                                       │
//!                       │  │ ended                      terminate  │ (not wanted, or not healthy for too long)
//!     (not wanted)      │  └───────────────────────── Stopping ◀───┘
//!                       ▼                                 │ ▲
//!   gone ◀───────── Removing ──▶ NotRemoved               └─┘ kill (after stop_timeout)
//!        removed        ▲ failed     │
//!                       └────────────┘ (after a delay)
//! ```

use std::time::Duration;

use tucano_api::agent::{DesiredProcess, ProcessState};

/// Delay before the first restart; it doubles with each end that follows.
pub const FIRST_RESTART_DELAY: Duration = Duration::from_millis(500);
/// Longest delay before a restart.
pub const LONGEST_RESTART_DELAY: Duration = Duration::from_secs(30);
/// A process that was healthy for this long has not crashed in a row with what came before.
pub const HEALTHY_RESETS_AFTER: Duration = Duration::from_secs(30);
/// Delay before something that could not be killed or removed is tried again.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What exists of one process.
#[derive(Debug, Clone, PartialEq)]
pub struct Actual {
    /// What it was made from.
    pub process: DesiredProcess,
    /// Where it stands.
    pub phase: Phase,
    /// How often in a row it ended or could not be started.
    pub crashes: u32,
}

/// Where a process stands. Steps that are being carried out have phases of their own, so that none is taken twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has been done, or everything is to be done again.
    New,
    /// Its image is being fetched and unpacked.
    Pulling,
    /// Its image is there.
    Pulled,
    /// Its container is being started.
    Launching,
    /// It runs.
    Running {
        /// What its probe says.
        health: Health,
        /// Since when it has said so.
        since: Duration,
    },
    /// It was told to end.
    Stopping {
        /// When it will be killed.
        kill_at: Duration,
        /// Whether it is being killed.
        killing: bool,
    },
    /// It ended, or could not be started.
    Ended {
        /// When it may be started again.
        restart_at: Duration,
    },
    /// Everything of it is being removed.
    Removing,
    /// That did not succeed.
    NotRemoved {
        /// When it will be tried again.
        retry_at: Duration,
    },
}

/// What a running process's probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It has not answered yet.
    Starting,
    /// It answers.
    Healthy,
    /// It no longer answers.
    Unhealthy,
}

/// One thing to do for one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Fetch and unpack its image.
    Pull,
    /// Start its container.
    Start,
    /// Ask it to end.
    Terminate,
    /// Kill it.
    Kill,
    /// Remove everything of it.
    Remove,
}

/// Something that happened to one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its image is there.
    Pulled,
    /// Its container runs.
    Started,
    /// Its image could not be fetched, or its container not started.
    Failed,
    /// It ended.
    Ended,
    /// Its probe says something else than before.
    Probed(Health),
    /// It could not be killed.
    NotKilled,
    /// Not everything of it could be removed.
    NotRemoved,
}

impl AsRef<Self> for Actual {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Actual {
    /// A process of which nothing exists yet.
    pub fn new(process: DesiredProcess) -> Self {
        Self {
            process,
            phase: Phase::New,
            crashes: 0,
        }
    }

    /// Notes that a step is being carried out from now on.
    pub fn begin(&mut self, step: Step, now: Duration) {
        self.phase = match (step, self.phase) {
            (Step::Pull, _) => Phase::Pulling,
            (Step::Start, _) => Phase::Launching,
            (Step::Terminate, _) => Phase::Stopping {
                kill_at: now + self.process.config.stop_timeout.0,
                killing: false,
            },
            (Step::Kill, Phase::Stopping { kill_at, .. }) => Phase::Stopping {
                kill_at,
                killing: true,
            },
            (Step::Kill, phase) => phase,
            (Step::Remove, _) => Phase::Removing,
        };
    }

    /// Notes what happened. What cannot happen in the present phase (a late word of an earlier attempt) changes nothing.
    pub fn apply(&mut self, change: Change, now: Duration) {
        match (change, self.phase) {
            (Change::Pulled, Phase::Pulling) => self.phase = Phase::Pulled,
            (Change::Started, Phase::Launching) => {
                self.phase = Phase::Running {
                    health: Health::Starting,
                    since: now,
                }
            }
            (Change::Failed, Phase::Pulling | Phase::Launching) => self.end(now),
            (Change::Ended, Phase::Running { .. } | Phase::Stopping { .. }) => self.end(now),
            (Change::Probed(health), Phase::Running { health: before, .. }) if health != before => {
                self.phase = Phase::Running { health, since: now };
            }
            (Change::NotKilled, Phase::Stopping { .. }) => {
                self.phase = Phase::Stopping {
                    kill_at: now + RETRY_DELAY,
                    killing: false,
                }
            }
            (Change::NotRemoved, Phase::Removing) => {
                self.phase = Phase::NotRemoved {
                    retry_at: now + RETRY_DELAY,
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, now: Duration) {
        if self.was_stable(now) {
            self.crashes = 0;
        }
        self.crashes = self.crashes.saturating_add(1);
        self.phase = Phase::Ended {
            restart_at: now + restart_delay(self.crashes),
        };
    }

    fn was_stable(&self, now: Duration) -> bool {
        matches!(self.phase, Phase::Running { health: Health::Healthy, since }
            if now.saturating_sub(since) >= HEALTHY_RESETS_AFTER)
    }

    /// The state to report; `wanted` says whether the desired set still holds it.
    pub fn state(&self, wanted: bool) -> ProcessState {
        match self.phase {
            Phase::Stopping { .. } | Phase::Removing | Phase::NotRemoved { .. } => {
                ProcessState::Stopping
            }
            _ if !wanted => ProcessState::Stopping,
            Phase::New | Phase::Pulling | Phase::Pulled => ProcessState::Pulling,
            Phase::Launching => ProcessState::Starting,
            Phase::Running { health, .. } => match health {
                Health::Starting => ProcessState::Starting,
                Health::Healthy => ProcessState::Healthy,
                Health::Unhealthy => ProcessState::Unhealthy,
            },
            Phase::Ended { .. } => ProcessState::BackOff,
        }
    }
}

/// How long to wait before starting again what has ended `crashes` times in a row.
pub fn restart_delay(crashes: u32) -> Duration {
    let doublings = crashes.saturating_sub(1).min(16);
    (FIRST_RESTART_DELAY * (1 << doublings)).min(LONGEST_RESTART_DELAY)
}
