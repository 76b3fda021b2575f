//! What the tests are written in.

pub mod agent;
pub mod chaos;
pub mod disk;
pub mod network;
pub mod sim;
pub mod validator;

use std::net::{IpAddr, Ipv4Addr};

use tucano_api::{
    ids::{Digest, NodeName, ProcessId, ServiceName},
    service::{Health, ServiceConfig},
    state::AlertKind,
    units::{Bytes, Span, Timestamp},
};
use tucano_planner::{Settings, Worker};

pub use sim::{Sim, Start};

/// When every simulation begins.
pub const START: Timestamp = Timestamp(1_000_000);

pub fn node(number: usize) -> NodeName {
    format!("w{number}").parse().unwrap()
}

pub fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

pub fn process(text: &str) -> ProcessId {
    text.parse().unwrap()
}

/// A digest made of one repeated digit.
pub fn image(digit: u8) -> Digest {
    Digest::sha256(&format!("{:x}", digit % 16).repeat(64)).unwrap()
}

pub fn ip(number: usize) -> IpAddr {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

pub fn worker(number: usize) -> Worker {
    Worker {
        name: node(number),
        ip: ip(number),
        can_restart: false,
    }
}

pub fn workers(count: usize) -> Vec<Worker> {
    (1..=count).map(worker).collect()
}

/// Short times, so that much happens in little simulated time.
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

/// A service with the defaults that a sysadmin gets who writes three lines.
pub fn config(service: &str, concurrency: u32) -> ServiceConfig {
    ServiceConfig {
        name: name(service),
        concurrency,
        image: None,
        port: 8080,
        hosts: Vec::new(),
        path_prefix: None,
        env: Default::default(),
        args: None,
        user: None,
        memory: Bytes::mib(256),
        cpus: None,
        pids: 512,
        disk: Bytes(2 << 30),
        caps: Default::default(),
        read_only: false,
        tmp_size: None,
        shm_size: None,
        health: Health::default(),
        stop_timeout: Span::secs(10),
    }
}

pub fn with_memory(service: &str, concurrency: u32, mib: u64) -> ServiceConfig {
    ServiceConfig {
        memory: Bytes::mib(mib),
        ..config(service, concurrency)
    }
}

/// Kinds and subjects of alerts, as one writes them down.
pub fn told(sim: &Sim) -> Vec<(AlertKind, &str)> {
    let alerts = sim.alerts.iter();
    alerts
        .map(|alert| (alert.kind, alert.subject.as_str()))
        .collect()
}
