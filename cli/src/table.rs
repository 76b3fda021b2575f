//! Tables for people.

use std::io::IsTerminal;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use tucano_api::{
    agent::{ProcessReport, ProcessState},
    state::{ConfiguredService, NodeCondition, NodeView, ProcessView, ServiceView},
    units::{Span, Timestamp},
};

use crate::watch::{why, word};

/// How a table is to look: in words and spaces only when a program reads it.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Whether colours help.
    pub coloured: bool,
    /// The present, for ages.
    pub now: Timestamp,
}

impl Style {
    /// For standard output, as it is now.
    pub fn of_stdout() -> Self {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let now = jiff::Timestamp::now().as_millisecond();
        Self {
            coloured,
            now: Timestamp(u64::try_from(now).unwrap_or(0)),
        }
    }

    fn state(self, state: ProcessState) -> Cell {
        let color = match state {
            ProcessState::Healthy => Color::Green,
            ProcessState::Unhealthy | ProcessState::BackOff => Color::Red,
            _ => Color::Yellow,
        };
        self.cell(word(state), color)
    }

    fn cell(self, text: &str, color: Color) -> Cell {
        let cell = Cell::new(text);
        if self.coloured { cell.fg(color) } else { cell }
    }

    fn age(self, since: Option<Timestamp>) -> String {
        since.map_or_else(|| "-".to_owned(), |since| short(self.now.since(since)))
    }

