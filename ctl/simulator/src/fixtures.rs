//! Names, workers, settings and services for simulations.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use serde_json::json;
use tucano_api::{
    ids::{DeviceName, Digest, NodeName, ProcessId, ServiceName},
    service::{Backup, Kind, Labels, NodeDevices, Placement, ServiceConfig, Volume},
    units::{Bytes, Span},
};
use tucano_planner::{Settings, Worker};

/// The name of a worker: `w1`, `w2`, …
pub fn node(number: usize) -> NodeName {
    format!("w{number}").parse().unwrap()
}

/// A service name.
///
/// # Panics
/// If `text` is not a valid one; so do the functions below.
pub fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// A process id.
pub fn process(text: &str) -> ProcessId {
    text.parse().unwrap()
}

/// A digest made of one repeated digit.
pub fn image(digit: u8) -> Digest {
    Digest::sha256(&format!("{:x}", digit % 16).repeat(64)).unwrap()
}

/// The address of a worker, `10.0.0.NUMBER`.
pub fn ip(number: usize) -> IpAddr {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

/// A worker without a restart command.
pub fn worker(number: usize) -> Worker {
    Worker {
        name: node(number),
        ip: ip(number),
        labels: Labels::new(),
        can_restart: false,
    }
}

/// Labels, from words such as `zone=a`.
pub fn labels(text: &str) -> Labels {
    let words = text.split_whitespace();
    let label = |word: &str| {
        let (name, value) = word.split_once('=').unwrap();
        (name.parse().unwrap(), value.parse().unwrap())
    };
    words.map(label).collect()
}

/// So many devices of one kind, each by its number and by another name, and all of them by one name.
pub fn devices(count: usize) -> NodeDevices {
    let unit = |number: usize| -> DeviceName { number.to_string().parse().unwrap() };
    let all: BTreeSet<DeviceName> = (0..count).map(unit).collect();
    let mut names = BTreeMap::new();
    for number in 0..count {
        names.insert(unit(number), [unit(number)].into());
        names.insert(
            format!("id-{number}").parse().unwrap(),
            [unit(number)].into(),
        );
    }
    names.insert("all".parse().unwrap(), all);
    let kind = "acme.com/gpu".parse().unwrap();
    match count {
        0 => NodeDevices::new(),
        _ => [(kind, names)].into(),
    }
}

/// A service with devices, from words such as `acme.com/gpu=1`.
pub fn with_devices(service: &str, concurrency: u32, devices: &str) -> ServiceConfig {
    let devices = devices.split_whitespace();
    ServiceConfig {
        devices: devices.map(|it| it.parse().unwrap()).collect(),
        ..config(service, concurrency)
    }
}

/// A worker with labels.
pub fn labelled(number: usize, text: &str) -> Worker {
    Worker {
        labels: labels(text),
        ..worker(number)
    }
}

/// A service with rules of placement.
pub fn placed(service: &str, concurrency: u32, placement: Placement) -> ServiceConfig {
    ServiceConfig {
        placement,
        ..config(service, concurrency)
    }
}

/// The workers from 1 to `count`.
pub fn workers(count: usize) -> Vec<Worker> {
    (1..=count).map(worker).collect()
}

/// Settings with short times, so that much happens in little simulated time.
pub fn settings() -> Settings {
    Settings {
        lease: Span::secs(2),
        drain: Span::secs(1),
        rebalance_after: Span::secs(5),
        restart_attempts: 3,
        restart_backoff: Span::secs(1),
        restart_grace: Span::secs(5),
        recovered_after: Span::secs(5),
        ..Settings::default()
    }
}

/// A service with the defaults of a configuration of three lines.
pub fn config(service: &str, concurrency: u32) -> ServiceConfig {
    let three = json!({"name": service, "concurrency": concurrency, "port": 8080});
    serde_json::from_value(three).unwrap()
}

/// A job without a schedule, whose run is of one process.
pub fn job(name: &str) -> ServiceConfig {
    ServiceConfig {
        kind: Kind::Job,
        port: None,
        ..config(name, 0)
    }
}

/// Backups every minute, of files or of the output of a command.
pub fn backup(dump: &[&str]) -> Backup {
    Backup {
        every: Some(Span::secs(60)),
        keep: 3,
        to: "file:///backups".to_owned(),
        password: "backups".parse().unwrap(),
        access_key: None,
        endpoint: None,
        region: None,
        dump: dump.iter().map(|word| (*word).to_owned()).collect(),
        load: dump.iter().map(|_| "load".to_owned()).collect(),
        freeze_at_most: Span::secs(10),
    }
}

/// A service whose slots have these volumes, of so many MiB each.
pub fn with_volumes(service: &str, concurrency: u32, volumes: &[(&str, u64)]) -> ServiceConfig {
    let volume = |(name, mib): &(&str, u64)| Volume {
        backup: None,
        name: name.parse().unwrap(),
        path: format!("/{name}"),
        size: Bytes::mib(*mib),
    };
    ServiceConfig {
        volume: volumes.iter().map(volume).collect(),
        ..config(service, concurrency)
    }
}

/// A service whose processes reserve `mib` MiB each.
pub fn with_memory(service: &str, concurrency: u32, mib: u64) -> ServiceConfig {
    ServiceConfig {
        memory: Bytes::mib(mib),
        ..config(service, concurrency)
    }
}
