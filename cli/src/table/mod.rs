//! Tables.
//!
//! - `jobs`: jobs and their runs;
//! - `layout`: fits a table into the width of the terminal.

mod jobs;
mod layout;

use std::io::IsTerminal;

use rustix::{stdio::stdout, termios::tcgetwinsize};
use tucano_api::{
    agent::{Enforcement, NodeMetrics, ProcessReport, ProcessState},
    ids::{Revision, ServiceName},
    secrets::SecretView,
    service::{Protocol, ServiceConfig},
    state::{
        BackupView, ConfiguredService, DevicesOfKind, MoveView, NodeCondition, NodeView,
        ProcessView, ServiceView, VolumeState, VolumeView, VolumesOfNode,
    },
    units::{Bytes, Span, Timestamp},
    volumes::{Consistency, Snapshot},
};

use crate::watch::{state_name, why};
use layout::{Cell, Color, Column, Table};

pub use jobs::{jobs, runs};
pub(crate) use layout::printable;

/// How a table is rendered.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Whether to use colours.
    pub colored: bool,
    /// Columns of the terminal, if it is one.
    pub width: Option<usize>,
    /// The current time, for ages.
    pub now: Timestamp,
}

impl Style {
    /// For standard output.
    pub fn of_stdout() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let variable = |name| std::env::var_os(name).unwrap_or_default();
        let is_plain = !variable("NO_COLOR").is_empty() || variable("TERM") == "dumb";
        let size = is_terminal.then(|| tcgetwinsize(stdout()).ok()).flatten();
        let width = size.map(|size| usize::from(size.ws_col));
        let now = jiff::Timestamp::now().as_millisecond();
        Self {
            colored: is_terminal && !is_plain,
            width: width.filter(|width| *width > 0),
            now: Timestamp(u64::try_from(now).unwrap_or(0)),
        }
    }

    fn age(self, since: Option<Timestamp>) -> String {
        since.map_or_else(|| "-".to_owned(), |since| short(self.now.since(since)))
    }

    fn render(self, table: &Table<'_>) -> String {
        table.render(self.width, self.colored)
    }
}

const fn column(name: &'static str, expendable: u8) -> Column {
    Column { name, expendable }
}

const PROCESSES: [Column; 10] = [
    column("PROCESS", 0),
    column("NODE", 0),
    column("STATE", 0),
    column("REVISION", 3),
    column("AGE", 2),
    column("RESTARTS", 1),
    column("MEMORY", 4),
    column("PORT", 5),
    column("RELAXED", 6),
    column("WHY", 0),
];

/// Processes, those of runs too, and those that cannot be placed yet.
pub fn processes(services: &[ServiceView], style: Style) -> String {
    let mut table = Table::new(&PROCESSES);
    for service in services {
        let revision = service.configured.revision;
        let stopping = &service.active.stopping;
        for process in service.active.processes.iter().chain(stopping) {
            table.push(process_row(process, revision, None, style));
        }
        for process in &service.active.runs {
            let run = format!(
                "run {}/{}: {}",
                service.configured.name, process.run, process.trigger
            );
            table.push(process_row(&process.process, revision, Some(run), style));
        }
        for pending in &service.active.pending {
            let what = format!("{} ×{}", service.configured.name, pending.count);
            let mut row = vec![
                Cell::new(what),
                Cell::new("-"),
                Cell::colored("pending", Color::Yellow),
                Cell::new(revision),
            ];
            row.extend(["-"; 5].map(Cell::new));
            row.push(Cell::new(&pending.reason));
            table.push(row);
        }
    }
    style.render(&table)
}

