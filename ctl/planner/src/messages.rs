//! Messages for users.

use tucano_api::units::{Bytes, Span};

/// Workers that a message names; further ones are counted.
const MAX_NAMED: usize = 5;

/// A number with its noun: `1 process`, `3 processes`.
pub(crate) fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A size without a trailing zero: `256 MiB`, `1.5 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    Bytes(count).to_string().replace(".0 ", " ")
}

/// What happens to the processes of a lost worker.
pub(crate) fn lost_processes(processes: usize) -> String {
    match processes {
        0 => "nothing ran on it".to_owned(),
        1 => "its process is placed again on another worker".to_owned(),
        many => format!("its {many} processes are placed again on other workers"),
    }
}

pub(crate) fn no_restart_command() -> String {
    "no restart command is configured for it".to_owned()
}

pub(crate) fn no_report_after_restart(grace: Span) -> String {
    format!("its restart command succeeded, but no report came within {grace}")
}

/// The first items, and how many more there are.
pub(crate) fn some_of(mut items: Vec<String>) -> String {
    let more = items.len().saturating_sub(MAX_NAMED);
    items.truncate(MAX_NAMED);
    let named = items.join(", ");
    if more == 0 {
        named
    } else {
        format!("{named} and {more} more")
    }
}
