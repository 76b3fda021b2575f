//! What a service sets in place of its image's configuration, and what its processes find in their container.

use std::net::Ipv4Addr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    ServiceConfig,
    targets::is_plain,
    validate::{has_labels, length_problem},
};
use crate::settings::Problem;

/// Most entries of `ulimits`, `sysctls` and `extra_hosts` each.
const MAX_ENTRIES: usize = 64;
/// Most name servers: as many as resolvers use (`MAXNS` in resolv.h).
const MAX_SERVERS: usize = 3;
/// Longest host name: Linux's HOST_NAME_MAX.
const MAX_HOSTNAME: usize = 64;
/// Longest value of a sysctl, in bytes.
const MAX_SYSCTL_BYTES: usize = 256;
/// Limits of resources that a service can set.
pub const ULIMITS: [&str; 9] = [
    "as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack",
];
/// Sysctls of a container's own namespaces that a service can set. What they take counts as the container's memory.
pub const SYSCTLS: [&str; 28] = [
    "fs.mqueue.msg_default",
    "fs.mqueue.msg_max",
    "fs.mqueue.msgsize_default",
    "fs.mqueue.msgsize_max",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_tw_reuse",
];

/// A limit of a resource: a number, `"unlimited"`, or both limits as a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Ulimit {
    /// What holds.
    pub soft: Amount,
    /// Up to what a process may raise it.
    pub hard: Amount,
}

/// An amount of a resource; `None` if it is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount(pub Option<u64>);

/// How a limit is written.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "write a number, \"unlimited\", or { soft = 1024, hard = 4096 }"
)]
enum Written {
    One(Amount),
    Both(Both),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Both {
    soft: Amount,
    hard: Amount,
}

impl From<Written> for Ulimit {
    fn from(written: Written) -> Self {
        match written {
            Written::One(both) => Self {
                soft: both,
                hard: both,
            },
            Written::Both(Both { soft, hard }) => Self { soft, hard },
        }
    }
}

impl From<Ulimit> for Written {
    fn from(limit: Ulimit) -> Self {
        let Ulimit { soft, hard } = limit;
        match soft == hard {
            true => Self::One(soft),
            false => Self::Both(Both { soft, hard }),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(number) => serializer.serialize_u64(number),
            None => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Number(i64),
            Word(String),
        }
        match Text::deserialize(deserializer)? {
            Text::Number(-1) => Ok(Self(None)),
            Text::Word(word) if word == "unlimited" => Ok(Self(None)),
            Text::Number(number) => match u64::try_from(number) {
                Ok(number) => Ok(Self(Some(number))),
                Err(_) => Err(D::Error::custom("write a number from 0, or \"unlimited\"")),
            },
            Text::Word(_) => Err(D::Error::custom("write a number from 0, or \"unlimited\"")),
        }
    }
}

/// What is wrong with these keys of a service.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, word) in config.entrypoint.iter().flatten().enumerate() {
        if word.contains('\0') {
            let message = "a word cannot contain a NUL byte";
            problems.push(Problem::new(format!("entrypoint[{index}]"), message));
        }
    }
    let is_root = |path: &String| path == "/";
    if let Some(path) = config.working_dir.as_ref().filter(|path| !is_root(path))
        && !(is_plain(path) && path.len() < 4096)
    {
        let message = format!(
            "{path:?} is not a directory of a container: write an absolute path without `.`, `..` and doubled or final slashes"
        );
        problems.push(Problem::new("working_dir", message));
    }
    if let Some(name) = config.hostname.as_ref().filter(|name| !is_hostname(name)) {
        let message = format!(
            "{name:?} is not a host name: write at most {MAX_HOSTNAME} letters, digits, '-' and '.'"
        );
        problems.push(Problem::new("hostname", message));
    }
    if let Some(signal) = config.stop_signal.as_ref().filter(|name| !is_signal(name)) {
        let message = format!(
            "{signal:?} is not a signal: write a name of signal(7), such as \"SIGQUIT\" or \"RTMIN+3\", or a number"
        );
        problems.push(Problem::new("stop_signal", message));
    }
    problems.extend(ulimit_problems(config));
    problems.extend(sysctl_problems(config));
    problems.extend(host_problems(config));
    for (list, count) in [
        ("ulimits", config.ulimits.len()),
        ("sysctls", config.sysctls.len()),
        ("extra_hosts", config.extra_hosts.len()),
    ] {
        problems.extend(length_problem(list, "entries", count, MAX_ENTRIES));
    }
    problems.extend(length_problem(
        "dns",
        "name servers",
        config.dns.len(),
        MAX_SERVERS,
    ));
    problems
}