    fn table(self, columns: &[&str]) -> Table {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        if self.coloured {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let header = |name: &&str| {
            let cell = Cell::new(name);
            if self.coloured {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        };
        table.set_header(columns.iter().map(header));
        table
    }
}

/// Processes, and what waits for a place.
pub fn processes(services: &[ServiceView], style: Style) -> String {
    let columns = [
        "PROCESS", "NODE", "STATE", "REVISION", "AGE", "RESTARTS", "MEMORY", "PORT", "RELAXED",
        "WHY",
    ];
    let mut table = style.table(&columns);
    for service in services {
        let stopping = &service.active.stopping;
        for process in service.active.processes.iter().chain(stopping) {
            table.add_row(process_row(process, style));
        }
        for pending in &service.active.pending {
            let what = format!("{} ×{}", service.configured.name, pending.count);
            let mut row = vec![
                Cell::new(what),
                Cell::new("-"),
                style.cell("pending", Color::Yellow),
            ];
            row.push(Cell::new(service.configured.revision));
            row.extend(["-"; 5].map(Cell::new));
            row.push(Cell::new(&pending.reason));
            table.add_row(row);
        }
    }
    render(table)
}

fn process_row(process: &ProcessView, style: Style) -> Vec<Cell> {
    let report = &process.report;
    let memory = report
        .metrics
        .as_ref()
        .map(|metrics| format!("{}/{}", metrics.memory_current, metrics.memory_limit));
    let revision = match process.current {
        true => report.revision.to_string(),
        false => format!("{} (old)", report.revision),
    };
    let port = report.node_port.map(|port| port.to_string());
    let why = match (process.draining, report.state) {
        (true, _) => Some("being replaced".to_owned()),
        (false, ProcessState::Stopping) => {
            Some("stopping; keeps its memory until it is gone".to_owned())
        }
        (false, _) => why(process),
    };
    vec![
        Cell::new(&report.id),
        Cell::new(&process.node),
        style.state(report.state),
        Cell::new(revision),
        Cell::new(style.age(report.started_at)),
        Cell::new(report.restarts),
        Cell::new(memory.unwrap_or_else(|| "-".to_owned())),
        Cell::new(port.unwrap_or_else(|| "-".to_owned())),
        Cell::new(relaxed(report)),
        Cell::new(why.unwrap_or_default()),
    ]
}

/// What is less strict than by default, in words without spaces where it has them.
fn relaxed(report: &ProcessReport) -> String {
    let items: Vec<_> = report
        .relaxed
        .iter()
        .map(|item| item.replace(' ', "-"))
        .collect();
    if items.is_empty() {
        return "-".to_owned();
    }
    items.join(" ")
}

/// Configured services.
pub fn services(services: &[ServiceView], style: Style) -> String {
    let mut table = style.table(&[
        "SERVICE", "REVISION", "HEALTHY", "IMAGE", "PORT", "HOSTS", "AGE",
    ]);
    for ServiceView { configured, active } in services {
        let config = &configured.config;
        let all = active.healthy == config.concurrency;
        let healthy = format!("{}/{}", active.healthy, config.concurrency);
        let hosts = if config.hosts.is_empty() {
            "-".to_owned()
        } else {
            config.hosts.join(" ")
        };
        table.add_row([
            Cell::new(&configured.name),
            Cell::new(configured.revision),
            style.cell(&healthy, if all { Color::Green } else { Color::Red }),
            Cell::new(configured.image.short()),
            Cell::new(config.port),
            Cell::new(hosts),
            Cell::new(style.age(Some(configured.configured_at))),
        ]);
    }
    render(table)
}

/// Revisions of a service, the current one last.
pub fn revisions(revisions: &[ConfiguredService], style: Style) -> String {
    let mut table = style.table(&["REVISION", "IMAGE", "CONCURRENCY", "AGE"]);
    for revision in revisions {
        table.add_row([
            Cell::new(revision.revision),
            Cell::new(revision.image.short()),
            Cell::new(revision.config.concurrency),
            Cell::new(style.age(Some(revision.configured_at))),
        ]);
    }
    render(table)
}

/// Nodes of the topology; beneath them, what each of them lacks.
pub fn nodes(nodes: &[NodeView], style: Style) -> String {
    let notes = nodes.iter().filter_map(|node| node.alive.as_ref());
    let notes: Vec<_> = notes
        .flat_map(|alive| {
            alive
                .notes
                .iter()
                .map(|note| format!("{}: {note}", alive.name))
        })
        .collect();
    let table = table_of_nodes(nodes, style);
    if notes.is_empty() {
        return table;
    }
    format!("{table}\n\n{}", notes.join("\n"))
}

fn table_of_nodes(nodes: &[NodeView], style: Style) -> String {
    let columns = [
        "NODE",
        "IP",
        "CONDITION",
        "SINCE",
        "PROCESSES",
        "CPU",
        "MEMORY",
        "VERSION",
        "WHY",
    ];
    let mut table = style.table(&columns);
    for node in nodes {
        let (condition, color) = condition(node.condition);
        let mut row = vec![
            Cell::new(&node.name),
            Cell::new(node.ip),
            style.cell(condition, color),
            Cell::new(style.age(Some(node.since))),
        ];
        match &node.alive {
            Some(alive) => {
                let metrics = &alive.metrics;
                let used = metrics
                    .memory_total
                    .0
                    .saturating_sub(metrics.memory_available.0);
                row.push(Cell::new(alive.processes));
                row.push(Cell::new(format!("{:.0}%", metrics.cpu_used * 100.0)));
                row.push(Cell::new(format!(
                    "{}/{}",
                    tucano_api::units::Bytes(used),
                    metrics.memory_total
                )));
                row.push(Cell::new(&alive.version));
            }
            None => row.extend(["-"; 4].map(Cell::new)),
        }
        row.push(Cell::new(node.reason.as_deref().unwrap_or_default()));
        table.add_row(row);
    }
    render(table)
}

fn condition(condition: NodeCondition) -> (&'static str, Color) {
    match condition {
        NodeCondition::Ctl => ("controller", Color::Green),
        NodeCondition::Unknown => ("unknown", Color::Yellow),
        NodeCondition::Alive => ("alive", Color::Green),
        NodeCondition::Missing => ("missing", Color::Red),
        NodeCondition::Dead => ("dead", Color::Red),
    }
}

/// Two spaces between columns, and none at the lines' ends.
fn render(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// The two largest units are enough for an age.
fn short(span: Span) -> String {
    let seconds = span.0.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use tucano_api::{
        agent::{Exit, NodeMetrics},
        state::{AliveNode, Pending},
        units::Bytes,
    };

    use super::*;
    use crate::watch::tests::service;

    const PLAIN: Style = Style {
        coloured: false,
        now: Timestamp(3_700_000),
    };

    #[test]
    fn processes_show_where_they_are_and_why() {
        let mut view = service(&[("w1", "healthy"), ("w2", "back_off")]);
        view.active.processes[0].report.started_at = Some(Timestamp(3_600_000));
        view.active.processes[0].report.node_port = Some(20_000);
        view.active.processes[1].report.restarts = 4;
        view.active.processes[1].report.relaxed =
            vec!["caps=web".into(), "no user namespace".into()];
        let exit = Exit {
            code: Some(1),
            signal: None,
            oom_killed: false,
            disk_exceeded: false,
            at: Timestamp(0),
        };
        view.active.processes[1].report.last_exit = Some(exit);
        view.active.pending.push(Pending {
            cause: None,
            count: 2,
            reason: "no worker has 256 MiB left".to_owned(),
        });
        let expected = "\
PROCESS   NODE  STATE        REVISION  AGE    RESTARTS  MEMORY  PORT   RELAXED                     WHY
hello-1   w1    healthy      3         1m40s  0         -       20000  -
hello-2   w2    backing off  3         -      4         -       -      caps=web no-user-namespace  ended with exit code 1
hello ×2  -     pending      3         -      -         -       -      -                           no worker has 256 MiB left";
        assert_eq!(processes(&[view], PLAIN), expected);
    }

    #[test]
    fn services_show_how_many_of_them_are_healthy() {
        let mut view = service(&[("w1", "healthy")]);
        view.configured.config.hosts = vec!["a.example".to_owned(), "b.example".to_owned()];
        let expected = "\
SERVICE  REVISION  HEALTHY  IMAGE         PORT  HOSTS                AGE
hello    3         1/2      abababababab  8080  a.example b.example  1h1m";
        assert_eq!(services(&[view], PLAIN), expected);
    }

    #[test]
    fn nodes_show_their_condition_and_load() {
        let node = |name: &str, condition| NodeView {
            hold: None,
            name: name.parse().unwrap(),
            ip: [10, 0, 0, 1].into(),
            condition,
            since: Timestamp(0),
            reason: None,
            alive: None,
        };
        let mut alive = node("w1", NodeCondition::Alive);
        alive.alive = Some(AliveNode {
            name: alive.name.clone(),
            ip: alive.ip,
            reported_at: Timestamp(0),
            generation_desired: Default::default(),
            generation_seen: Default::default(),
            version: "0.1.0".to_owned(),
            processes: 2,
            metrics: NodeMetrics {
                cpu_used: 0.254,
                memory_total: Bytes::mib(2048),
                memory_available: Bytes::mib(1536),
                ..NodeMetrics::default()
            },
            notes: Vec::new(),
        });
        let mut dead = node("w2", NodeCondition::Dead);
        dead.reason = Some("3 restarts failed".to_owned());
        let expected = "\
NODE  IP        CONDITION  SINCE  PROCESSES  CPU  MEMORY             VERSION  WHY
w1    10.0.0.1  alive      1h1m   2          25%  512.0 MiB/2.0 GiB  0.1.0
w2    10.0.0.1  dead       1h1m   -          -    -                  -        3 restarts failed";
        assert_eq!(nodes(&[alive.clone(), dead.clone()], PLAIN), expected);
        let lacking = alive.alive.as_mut().unwrap();
        lacking.notes = vec!["the kernel provides no pressure information (PSI)".to_owned()];
        let told = nodes(&[alive, dead], PLAIN);
        let notes = "\n\nw1: the kernel provides no pressure information (PSI)";
        assert_eq!(told, format!("{expected}{notes}"));
    }

    #[test]
    fn colours_are_for_terminals() {
        let view = service(&[("w1", "healthy")]);
        let coloured = Style {
            coloured: true,
            ..PLAIN
        };
        assert!(processes(std::slice::from_ref(&view), coloured).contains("\u{1b}["));
        assert!(!processes(&[view], PLAIN).contains('\u{1b}'));
    }

    #[test]
    fn ages_have_two_units() {
        for (seconds, text) in [(5, "5s"), (65, "1m5s"), (7260, "2h1m"), (180_000, "2d2h")] {
            assert_eq!(short(Span::secs(seconds)), text);
        }
    }
}
