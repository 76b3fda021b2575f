//! Allocates addresses, node ports and user ids to processes. The only IO are sockets that reserve ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    str::FromStr,
};

use nix::libc::{IPPROTO_TCP, IPPROTO_UDP};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use serde::{Deserialize, Serialize};
use tucano_api::{network::check_host_bits, service::Protocol};

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
    /// The node's port that is forwarded to its main port.
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

/// What a port of a process is reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol.is_udp() {
            true => Self::Udp,
            false => Self::Tcp,
        }
    }
}

impl Transport {
    /// The number of its protocol in IP.
    pub(super) fn protocol(self) -> u8 {
        let number = match self {
            Self::Tcp => IPPROTO_TCP,
            Self::Udp => IPPROTO_UDP,
        };
        number as u8
    }
}

/// A port of the node, of one transport.
pub type NodePort = (Transport, u16);

/// In the words of nft and iptables.
impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Allocates leases.
#[derive(Debug)]
pub struct Allocator {
    subnet: Subnet,
    range: PortRange,
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeMap<u16, Option<OwnedFd>>,
    /// Ports beyond those of the leases, by address.
    further: BTreeMap<Ipv4Addr, Vec<u16>>,
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
            further: BTreeMap::new(),
            ids: BTreeSet::new(),
            last_port: range.last,
        }
    }

    /// Allocates the given reserved address or else a free one, a free port and free user ids.
    ///
    /// # Errors
    /// No address or port is free.
    pub fn lease(
        &mut self,
        reserved: Option<Ipv4Addr>,
        main: Transport,
    ) -> Result<Lease, Exhausted> {
        let ip = reserved
            .or_else(|| self.free_addresses().next())
            .ok_or(Exhausted::Addresses(self.subnet))?;
        let (node_port, socket) = self.free_port(main)?;
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

    /// Allocates a further port for a lease, which is freed with it.
    ///
    /// # Errors
    /// No port is free.
    pub fn further_port(&mut self, lease: Lease, transport: Transport) -> Result<u16, Exhausted> {
        let (port, socket) = self.free_port(transport)?;
        self.insert_further(lease, port, Some(socket));
        Ok(port)
    }

    /// Marks a further port of an adopted lease as allocated; false if another process has it.
    pub fn adopt_further(&mut self, lease: Lease, port: u16, transport: Transport) -> bool {
        let is_free = !self.ports.contains_key(&port);
        if is_free {
            self.insert_further(lease, port, reserve_port(port, transport));
        }
        is_free
    }

    /// Reserves a free address for [`Self::lease`], if `spare` more addresses stay free.
    pub fn reserve(&mut self, spare: usize) -> Option<Ipv4Addr> {
        let first = self.free_addresses().next()?;
        self.free_addresses().nth(spare)?;
        self.addresses.insert(first);
        Some(first)
    }

    /// Reserves an address that is known to be free.
    pub fn reserve_this(&mut self, ip: Ipv4Addr) {
        self.addresses.insert(ip);
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
    pub fn adopt(&mut self, lease: Lease, main: Transport) {
        self.insert(lease, reserve_port(lease.node_port, main));
    }

    /// Whether another process has any part of the lease, or its address lies outside of the subnet.
    pub fn conflicts(&self, lease: Lease) -> bool {
        !self.subnet.hosts().contains_address(lease.ip)
            || self.addresses.contains(&lease.ip)
            || self.ports.contains_key(&lease.node_port)
            || self.ids.contains(&lease.ids_base)
    }

    /// Frees a lease and its further ports.
    pub fn release(&mut self, lease: Lease) {
        for port in self.further.remove(&lease.ip).unwrap_or_default() {
            self.ports.remove(&port);
        }
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

    fn insert_further(&mut self, lease: Lease, port: u16, socket: Option<OwnedFd>) {
        self.ports.insert(port, socket);
        self.further.entry(lease.ip).or_default().push(port);
        self.last_port = port;
    }

    /// The next free port after the last allocated one. Ports are reused late, so that a client with an outdated route does not
    /// reach another process.
    fn free_port(&self, transport: Transport) -> Result<(u16, OwnedFd), Exhausted> {
        let after = (self.last_port.saturating_add(1)..=self.range.last)
            .skip_while(|_| self.last_port < self.range.first);
        after
            .chain(self.range.first..=self.range.last)
            .filter(|port| !self.ports.contains_key(port))
            .find_map(|port| Some((port, reserve_port(port, transport)?)))
            .ok_or(Exhausted::Ports(self.range))
    }
}

/// Reserves a node port against other programs by binding it. It never listens, so connections that are not forwarded are
/// refused.
fn reserve_port(port: u16, transport: Transport) -> Option<OwnedFd> {
    let kind = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).ok()?;
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
        check_host_bits(text, network, prefix)?;
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
mod tests;
