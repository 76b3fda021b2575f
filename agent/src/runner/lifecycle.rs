//! The life of one process on this node. Pure: no clock, no IO; `now` is the time since the agent's start.
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
//!
//! A running process whose limits change stays in its phase: see [`Resize`]. One of a run is never restarted: once its start was begun,
//! it stays ended until it is not wanted.

use std::time::Duration;

use tucano_api::agent::{DesiredProcess, ProcessState};

/// Delay before the first restart; it doubles with each end that follows.
pub const FIRST_RESTART_DELAY: Duration = Duration::from_millis(500);
/// Longest delay before a restart.
pub const LONGEST_RESTART_DELAY: Duration = Duration::from_secs(30);
/// A process that was healthy for this long starts a new count of crashes.
pub const HEALTHY_RESETS_AFTER: Duration = Duration::from_secs(30);
/// Delay before a failed kill or removal is retried.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Delay before a refused change of limits is tried again: each attempt has the kernel reclaim memory.
pub const RESIZE_RETRY_DELAY: Duration = Duration::from_secs(10);

/// The actual state of one process.
#[derive(Debug, Clone, PartialEq)]
pub struct Actual {
    /// The desired process that it was made from, with all later changes that are in force.
    pub process: DesiredProcess,
    /// Its phase.
    pub phase: Phase,
    /// Where a change of its limits stands.
    pub resize: Resize,
    /// Consecutive ends and failed starts.
    pub crashes: u32,
    /// Whether it was ever started: something of its container may be left until it is removed.
    pub was_started: bool,
}

/// A change of the limits of a running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// None is in progress.
    Idle,
    /// They are being written.
    InProgress,
    /// They were refused.
    Refused {
        /// When they are tried again.
        retry_at: Duration,
    },
}

/// The phase of a process. A step in progress has a phase of its own, so that it is not started twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has been done yet.
    New,
    /// Its image is being fetched and unpacked.
    Pulling,
    /// Its image is unpacked.
    Pulled,
    /// Its container is being started.
    Launching,
    /// It runs.
    Running {
        /// The result of its probe.
        health: Health,
        /// Time of the last change of health.
        since: Duration,
    },
    /// It received its stop signal.
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
    /// Its removal failed.
    NotRemoved {
        /// When the removal is retried.
        retry_at: Duration,
    },
}

/// The health of a running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It has not answered a probe yet.
    Starting,
    /// It answers its probe.
    Healthy,
    /// It no longer answers.
    Unhealthy,
}

/// A step of the plan for one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Fetch and unpack its image.
    Pull,
    /// Start its container.
    Start,
    /// Change its limits while it runs.
    Resize,
    /// Send its stop signal.
    Terminate,
    /// Kill it.
    Kill,
    /// Remove everything of it.
    Remove,
}

/// An event in the life of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its image is unpacked.
    Pulled,
    /// Its container runs.
    Started,
    /// Its image could not be fetched, or its container not started.
    Failed,
    /// It ended.
    Ended,
    /// Its health changed.
    Probed(Health),
    /// Its limits are changed.
    Resized,
    /// Its limits cannot be changed.
    NotResized,
    /// It could not be killed.
    NotKilled,
    /// It could not be removed completely.
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
            resize: Resize::Idle,
            crashes: 0,
            was_started: false,
        }
    }

    /// Whether it runs to completion.
    pub fn is_run(&self) -> bool {
        self.process.run.is_some()
    }

    /// Whether it has ended for good.
    pub fn is_over(&self) -> bool {
        self.is_run() && self.was_started && matches!(self.phase, Phase::Ended { .. })
    }

    /// Enters the phase of a step in progress.
    pub fn begin(&mut self, step: Step, now: Duration) {
        self.resize = match step {
            Step::Resize => Resize::InProgress,
            _ => Resize::Idle,
        };
        self.was_started |= step == Step::Start;
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
            (Step::Kill | Step::Resize, phase) => phase,
            (Step::Remove, _) => Phase::Removing,
        };
    }

    /// Applies an event. One that cannot happen in the current phase, such as a late one, changes nothing.
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
            (Change::Resized, Phase::Running { .. }) => self.resize = Resize::Idle,
            (Change::NotResized, Phase::Running { .. }) => {
                self.resize = Resize::Refused {
                    retry_at: now + RESIZE_RETRY_DELAY,
                }
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
        self.resize = Resize::Idle;
        self.phase = Phase::Ended {
            restart_at: now + restart_delay(self.crashes),
        };
    }

    fn was_stable(&self, now: Duration) -> bool {
        matches!(self.phase, Phase::Running { health: Health::Healthy, since }
            if now.saturating_sub(since) >= HEALTHY_RESETS_AFTER)
    }

    /// The state for the report; `wanted` says whether the desired set still has the process.
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
            Phase::Ended { .. } if self.is_over() => ProcessState::Ended,
            Phase::Ended { .. } => ProcessState::BackOff,
        }
    }
}

/// Delay before the restart after `crashes` consecutive ends.
pub fn restart_delay(crashes: u32) -> Duration {
    let doublings = crashes.saturating_sub(1).min(16);
    (FIRST_RESTART_DELAY * (1 << doublings)).min(LONGEST_RESTART_DELAY)
}