/// A process that the current revision did not replace runs what that revision says, even if an earlier one started it.
fn process_row(
    process: &ProcessView,
    current: Revision,
    run: Option<String>,
    style: Style,
) -> Vec<Cell> {
    let report = &process.report;
    let memory = report
        .metrics
        .as_ref()
        .map(|metrics| format!("{}/{}", metrics.memory_current, metrics.memory_limit));
    let revision = match process.current {
        true => current.to_string(),
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
    let why: Vec<String> = run.into_iter().chain(why).collect();
    vec![
        Cell::new(&report.id),
        Cell::new(&process.node),
        state(report.state),
        Cell::new(revision),
        Cell::new(style.age(report.started_at)),
        Cell::new(report.restarts),
        Cell::new(memory.unwrap_or_else(|| "-".to_owned())),
        Cell::new(port.unwrap_or_else(|| "-".to_owned())),
        Cell::new(relaxed(report)),
        Cell::new(why.join("; ")),
    ]
}

fn state(state: ProcessState) -> Cell {
    let color = match state {
        ProcessState::Healthy => Color::Green,
        ProcessState::Unhealthy | ProcessState::BackOff => Color::Red,
        _ => Color::Yellow,
    };
    Cell::colored(state_name(state), color)
}

/// How a process is less restricted than by default; each item without spaces.
fn relaxed(report: &ProcessReport) -> String {
    let items = report.relaxed.iter().map(|item| item.replace(' ', "-"));
    let items: Vec<_> = items.collect();
    match items.is_empty() {
        true => "-".to_owned(),
        false => items.join(" "),
    }
}

const SERVICES: [Column; 8] = [
    column("SERVICE", 0),
    column("REVISION", 2),
    column("HEALTHY", 0),
    column("IMAGE", 3),
    column("PORT", 4),
    column("AGE", 1),
    column("NEEDS", 4),
    column("HOSTS", 0),
];

/// The ports of a service: the number of the one for requests, the others with their names.
fn ports(config: &ServiceConfig) -> String {
    let http = config.http_port();
    let all = config.all_ports().into_iter().map(|it| {
        let number = it.port.port;
        match http.as_ref() == Some(&it) {
            true => number.to_string(),
            false => format!("{}={number}{}", it.name, suffix(it.port.protocol)),
        }
    });
    let all: Vec<_> = all.collect();
    match all.is_empty() {
        true => "-".to_owned(),
        false => all.join(" "),
    }
}

fn suffix(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Udp => "/udp",
        Protocol::Http | Protocol::Tcp => "",
    }
}

/// The services that a service's processes may reach.
fn needs(config: &ServiceConfig) -> String {
    let needs: Vec<&str> = config.needs.iter().map(ServiceName::as_str).collect();
    match needs.is_empty() {
        true => "-".to_owned(),
        false => needs.join(" "),
    }
}

/// Configured services.
pub fn services(services: &[ServiceView], style: Style) -> String {
    let mut table = Table::new(&SERVICES);
    for service in services {
        let ServiceView {
            configured, active, ..
        } = service;
        let wanted = service.wanted();
        let config = &configured.config;
        let color = match active.healthy == wanted {
            true => Color::Green,
            false => Color::Red,
        };
        let hosts = match config.hosts.is_empty() {
            true => "-".to_owned(),
            false => config.hosts.join(" "),
        };
        table.push(vec![
            Cell::new(&configured.name),
            Cell::new(configured.revision),
            Cell::colored(format!("{}/{wanted}", active.healthy), color),
            Cell::new(configured.image.short()),
            Cell::new(ports(config)),
            Cell::new(style.age(Some(configured.configured_at))),
            Cell::new(needs(config)),
            Cell::new(hosts),
        ]);
    }
    style.render(&table)
}

const PATHS: [Column; 4] = [
    column("PATH", 0),
    column("SERVICE", 0),
    column("AT", 0),
    column("HEALTHY", 1),
];

/// Whom a service's processes may reach, and whose may reach it.
pub fn paths(service: &ServiceView, all: &[ServiceView], style: Style) -> String {
    let mut table = Table::new(&PATHS);
    let own = &service.configured.config;
    let mut path = |what: &str, other: &ServiceView, at: &ServiceConfig| {
        table.push(vec![
            Cell::new(what),
            Cell::new(&other.configured.name),
            Cell::new(addresses(at)),
            Cell::new(format!("{}/{}", other.active.healthy, other.wanted())),
        ]);
    };
    for other in all
        .iter()
        .filter(|it| own.needs.contains(&it.configured.name))
    {
        path("may reach", other, &other.configured.config);
    }
    let needing = all
        .iter()
        .filter(|it| it.configured.config.needs.contains(&own.name));
    for other in needing {
        path("may be reached by", other, own);
    }
    style.render(&table)
}

/// Where others find a service: `db:5432 db:53/udp`.
fn addresses(config: &ServiceConfig) -> String {
    let all = config.all_ports().into_iter();
    let all = all.map(|it| {
        format!(
            "{}:{}{}",
            config.name,
            it.port.port,
            suffix(it.port.protocol)
        )
    });
    let all: Vec<String> = all.collect();
    match all.is_empty() {
        true => "no port".to_owned(),
        false => all.join(" "),
    }
}

const REVISIONS: [Column; 4] = [
    column("REVISION", 0),
    column("IMAGE", 0),
    column("CONCURRENCY", 1),
    column("AGE", 0),
];

/// Revisions of a service, the current one last.
pub fn revisions(revisions: &[ConfiguredService], style: Style) -> String {
    let mut table = Table::new(&REVISIONS);
    for revision in revisions {
        table.push(vec![
            Cell::new(revision.revision),
            Cell::new(revision.image.short()),
            match revision.config.placement.everywhere {
                true => Cell::new("everywhere"),
                false => Cell::new(revision.config.concurrency),
            },
            Cell::new(style.age(Some(revision.configured_at))),
        ]);
    }
    style.render(&table)
}

