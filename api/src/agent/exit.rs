//! How processes end.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    signal,
    units::{Bytes, Timestamp},
};

/// A shell's exit code for a command that a signal ended is this and the signal's number.
const SIGNALLED: i32 = 128;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exit {
    /// Exit code, where it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Signal number, where a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the kernel killed it for reaching its memory limit.
    #[serde(default)]
    pub oom_killed: bool,
    /// Whether its agent killed it for having written more than its disk limit.
    #[serde(default)]
    pub disk_exceeded: bool,
    /// Most memory that it ever used, where its agent knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<Bytes>,
    /// When.
    pub at: Timestamp,
}

impl Exit {
    /// An end of which only the time is known.
    pub fn unknown(at: Timestamp) -> Self {
        Self {
            code: None,
            signal: None,
            oom_killed: false,
            disk_exceeded: false,
            memory_peak: None,
            at,
        }
    }

    /// Whether it ended by itself with exit code 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0) && self.signal.is_none() && !self.oom_killed && !self.disk_exceeded
    }

    /// Its exit code as a shell has it.
    pub fn shell_code(&self) -> Option<i32> {
        self.code.or(self.signal.map(|signal| SIGNALLED + signal))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oom_killed {
            return f.write_str("killed: it reached its memory limit");
        }
        if self.disk_exceeded {
            return f.write_str("killed: it wrote more than its disk limit");
        }
        match (self.code, self.signal) {
            (_, Some(signal)) => match signal::name(signal) {
                Some(name) => write!(f, "ended by signal {signal} ({name})"),
                None => write!(f, "ended by signal {signal}"),
            },
            (Some(code), None) => {
                write!(f, "ended with exit code {code}")?;
                match meaning(code) {
                    Some(meaning) => write!(f, " ({meaning})"),
                    None => Ok(()),
                }
            }
            (None, None) => f.write_str("ended; its exit code is not known"),
        }
    }
}

/// What shells and most programs mean by an exit code.
fn meaning(code: i32) -> Option<String> {
    match code {
        126 => Some("a command cannot be executed".to_owned()),
        127 => Some("a command was not found".to_owned()),
        137 => Some("killed by SIGKILL; not for its memory limit".to_owned()),
        _ => signal::name(code - SIGNALLED).map(|name| format!("ended by {name}")),
    }
}
