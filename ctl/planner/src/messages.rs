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

/// What happens to the processes of a lost worker: `waiting` of them have volumes there.
pub(crate) fn lost_processes(processes: usize, waiting: usize) -> String {
    let placed = match processes - waiting {
        0 if waiting == 0 => return "nothing ran on it".to_owned(),
        0 => None,
        1 => Some("its process is placed again on another worker".to_owned()),
        many => Some(format!(
            "its {many} processes are placed again on other workers"
        )),
    };
    let waits = match waiting {
        0 => None,
        1 => Some("1 process waits for its volumes there".to_owned()),
        many => Some(format!("{many} processes wait for their volumes there")),
    };
    let both: Vec<String> = placed.into_iter().chain(waits).collect();
    both.join("; ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_volumes_is_not_placed_elsewhere() {
        assert_eq!(lost_processes(0, 0), "nothing ran on it");
        assert_eq!(
            lost_processes(1, 0),
            "its process is placed again on another worker"
        );
        assert_eq!(
            lost_processes(2, 2),
            "2 processes wait for their volumes there"
        );
        assert_eq!(
            lost_processes(3, 1),
            "its 2 processes are placed again on other workers; 1 process waits for its volumes there"
        );
    }
}
