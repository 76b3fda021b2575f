//! Messages for users.

use tucano_api::units::{Bytes, Span};

use crate::state::Node;

/// Workers that a message names; further ones are counted.
const MOST_NAMED: usize = 5;

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

/// Why no worker takes a process that needs `memory` bytes.
pub(crate) fn no_place(nodes: &[Node], memory: u64) -> String {
    let alive: Vec<&Node> = nodes.iter().filter(|node| node.is_alive()).collect();
    if nodes.is_empty() {
        return "the topology has no worker".to_owned();
    }
    if alive.is_empty() {
        return "no worker is alive".to_owned();
    }
    let usable = alive.iter().filter(|node| node.is_usable());
    if usable.clone().next().is_none() {
        return "every worker that is alive is on hold: `tucano adopt` takes over what runs there"
            .to_owned();
    }
    let each = usable.map(|node| {
        let (free, all) = (bytes(node.free()), bytes(node.reservable()));
        format!("{}: {free} free of {all}", node.record.name)
    });
    format!(
        "no worker has {} of memory left to reserve ({})",
        bytes(memory),
        some_of(each.collect())
    )
}

/// Why nothing is placed right after the controller's start.
pub(crate) fn still_awaited(names: impl Iterator<Item = String>) -> String {
    let names = some_of(names.collect());
    format!("the controller has just started and waits for reports of {names}")
}

/// Why a process is not placed although there is a worker for it.
pub(crate) fn stopping() -> String {
    "waits for memory that stopping processes still have".to_owned()
}

/// Why the processes of a new revision are not all placed at once.
pub(crate) fn rolling(at_once: usize) -> String {
    let at_once = plural(at_once, "process is", "processes are");
    format!("waits for its turn: at most {at_once} replaced at once")
}

/// The first items, and how many more there are.
pub(crate) fn some_of(mut items: Vec<String>) -> String {
    let more = items.len().saturating_sub(MOST_NAMED);
    items.truncate(MOST_NAMED);
    let named = items.join(", ");
    if more == 0 {
        named
    } else {
        format!("{named} and {more} more")
    }
}
