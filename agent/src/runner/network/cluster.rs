//! The cluster's machines, as this node knows them.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{Ipv4Addr, SocketAddrV4},
};

use tucano_api::names::ServiceSubnet;

/// Addresses of the controller that are remembered: a controller has few, and another host with the token could present many.
const MAX_CONTROLLERS: usize = 16;

/// The cluster's machines and their APIs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// APIs of the controller and of the agents.
    pub apis: BTreeSet<SocketAddrV4>,
    /// Addresses of the workers.
    pub workers: BTreeSet<Ipv4Addr>,
    /// Addresses that the controller was seen at, oldest first: it may connect from others than its API's.
    pub controllers: VecDeque<Ipv4Addr>,
    /// The network of services' addresses.
    pub services: Option<ServiceSubnet>,
}

impl Cluster {
    /// Every API that processes must not reach, with the controller's URL.
    pub(super) fn apis(&self, controller: Option<SocketAddrV4>) -> BTreeSet<SocketAddrV4> {
        controller
            .into_iter()
            .chain(self.apis.iter().copied())
            .collect()
    }

    /// Every machine whose connections to node ports are forwarded.
    pub(super) fn machines(&self, controller: Option<SocketAddrV4>) -> BTreeSet<Ipv4Addr> {
        let apis = self.apis(controller);
        let apis = apis.iter().map(|address| *address.ip());
        let known = self.workers.iter().chain(&self.controllers).copied();
        apis.chain(known).collect()
    }

    /// Remembers an address of the controller; whether it is a new one.
    pub fn add_controller(&mut self, ip: Ipv4Addr) -> bool {
        if self.controllers.contains(&ip) {
            return false;
        }
        if self.controllers.len() == MAX_CONTROLLERS {
            self.controllers.pop_front();
        }
        self.controllers.push_back(ip);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_those_of_apis_workers_and_the_controllers_addresses() {
        let mut cluster = Cluster {
            apis: ["10.0.0.1:7070".parse().unwrap()].into(),
            workers: ["10.0.0.2".parse().unwrap()].into(),
            ..Cluster::default()
        };
        assert!(cluster.add_controller([10, 0, 1, 1].into()));
        assert!(!cluster.add_controller([10, 0, 1, 1].into()));
        let machines = cluster.machines("10.0.2.1:7070".parse().ok());
        let expected = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.2.1"];
        assert_eq!(machines, expected.map(|ip| ip.parse().unwrap()).into());
    }

    #[test]
    fn the_number_of_the_controllers_addresses_is_limited() {
        let mut cluster = Cluster::default();
        for last in 0..=MAX_CONTROLLERS as u8 {
            assert!(cluster.add_controller([10, 0, 0, last].into()));
        }
        assert_eq!(cluster.controllers.len(), MAX_CONTROLLERS);
        assert!(!cluster.controllers.contains(&[10, 0, 0, 0].into()));
    }
}
