//! The rules of devices, judged by what a worker was given and by what runs on it:
//!
//! - No device is two containers' at once, also while one of them is stopping.
//! - Each container has as many devices as its configuration asks for, and those that it names.
//! - A process is started only where its devices are there by the worker's last report.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{DesiredProcess, NodeReport},
    ids::NodeName,
    service::DeviceRequest,
};
use tucano_planner::ProcessRecord;

use crate::agent::Agent;

/// Whether a worker's containers have devices of their own.
pub(crate) fn check_containers(agent: &Agent) {
    let mut taken = BTreeMap::new();
    for container in agent.containers.values() {
        let process = &container.desired;
        check_requests(process);
        for device in &process.devices {
            for unit in &device.units {
                let other = taken.insert((device.kind.clone(), unit.clone()), &process.id);
                assert_eq!(other, None, "{} and {device} of {}", process.id, agent.name);
            }
        }
    }
}

fn check_requests(process: &DesiredProcess) {
    for request in &process.config.devices {
        let own = process.devices.iter();
        match request {
            DeviceRequest::Node(_) => {}
            DeviceRequest::Named { kind, name } => {
                let mut own = own.filter(|it| it.kind == *kind);
                assert!(
                    own.any(|it| it.name == *name),
                    "{process:?} lacks {request}"
                );
            }
            DeviceRequest::Any { kind, count } => {
                let named = process.config.devices.iter();
                let named = named
                    .filter(|it| matches!(it, DeviceRequest::Named { kind: of, .. } if of == kind));
                let count = *count as usize + named.count();
                let own = own.filter(|it| it.kind == *kind);
                assert_eq!(own.count(), count, "{process:?} asks for {request}");
            }
        }
    }
}

/// Whether what was started is where its devices are.
pub(crate) fn check_started(started: &[ProcessRecord], reports: &BTreeMap<NodeName, NodeReport>) {
    for process in started.iter().filter(|it| !it.devices.is_empty()) {
        let there = reports.get(&process.node).map(|report| &report.devices);
        for device in &process.devices {
            let names = there.and_then(|it| it.get(&device.kind));
            let units: Option<&BTreeSet<_>> = names.and_then(|names| names.get(&device.name));
            let is_there = units.is_some_and(|units| units.is_subset(&device.units));
            assert!(is_there, "{process:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tucano_api::{
        service::ServiceConfig,
        units::{Bytes, Span, Timestamp},
    };

    use super::*;
    use crate::{
        agent::Workloads,
        fixtures::{config, devices, image, worker},
    };

    /// A worker with a container for each of these devices.
    fn agent(given: &[&str]) -> Agent {
        let mut agent = Agent::new(worker(1), Bytes::mib(4096));
        agent.devices = devices(2);
        let names = agent.devices.values().next().unwrap().clone();
        let kind = agent.devices.keys().next().unwrap().clone();
        let processes = given.iter().zip(1..).map(|(name, number)| {
            let (name, unit) = names.get_key_value(&name.parse().unwrap()).unwrap();
            let device = tucano_api::service::AssignedDevice {
                kind: kind.clone(),
                name: name.clone(),
                units: unit.clone(),
            };
            let config = ServiceConfig {
                devices: vec!["acme.com/gpu=1".parse().unwrap()],
                ..config("a", 2)
            };
            DesiredProcess {
                id: tucano_api::ids::ProcessId::new(&config.name, number),
                revision: tucano_api::ids::Revision(1),
                image: image(1),
                config,
                slot: None,
                volumes: Vec::new(),
                devices: vec![device],
                run: None,
                address: None,
                kept: Default::default(),
            }
        });
        agent.desired.processes = processes.collect();
        let workloads = Workloads {
            crashing: BTreeSet::new(),
            unresponsive: BTreeSet::new(),
            start_time: Span::millis(1),
            run_time: Span::millis(1),
        };
        agent.poll(Timestamp(1), &workloads);
        agent
    }

    #[test]
    fn each_container_with_a_device_of_its_own_is_right() {
        check_containers(&agent(&["0", "1"]));
    }

    #[test]
    #[should_panic(expected = "a-1")]
    fn a_device_that_was_given_twice_is_found() {
        check_containers(&agent(&["0", "0"]));
    }

    #[test]
    #[should_panic(expected = "a-1")]
    fn a_device_that_was_given_twice_by_different_names_is_found() {
        check_containers(&agent(&["1", "all"]));
    }
}