const SECRETS: [Column; 3] = [column("SECRET", 0), column("AGE", 1), column("USED BY", 0)];

/// Secrets, and the services and earlier revisions that have them.
pub fn secrets(secrets: &[SecretView], style: Style) -> String {
    let mut table = Table::new(&SECRETS);
    for secret in secrets {
        let users: Vec<String> = secret.users.iter().map(ToString::to_string).collect();
        let users = match users.is_empty() {
            true => "-".to_owned(),
            false => users.join(", "),
        };
        table.push(vec![
            Cell::new(&secret.name),
            Cell::new(style.age(Some(secret.set_at))),
            Cell::new(users),
        ]);
    }
    style.render(&table)
}

const BACKUPS: [Column; 6] = [
    column("BACKUP", 0),
    column("AGE", 0),
    column("SIZE", 1),
    column("ADDED", 3),
    column("CONSISTENT BY", 2),
    column("REPOSITORY", 4),
];

/// The digits of a backup's id that are shown, as restic does.
const SHORT_ID: usize = 8;

/// Backups of one volume.
pub fn backups(backups: &[Snapshot], style: Style) -> String {
    let mut table = Table::new(&BACKUPS);
    for backup in backups {
        table.push(vec![
            Cell::new(backup.id.chars().take(SHORT_ID).collect::<String>()),
            Cell::new(style.age(Some(backup.at))),
            Cell::new(backup.bytes),
            Cell::new(backup.added),
            Cell::new(consistency(backup.consistency)),
            Cell::new(&backup.location),
        ]);
    }
    style.render(&table)
}

/// How the data was kept from changing, in words.
pub const fn consistency(how: Consistency) -> &'static str {
    match how {
        Consistency::Dump => "dump",
        Consistency::Unused => "no process had it",
        Consistency::Frozen => "freezing its process",
        Consistency::Reflink => "a snapshot of the file system",
    }
}

const VOLUMES: [Column; 7] = [
    column("VOLUME", 0),
    column("NODE", 0),
    column("STATE", 0),
    column("USED", 1),
    column("LIMIT", 3),
    column("PROCESS", 2),
    column("WHY", 0),
];

/// Volumes.
pub fn volumes(volumes: &[VolumeView], style: Style) -> String {
    let mut table = Table::new(&VOLUMES);
    for volume in volumes {
        let used = volume.used.map_or("-".to_owned(), |used| used.to_string());
        let limit = volume.enforcement.map_or("-", limit);
        let process = volume.process.as_ref();
        let (state, why) = volume_state(volume, style);
        table.push(vec![
            Cell::new(&volume.volume.id),
            Cell::new(&volume.node),
            state,
            Cell::new(format!("{used}/{}", volume.size)),
            Cell::new(limit),
            Cell::new(process.map_or("-".to_owned(), ToString::to_string)),
            Cell::new(why),
        ]);
    }
    style.render(&table)
}

fn volume_state(volume: &VolumeView, style: Style) -> (Cell, String) {
    if let Some(moving) = &volume.moving {
        return (Cell::colored("moving", Color::Yellow), moving_text(moving));
    }
    if let Some(restoring) = &volume.restoring {
        let why = match &restoring.problem {
            Some(problem) => problem.clone(),
            None => format!("from a backup{}", progress(restoring)),
        };
        let color = if restoring.problem.is_some() {
            Color::Red
        } else {
            Color::Yellow
        };
        return (Cell::colored("restoring", color), why);
    }
    let (name, color, why) = match &volume.state {
        VolumeState::Creating => ("creating", Color::Yellow, String::new()),
        VolumeState::InUse => ("in use", Color::Green, String::new()),
        VolumeState::Idle if volume.configured => ("idle", Color::Green, String::new()),
        VolumeState::Idle => ("idle", Color::Green, "no service has it".to_owned()),
        VolumeState::Away { since } => {
            let age = style.age(Some(*since));
            let why = format!("{} is not there since {age}", volume.node);
            ("away", Color::Red, why)
        }
        VolumeState::Missing { problem } => ("missing", Color::Red, problem.clone()),
        VolumeState::Orphan => (
            "orphan",
            Color::Yellow,
            format!(
                "no record: `tucano volume rm {} --on {}`",
                volume.volume.id, volume.node
            ),
        ),
        VolumeState::Removing => ("removing", Color::Yellow, String::new()),
    };
    let why = match (why.is_empty(), &volume.backup) {
        (true, Some(backup)) => last_backup(backup, style),
        _ => why,
    };
    (Cell::colored(name, color), why)
}

