//! Services with their endpoints, as the controller tells them.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use tucano_api::{
    ids::{PortName, ProcessId, ServiceName},
    names::{NamedEndpoint, NamedPort, NamedService, Names},
    service::Protocol,
};

/// Endpoints of each service.
pub(crate) const ENDPOINTS: usize = 5;
/// The port of every service.
pub(crate) const PORT: u16 = 8080;
/// The node port of every endpoint; each has an address of its own.
pub(crate) const NODE_PORT: u16 = 20_000;

/// The name of a service.
pub(crate) fn name(number: usize) -> Result<ServiceName> {
    Ok(format!("s{number}").parse()?)
}

/// Where a service is reached.
pub(crate) fn address(number: usize) -> SocketAddrV4 {
    SocketAddrV4::new(within([100, 80, 0, 0], number + 1), PORT)
}

/// Where an endpoint answers.
pub(crate) fn target(service: usize, endpoint: usize) -> SocketAddrV4 {
    let number = service * ENDPOINTS + endpoint + 1;
    SocketAddrV4::new(within([10, 9, 0, 0], number), NODE_PORT)
}

/// A service with all of its endpoints, or without one.
pub(crate) fn service(number: usize, without: Option<usize>) -> Result<NamedService> {
    let service = name(number)?;
    let kept = (0..ENDPOINTS).filter(|endpoint| Some(*endpoint) != without);
    let endpoint = |endpoint: usize| {
        Ok(NamedEndpoint {
            process: ProcessId::new(&service, (number * ENDPOINTS + endpoint) as u64),
            node: "far".parse()?,
            slot: None,
            weight: 100,
            ip: (*target(number, endpoint).ip()).into(),
            node_ports: vec![Some(NODE_PORT)],
        })
    };
    let endpoints = kept.map(endpoint).collect::<Result<_>>()?;
    Ok(NamedService {
        leaving: Vec::new(),
        service,
        address: *address(number).ip(),
        slots: Vec::new(),
        nearest: false,
        ports: vec![NamedPort {
            name: PortName::http(),
            port: PORT,
            protocol: Protocol::Http,
        }],
        endpoints,
    })
}

/// All of so many services.
pub(crate) fn all(services: usize) -> Result<Names> {
    let services = (0..services).map(|number| service(number, None));
    Ok(Names {
        version: "0".to_owned(),
        whole: true,
        services: services.collect::<Result<_>>()?,
        gone: Vec::new(),
    })
}

fn within(network: [u8; 4], number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::from(network).to_bits() + number as u32)
}
