//! Allocates addresses, node ports and user ids to processes. The only IO are sockets that reserve ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    str::FromStr,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use serde::{Deserialize, Serialize};

/// Number of user ids of each process's user namespace.
pub const IDS_PER_PROCESS: u32 = 0x1_0000;
/// First user id of the first process: a range that neither accounts nor other container managers use
/// (systemd's "Users, Groups, UIDs and GIDs" names 1879048192 to 2147483647 as unused).
const FIRST_ID: u32 = 0x7000_0000;

/// A process's address, port and ids on the node, from before its first start until its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its address in the processes' network.
    pub ip: Ipv4Addr,
    /// The node's port that is forwarded to it.
    pub node_port: u16,
    /// First of its user ids on the node.
    pub ids_base: u32,
}

/// Why a process cannot get a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// Every address is in use.
    #[error(
        "no free address in the subnet {0}: remove processes, or give the agent a larger `subnet`"
    )]
    Addresses(Subnet),
    /// Every port is in use, by processes or by other programs.
    #[error("no free port in {0}: remove processes, or give the agent more `ports`")]
    Ports(PortRange),
}

/// Allocates leases.
#[derive(Debug)]
pub struct Allocator {
    subnet: Subnet,
    range: PortRange,
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeMap<u16, Option<OwnedFd>>,
    ids: BTreeSet<u32>,
    last_port: u16,
}

impl Allocator {
    /// An allocator with everything free.
    pub fn new(subnet: Subnet, range: PortRange) -> Self {
        Self {
            subnet,
            range,
            addresses: BTreeSet::new(),
            ports: BTreeMap::new(),
            ids: BTreeSet::new(),
            last_port: range.last,
        }
    }

    /// Allocates the given reserved address or else a free one, a free port and free user ids.
    ///
    /// # Errors
    /// No address or port is free.
    pub fn lease(&mut self, reserved: Option<Ipv4Addr>) -> Result<Lease, Exhausted> {
        let ip = reserved
            .or_else(|| self.free_addresses().next())
            .ok_or(Exhausted::Addresses(self.subnet))?;
        let (node_port, socket) = self.free_port().ok_or(Exhausted::Ports(self.range))?;
        let ids_base = (FIRST_ID..)
            .step_by(IDS_PER_PROCESS as usize)
            .find(|base| !self.ids.contains(base))
            .unwrap_or(FIRST_ID);
        let lease = Lease {
            ip,
            node_port,
            ids_base,
        };
        self.insert(lease, Some(socket));
        Ok(lease)
    }

    /// Reserves a free address for [`Self::lease`], if `spare` more addresses stay free.
    pub fn reserve(&mut self, spare: usize) -> Option<Ipv4Addr> {
        let first = self.free_addresses().next()?;
        self.free_addresses().nth(spare)?;
        self.addresses.insert(first);
        Some(first)
    }

    /// Frees a reserved address.
    pub fn unreserve(&mut self, ip: Ipv4Addr) {
        self.addresses.remove(&ip);
    }

    fn free_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        let all = self.subnet.hosts();
        all.filter(|ip| !self.addresses.contains(ip))
    }

    /// Marks an adopted process's lease as allocated. Another program may have bound its port meanwhile; forwarding takes
    /// precedence over that.
    pub fn adopt(&mut self, lease: Lease) {
        self.insert(lease, reserve_port(lease.node_port));
    }

    /// Whether another process has any part of the lease, or its address lies outside of the subnet.
    pub fn conflicts(&self, lease: Lease) -> bool {
        !self.subnet.hosts().contains_address(lease.ip)
            || self.addresses.contains(&lease.ip)
            || self.ports.contains_key(&lease.node_port)
            || self.ids.contains(&lease.ids_base)
    }

    /// Frees a lease.
    pub fn release(&mut self, lease: Lease) {
        self.addresses.remove(&lease.ip);
        self.ports.remove(&lease.node_port);
        self.ids.remove(&lease.ids_base);
    }

    fn insert(&mut self, lease: Lease, socket: Option<OwnedFd>) {
        self.addresses.insert(lease.ip);
        self.ports.insert(lease.node_port, socket);
        self.ids.insert(lease.ids_base);
        self.last_port = lease.node_port;
    }

    /// The next free port after the last allocated one. Ports are reused late, so that a client with an outdated route does not
    /// reach another process.
    fn free_port(&self) -> Option<(u16, OwnedFd)> {
        let after = (self.last_port.saturating_add(1)..=self.range.last)
            .skip_while(|_| self.last_port < self.range.first);
        after
            .chain(self.range.first..=self.range.last)
            .filter(|port| !self.ports.contains_key(port))
            .find_map(|port| Some((port, reserve_port(port)?)))
    }
}

/// Reserves a node port against other programs by binding it. It never listens, so connections that are not forwarded are
/// refused.
fn reserve_port(port: u16) -> Option<OwnedFd> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .ok()?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)).ok()?;
    Some(socket)
}

/// An IPv4 network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Default for Subnet {
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(172, 31, 0, 0),
            prefix: 16,
        }
    }
}

/// Iterates over the addresses for processes.
#[derive(Debug, Clone)]
pub struct Hosts(std::ops::Range<u32>);

impl Iterator for Hosts {
    type Item = Ipv4Addr;
    fn next(&mut self) -> Option<Ipv4Addr> {
        self.0.next().map(Ipv4Addr::from)
    }
}