/// How far a move is, in words.
pub fn moving_text(moving: &MoveView) -> String {
    let problem = moving.problem.as_ref().map(|it| format!(": {it}"));
    format!(
        "moving to {}{}{}",
        moving.to,
        progress(moving),
        problem.unwrap_or_default()
    )
}

/// How far a copy is: ` (34 %)`.
fn progress(moving: &MoveView) -> String {
    let total = moving.total.filter(|total| total.0 > 0);
    total.map_or_else(String::new, |total| {
        let percent = u128::from(moving.done.0) * 100 / u128::from(total.0);
        format!(" ({} %)", percent.min(100))
    })
}

fn last_backup(backup: &BackupView, style: Style) -> String {
    let last = backup.last.as_ref();
    let last = match last {
        Some(last) => format!("backup {} ago", style.age(Some(last.at))),
        None => "no backup yet".to_owned(),
    };
    match &backup.error {
        Some(error) => format!("{last}; the last one failed: {error}"),
        None => last,
    }
}

fn limit(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::LoopFile => "loop file",
        Enforcement::ProjectQuota => "project quota",
    }
}

const NODES: [Column; 13] = [
    column("NODE", 0),
    column("IP", 6),
    column("CONDITION", 0),
    column("SINCE", 5),
    column("PROCESSES", 3),
    column("CPU", 4),
    column("MEMORY", 1),
    column("DISK", 2),
    column("VOLUMES", 8),
    column("VERSION", 7),
    column("DEVICES", 9),
    column("LABELS", 5),
    column("WHY", 0),
];

/// Nodes of the topology; below the table, what each of them lacks.
pub fn nodes(nodes: &[NodeView], style: Style) -> String {
    let mut table = Table::new(&NODES);
    for node in nodes {
        table.push(node_row(node, style));
    }
    let table = style.render(&table);
    let alive = nodes.iter().filter_map(|node| node.alive.as_ref());
    let notes = alive.flat_map(|alive| {
        let notes = alive.notes.iter();
        notes.map(|note| printable(&format!("{}: {note}", alive.name)))
    });
    let notes: Vec<_> = notes.collect();
    match notes.is_empty() {
        true => table,
        false => format!("{table}\n\n{}", notes.join("\n")),
    }
}

fn node_row(node: &NodeView, style: Style) -> Vec<Cell> {
    let (condition, color) = condition(node.condition);
    let mut row = vec![
        Cell::new(&node.name),
        Cell::new(node.ip),
        Cell::colored(condition, color),
        Cell::new(style.age(Some(node.since))),
    ];
    match &node.alive {
        Some(alive) => {
            let NodeMetrics {
                memory_total,
                memory_available,
                disk_total,
                disk_available,
                ..
            } = alive.metrics;
            row.push(Cell::new(alive.processes));
            row.push(Cell::new(format!("{:.0}%", alive.metrics.cpu_used * 100.0)));
            row.push(Cell::new(used(memory_total, memory_available)));
            row.push(Cell::new(used(disk_total, disk_available)));
            let volumes = alive.volumes.as_ref().map(|volumes| {
                let VolumesOfNode { size, capacity, .. } = volumes;
                format!("{size}/{capacity} {}", limit(volumes.enforcement))
            });
            row.push(Cell::new(volumes.as_deref().unwrap_or("-")));
            row.push(Cell::new(&alive.version));
        }
        None => row.extend(["-"; 6].map(Cell::new)),
    }
    row.push(Cell::new(devices(node)));
    row.push(Cell::new(labels(node)));
    row.push(Cell::new(node.reason.as_deref().unwrap_or_default()));
    row
}

/// The devices that processes have, of all.
fn devices(node: &NodeView) -> String {
    let kinds = node.alive.iter().flat_map(|alive| &alive.devices);
    let kinds = kinds.map(|(kind, DevicesOfKind { all, free })| {
        format!("{kind} {}/{all}", all.saturating_sub(*free))
    });
    let kinds: Vec<String> = kinds.collect();
    match kinds.is_empty() {
        true => "-".to_owned(),
        false => kinds.join(" "),
    }
}

fn labels(node: &NodeView) -> String {
    let labels = node
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let labels: Vec<String> = labels.collect();
    match labels.is_empty() {
        true => "-".to_owned(),
        false => labels.join(" "),
    }
}

/// What is used of a total.
fn used(total: Bytes, available: Bytes) -> String {
    format!("{}/{total}", Bytes(total.0.saturating_sub(available.0)))
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

/// An age in its two largest units.
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
mod tests;
