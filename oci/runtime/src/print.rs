//! Output of commands.

use std::{
    fmt::Display,
    io::{self, Write},
    process::Command,
};

use serde_json::{Value, json};
use tucano_oci_runtime::{cgroup::Stats, features, lifecycle::Container};

use tucano_oci_runtime::arguments::ListFormat;

/// Prints a container's state.
pub(crate) fn state(container: &Container) -> Result<(), String> {
    print(&describe(container))
}

/// Prints containers, one per line or element.
pub(crate) fn list(all: &[Container], format: ListFormat, quiet: bool) -> Result<(), String> {
    if quiet {
        return all
            .iter()
            .try_for_each(|container| write_line(container.id()));
    }
    match format {
        ListFormat::Json => {
            let all: Vec<Value> = all.iter().map(describe).collect();
            write_line(Value::from(all))
        }
        ListFormat::Table => {
            write_line(format_args!(
                "{:24} {:10} {:10} {:30} CREATED",
                "ID", "PID", "STATUS", "BUNDLE"
            ))?;
            all.iter().try_for_each(|container| {
                let status = container.status();
                let (pid, bundle) = (container.pid(status), container.bundle().display());
                write_line(format_args!(
                    "{:24} {pid:<10} {status:10} {bundle:<30} {}",
                    container.id(),
                    container.created()
                ))
            })
        }
    }
}

/// Prints the features structure.
pub(crate) fn features() -> Result<(), String> {
    print(&features::describe())
}

/// Prints a container's processes: their pids, or their lines of ps(1).
pub(crate) fn processes(
    pids: &[i32],
    format: ListFormat,
    arguments: &[String],
) -> Result<(), String> {
    if format == ListFormat::Json {
        return write_line(json!(pids));
    }
    let usual = ["-ef".to_owned()];
    let arguments = if arguments.is_empty() {
        &usual
    } else {
        arguments
    };
    let listed = Command::new("ps")
        .args(arguments)
        .output()
        .map_err(|error| format!("ps cannot be run: {error}"))?;
    if !listed.status.success() {
        return Err(String::from_utf8_lossy(&listed.stderr).trim().to_owned());
    }
    let listed = String::from_utf8_lossy(&listed.stdout);
    let lines = select_lines(&listed, pids).ok_or("what ps printed has no PID column")?;
    lines.into_iter().try_for_each(write_line)
}

/// The heading, and the lines whose PID column has one of the pids.
fn select_lines<'a>(listed: &'a str, pids: &[i32]) -> Option<Vec<&'a str>> {
    let mut lines = listed.lines();
    let heading = lines.next()?;
    let column = heading.split_whitespace().position(|name| name == "PID")?;
    let wanted = |line: &&str| {
        line.split_whitespace()
            .nth(column)
            .and_then(|number| number.parse().ok())
            .is_some_and(|pid: i32| pids.contains(&pid))
    };
    Some(
        std::iter::once(heading)
            .chain(lines.filter(wanted))
            .collect(),
    )
}

/// Prints counters in runc's format; times in nanoseconds.
pub(crate) fn stats(id: &str, stats: &Stats) -> Result<(), String> {
    let event = json!({
        "type": "stats",
        "id": id,
        "data": {
            "cpu": {
                "usage": { "total": stats.cpu_usage_us * 1000 },
                "throttling": {
                    "throttledPeriods": stats.throttled_periods,
                    "throttledTime": stats.throttled_us * 1000,
                },
            },
            "memory": {
                "usage": {
                    "usage": stats.memory_current,
                    "max": stats.memory_peak,
                    "limit": stats.memory_limit,
                    "failcnt": stats.oom_kills,
                },
            },
            "pids": { "current": stats.pids_current, "limit": stats.pids_limit },
        },
    });
    write_line(event)
}

/// Prints an OOM event.
pub(crate) fn out_of_memory(id: &str) -> Result<(), String> {
    write_line(json!({ "type": "oom", "id": id }))
}

fn describe(container: &Container) -> Value {
    let status = container.status();
    let mut state = json!({
        "ociVersion": container.version(),
        "id": container.id(),
        "status": status.to_string(),
        "pid": container.pid(status),
        "bundle": container.bundle(),
        "created": container.created(),
    });
    if let Some(annotations) = container.annotations() {
        state["annotations"] = json!(annotations);
    }
    state
}

fn print(value: &Value) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    write_line(text)
}

/// Writes a line to stdout. A closed pipe is an error, not a panic.
fn write_line(line: impl Display) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|error| format!("stdout: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_processes_are_left_out() {
        let listed = "UID  PID PPID CMD\nroot 1 0 init\nroot 12 1 sh 1\nroot 123 1 x\n";
        let expected = ["UID  PID PPID CMD", "root 12 1 sh 1"];
        assert_eq!(select_lines(listed, &[12, 7]).unwrap(), expected);
        assert_eq!(select_lines("nothing", &[1]), None);
    }
}