impl Hosts {
    fn contains_address(&self, ip: Ipv4Addr) -> bool {
        self.0.contains(&u32::from(ip))
    }
}

impl Subnet {
    /// The bridge's address: the first.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 1)
    }

    /// Prefix length in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The last address.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | (u32::MAX >> self.prefix))
    }

    /// Every address except those of the network, the bridge and for broadcasts.
    pub fn hosts(self) -> Hosts {
        Hosts(u32::from(self.network) + 2..u32::from(self.broadcast()))
    }
}

impl FromStr for Subnet {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(network, prefix)| {
            Some((
                network.parse::<Ipv4Addr>().ok()?,
                prefix.parse::<u8>().ok()?,
            ))
        });
        let Some((network, prefix @ 8..=29)) = parsed else {
            return Err(format!(
                "{text:?} is not a subnet for processes: write for example \"172.31.0.0/16\", of /8 to /29"
            ));
        };
        let masked = Ipv4Addr::from(u32::from(network) & !(u32::MAX >> prefix));
        if masked != network {
            return Err(format!(
                "{text:?} has bits beyond its prefix: write \"{masked}/{prefix}\""
            ));
        }
        Ok(Self { network, prefix })
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Ports of the node, first to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self {
            first: 20_000,
            last: 29_999,
        }
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let parsed = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        });
        match parsed {
            Some((first, last)) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => Err(format!(
                "{text:?} is not a range of ports: write for example \"20000-29999\""
            )),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(subnet: &str, ports: &str) -> Allocator {
        Allocator::new(
            subnet.parse().unwrap(),
            PortRange::try_from(ports.to_owned()).unwrap(),
        )
    }

    #[test]
    fn the_bridge_has_the_first_address_and_the_last_is_for_broadcasts() {
        let subnet: Subnet = "10.1.2.0/29".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 1, 2, 1));
        let hosts: Vec<_> = subnet.hosts().collect();
        assert_eq!(hosts.len(), 5);
        assert_eq!(hosts[0], Ipv4Addr::new(10, 1, 2, 2));
        assert_eq!(hosts[4], Ipv4Addr::new(10, 1, 2, 6));
    }

    #[test]
    fn leases_do_not_overlap_and_are_reusable_after_release() {
        let mut allocator = allocator("10.1.2.0/29", "41000-41400");
        let leases: Vec<_> = (0..5).map(|_| allocator.lease(None).unwrap()).collect();
        for (a, b) in leases.iter().zip(&leases[1..]) {
            assert!(a.ip != b.ip && a.node_port != b.node_port);
            assert!(b.ids_base.abs_diff(a.ids_base) >= IDS_PER_PROCESS);
        }
        let full = allocator.lease(None).unwrap_err();
        assert!(full.to_string().contains("10.1.2.0/29"), "{full}");
        allocator.release(leases[1]);
        let again = allocator.lease(None).unwrap();
        assert_eq!(again.ip, leases[1].ip);
        assert_ne!(
            again.node_port, leases[1].node_port,
            "ports are reused late"
        );
    }

    #[test]
    fn a_port_of_another_program_is_skipped() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut allocator = allocator("10.1.2.0/24", &format!("{port}-{port}"));
        let full = allocator.lease(None).unwrap_err();
        assert!(
            full.to_string()
                .contains(&format!("no free port in {port}-{port}")),
            "{full}"
        );
        drop(taken);
        assert_eq!(allocator.lease(None).unwrap().node_port, port);
        assert!(
            std::net::TcpListener::bind(("127.0.0.1", port)).is_err(),
            "it is reserved"
        );
    }

    #[test]
    fn a_reserved_address_is_leased_only_by_name() {
        let mut allocator = allocator("10.1.2.0/29", "41800-41900");
        let reserved = allocator.reserve(4).unwrap();
        assert_eq!(allocator.reserve(4), None, "fewer are free");
        assert_ne!(allocator.lease(None).unwrap().ip, reserved);
        assert_eq!(allocator.lease(Some(reserved)).unwrap().ip, reserved);
        let other = allocator.reserve(0).unwrap();
        allocator.unreserve(other);
        assert_eq!(allocator.lease(None).unwrap().ip, other);
    }

    #[test]
    fn the_search_for_ports_wraps_around() {
        let mut allocator = allocator("10.1.2.0/24", "41500-41509");
        let first = allocator.lease(None).unwrap();
        for _ in 0..40 {
            let lease = allocator.lease(None).unwrap();
            allocator.release(lease);
        }
        assert!(allocator.conflicts(first));
    }

    #[test]
    fn an_adopted_lease_is_not_allocated_again() {
        let mut allocator = allocator("10.1.2.0/29", "41600-41700");
        let lease = Lease {
            ip: Ipv4Addr::new(10, 1, 2, 2),
            node_port: 41600,
            ids_base: FIRST_ID,
        };
        assert!(!allocator.conflicts(lease));
        allocator.adopt(lease);
        assert!(allocator.conflicts(lease));
        let other = allocator.lease(None).unwrap();
        assert!(other.ip != lease.ip && other.ids_base != lease.ids_base);
        let outside = Lease {
            ip: Ipv4Addr::new(10, 9, 9, 9),
            ..other
        };
        allocator.release(other);
        assert!(allocator.conflicts(outside));
    }
}
