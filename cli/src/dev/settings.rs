//! The configuration of a development cluster's programs.

use std::{fs, net::IpAddr, path::Path};

use serde::Serialize;
use tucano_api::{
    API_PORT,
    units::{Bytes, Span},
};
use tucano_vhost::Host;

use crate::Error;

/// Short, so that the loss of a worker is visible soon.
const LEASE: Span = Span::secs(3);
const PUBLISH_INTERVAL: Span = Span::millis(500);

/// `ctl.toml`.
#[derive(Debug, Serialize)]
pub(super) struct Controller<'a> {
    data_dir: &'a Path,
    domain: &'a str,
    lease: Span,
    agent_token_file: &'a Path,
    api: Api,
    balancer: Balancer,
    topology: Vec<Node>,
}

#[derive(Debug, Serialize)]
struct Api {
    listen: [String; 2],
}

#[derive(Debug, Serialize)]
struct Balancer {
    spawn: bool,
}

#[derive(Debug, Serialize)]
struct Node {
    kind: &'static str,
    ip: IpAddr,
    name: String,
}

impl<'a> Controller<'a> {
    pub(super) fn new(data_dir: &'a Path, token: &'a Path, ctl: &Host, workers: &[Host]) -> Self {
        let node = |kind, host: &Host| Node {
            kind,
            ip: host.ip().into(),
            name: host.name().to_owned(),
        };
        let workers = workers.iter().map(|worker| node("worker", worker));
        Self {
            data_dir,
            domain: "localhost",
            lease: LEASE,
            agent_token_file: token,
            api: Api {
                listen: ["stdin".to_owned(), format!("{}:{API_PORT}", ctl.ip())],
            },
            // `tucano dev` runs it, because it holds the listening socket.
            balancer: Balancer { spawn: false },
            topology: std::iter::once(node("ctl", ctl)).chain(workers).collect(),
        }
    }
}

/// `agent.toml`.
#[derive(Debug, Serialize)]
pub(super) struct Agent<'a> {
    controller: String,
    ca_file: &'a Path,
    token_file: &'a Path,
    data_dir: &'a Path,
    publish_interval: Span,
    ip: IpAddr,
    name: &'a str,
    cgroup: String,
    memory_reservable: Bytes,
}

impl<'a> Agent<'a> {
    pub(super) fn new(
        data_dir: &'a Path,
        (ca_file, token): (&'a Path, &'a Path),
        ctl: &Host,
        worker: &'a Host,
        memory: Bytes,
    ) -> Self {
        Self {
            controller: format!("https://{}:{API_PORT}", ctl.ip()),
            ca_file,
            token_file: token,
            data_dir,
            publish_interval: PUBLISH_INTERVAL,
            ip: worker.ip().into(),
            name: worker.name(),
            cgroup: worker.cgroup(),
            memory_reservable: memory,
        }
    }
}

/// Writes settings as TOML.
pub(super) fn write(path: &Path, settings: &impl Serialize) -> Result<(), Error> {
    let text = toml::to_string(settings)
        .map_err(|error| Error::Dev(format!("cannot write {}: {error}", path.display())))?;
    fs::write(path, text).map_err(Error::file("write", path))
}

/// Each worker gets an equal share of the machine's memory.
pub(super) fn memory_share(workers: u32) -> Result<Bytes, Error> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    memory_total(&text)
        .map(|total| Bytes(total / u64::from(workers.max(1))))
        .ok_or_else(|| Error::Dev(format!("{path} does not say how much memory there is")))
}

/// In bytes; the file is in kibibytes (proc_meminfo(5)).
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_parsed() {
        assert_eq!(
            memory_total("Foo: 1 kB\nMemTotal:   2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        assert!(memory_share(1).unwrap() > memory_share(2).unwrap());
    }
}