fn ulimit_problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, limit) in &config.ulimits {
        let key = format!("ulimits.{name}");
        if !ULIMITS.contains(&name.as_str()) {
            let message = format!("cannot be set: the limits are {}", ULIMITS.join(", "));
            problems.push(Problem::new(key, message));
            continue;
        }
        let is_above = match (limit.soft.0, limit.hard.0) {
            (Some(soft), Some(hard)) => soft > hard,
            (None, Some(_)) => true,
            _ => false,
        };
        if is_above {
            problems.push(Problem::new(key, "the soft limit is above the hard one"));
        } else if name == "core" && limit.hard.0 != Some(0) {
            let message = "only 0 is possible: core dumps would fill the node's disk";
            problems.push(Problem::new(key, message));
        }
    }
    problems
}

fn sysctl_problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in &config.sysctls {
        let key = format!("sysctls.{name}");
        if !SYSCTLS.contains(&name.as_str()) {
            let message = "cannot be set by a service: it is one of the node, or of its network. Set it on the workers if all processes may have it";
            problems.push(Problem::new(key, message));
        } else if value.is_empty()
            || value.len() > MAX_SYSCTL_BYTES
            || !value
                .bytes()
                .all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
        {
            problems.push(Problem::new(key, "write the value as one line of text"));
        }
    }
    problems
}

fn host_problems(config: &ServiceConfig) -> Vec<Problem> {
    let names = config.extra_hosts.keys();
    let wrong = names.filter(|name| !is_name(name, 253));
    let mut problems: Vec<Problem> = wrong
        .map(|name| Problem::new("extra_hosts", format!("{name:?} is not a host name")))
        .collect();
    let is_usable =
        |ip: &&Ipv4Addr| !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast());
    if let Some(ip) = config.dns.iter().find(|ip| !is_usable(ip)) {
        let message = format!("{ip} is no server that a container can reach");
        problems.push(Problem::new("dns", message));
    } else if !config.dns.is_empty() && !config.needs.is_empty() {
        let message = "has no place beside `needs`: the agent answers for the services that are needed, and asks the node's servers for all else";
        problems.push(Problem::new("dns", message).depending_on("needs"));
    }
    problems
}

fn is_hostname(name: &str) -> bool {
    is_name(name, MAX_HOSTNAME)
}

/// Labels of letters, digits, `-` and `_`, which programs use although host names do not have it.
fn is_name(name: &str, most: usize) -> bool {
    has_labels(name, most, |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')
    })
}

/// A name or a number of signal(7), as agents read it.
fn is_signal(name: &str) -> bool {
    if let Ok(number) = name.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = [("RTMIN", '+'), ("RTMAX", '-')]
        .iter()
        .find_map(|(base, sign)| Some((short.strip_prefix(base)?, sign)));
    match real_time {
        Some(("", _)) => true,
        Some((offset, sign)) => offset
            .strip_prefix(*sign)
            .and_then(|digits| digits.parse::<u32>().ok())
            .is_some_and(|offset| offset <= 30),
        None => (1..=31).any(|number| crate::signal::name(number) == Some(&format!("SIG{short}"))),
    }
}

#[cfg(test)]
mod tests;
