//! The bridge and the veth pairs of processes.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind,
        InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
        LinkMessage,
    },
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc::{self, EEXIST, ENODEV, ENOENT, ENXIO, ESRCH};
use tucano_api::names::ServiceSubnet;

use super::{
    addresses::Subnet,
    namespace::{self, Namespace},
    netlink::{Netlink, Request, RequestError},
};

/// Why a link could not be created, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A netlink socket cannot be opened.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    /// The kernel refused a request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A link vanished right after its creation.
    #[error("the link {0} vanished: another program removed it")]
    Gone(String),
    /// The network namespace could not be created.
    #[error("cannot create a network namespace: {0}")]
    Namespace(#[source] std::io::Error),
    /// A file below /proc/sys could not be written.
    #[error("cannot write {path}: {source}")]
    Sysctl {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

/// Create, and fail if it exists.
pub(super) const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// Create or replace.
const CREATE_OR_REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// Error codes for something that does not exist.
const ABSENT: [i32; 3] = [ENODEV, ENXIO, ENOENT];

/// A netlink socket in the network namespace of this thread.
pub(super) fn netlink() -> Result<Netlink, Error> {
    Netlink::open(NETLINK_ROUTE).map_err(Error::Socket)
}

/// The bridge and its ports; clones share their state.
#[derive(Debug, Clone)]
pub(super) struct Links {
    bridge: Arc<str>,
    subnet: Subnet,
    /// Locked while the bridge is created, removed, or given a port.
    host: Arc<Mutex<Host>>,
}

#[derive(Debug)]
struct Host {
    netlink: Netlink,
    has_ipv6: bool,
    /// Index of the bridge whose sysctls were set.
    prepared: Option<u32>,
}

impl Links {
    /// Works in the network namespace of this thread. Changes nothing yet.
    pub(super) fn new(bridge: &str, subnet: Subnet) -> Result<Self, Error> {
        let host = Host {
            netlink: netlink()?,
            has_ipv6: Path::new("/proc/sys/net/ipv6").exists(),
            prepared: None,
        };
        Ok(Self {
            bridge: bridge.into(),
            subnet,
            host: Arc::new(Mutex::new(host)),
        })
    }

    /// The bridge's index; a missing bridge is created. The thread must be in the agent's network namespace, because
    /// /proc/sys shows the settings of the thread's namespace.
    fn ensure_bridge(&self) -> Result<u32, Error> {
        self.with(|host| host.ensure_bridge(&self.bridge, self.subnet))
    }

    /// Creates a network namespace with this address, connected to the bridge by a veth pair: `name` on the node, `eth0` in the
    /// namespace. The calling thread is moved into the namespace, so it must not be a pool's.
    pub(super) fn connect(&self, name: &str, ip: Ipv4Addr) -> Result<OwnedFd, Error> {
        let bridge = self.ensure_bridge()?;
        let namespace = Namespace::make()?;
        let eth0 = self.with(|host| host.add_veth(name, bridge, namespace.as_fd(), ip))?;
        namespace.configure(eth0, ip, self.subnet)
    }

    /// Whether the link is still a port of the bridge.
    pub(super) fn are_connected(&self, name: &str) -> Result<bool, Error> {
        let bridge = self.ensure_bridge()?;
        let port = self.with(|host| find(&mut host.netlink, name))?;
        Ok(port.is_some_and(|port| port.bridge == Some(bridge)))
    }

    /// Removes an address's link and neighbour entry, so that packets to it fail at once. A missing one is no error.
    pub(super) fn disconnect(&self, name: &str, ip: Ipv4Addr) -> Result<(), Error> {
        // A separate socket, without the lock: removing a link is slow, and starts need not wait for it.
        let mut netlink = netlink()?;
        if let Some(bridge) = find(&mut netlink, &self.bridge)? {
            ignore_absent(netlink.execute(&[delete_neighbour(bridge.index, ip)]))?;
        }
        remove(&mut netlink, name)
    }

    /// Removes the bridge; a missing one is no error.
    pub(super) fn remove_bridge(&self) -> Result<(), Error> {
        self.with(|host| {
            host.prepared = None;
            remove(&mut host.netlink, &self.bridge)
        })
    }

    /// Has the kernel refuse packets to this network where no rule has given them another destination: what is closed does not
    /// depend on the rules. Bridges pass packets on by themselves from then on.
    pub(super) fn close(&self, network: ServiceSubnet) -> Result<(), Error> {
        super::watch::release_bridges().map_err(|source| Error::Sysctl {
            path: "/proc/sys/net/bridge/bridge-nf-call-iptables".to_owned(),
            source,
        })?;
        self.with(|host| {
            let request = namespace::prohibit(network);
            match host.netlink.execute(&[request]) {
                Err(error) if !error.is(&[EEXIST]) => Err(error.into()),
                _ => Ok(()),
            }
        })
    }

    /// Removes that refusal; a missing one is no error.
    pub(super) fn reopen(&self, network: ServiceSubnet) -> Result<(), Error> {
        let request = namespace::no_prohibit(network);
        self.with(|host| match host.netlink.execute(&[request]) {
            Err(error) if !error.is(&[ESRCH]) => Err(error.into()),
            _ => Ok(()),
        })
    }

    /// Removes the ports of the bridge whose names are not in use.
    pub(super) fn tidy(&self, is_used: impl Fn(&str) -> bool) -> Result<(), Error> {
        self.with(|host| {
            let Some(bridge) = find(&mut host.netlink, &self.bridge)? else {
                return Ok(());
            };
            for name in ports(&mut host.netlink, bridge.index)? {
                if !is_used(&name) {
                    remove(&mut host.netlink, &name)?;
                }
            }
            Ok(())
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Host) -> Result<T, Error>) -> Result<T, Error> {
        work(&mut self.host.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Host {
    /// The bridge's index; a missing bridge is created with its address and set up.
    fn ensure_bridge(&mut self, name: &str, subnet: Subnet) -> Result<u32, Error> {
        let index = match find(&mut self.netlink, name)? {
            Some(bridge) => bridge.index,
            None => self.create_bridge(name, subnet)?,
        };
        namespace::enable_forwarding()?;
        if self.prepared != Some(index) {
            namespace::prepare_bridge(name)?;
            self.prepared = Some(index);
        }
        Ok(index)
    }

    fn create_bridge(&mut self, name: &str, subnet: Subnet) -> Result<u32, Error> {
        // Without an explicit hardware address a bridge takes the lowest one of its ports, which changes with them.
        let mut bridge = link(vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(hardware_address(subnet.gateway()).into()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ]);
        set_up(&mut bridge);
        let bridge = RouteNetlinkMessage::NewLink(bridge);
        let create = Request::new(&bridge, NEW, format!("create the bridge {name}"));
        let replies = self.netlink.execute(&[create, get(name)])?;
        let made = last_link(&replies).ok_or_else(|| Error::Gone(name.to_owned()))?;
        let address = namespace::address(made.index, subnet.gateway(), subnet);
        self.netlink.execute(&[address])?;
        Ok(made.index)
    }

    /// Creates a veth pair: `name` in the bridge, its peer `eth0` in the network namespace, with the hardware address of `ip`.
    /// Returns the peer's index.
    fn add_veth(
        &mut self,
        name: &str,
        bridge: u32,
        namespace: BorrowedFd<'_>,
        ip: Ipv4Addr,
    ) -> Result<u32, Error> {
        let pair = RouteNetlinkMessage::NewLink(veth(name, bridge, namespace, ip));
        let add = || {
            let what = format!("create the veth pair {name} in the bridge");
            [Request::new(&pair, NEW, what), get(name)]
        };
        let replies = match self.netlink.execute(&add()) {
            // The link of an earlier start still exists: the kernel removes network namespaces asynchronously.
            Err(error) if error.is(&[EEXIST]) => {
                remove(&mut self.netlink, name)?;
                self.netlink.execute(&add())?
            }
            other => other?,
        };
        let (port, peer) = last_link(&replies)
            .and_then(|made| Some((made.index, made.peer?)))
            .ok_or_else(|| Error::Gone(name.to_owned()))?;
        let mut requests = vec![
            isolate(port, name),
            fdb_entry(port, name, ip),
            neighbour_entry(bridge, ip),
        ];
        requests.extend(self.has_ipv6.then(|| disable_ipv6(port, name)));
        requests.push(up(port, &format!("set {name} up")));
        // No process is in the namespace yet, and none enters it if a request is refused.
        self.netlink.execute(&requests)?;
        Ok(peer)
    }
}

/// The link of this name, if it exists.
fn find(netlink: &mut Netlink, name: &str) -> Result<Option<KernelLink>, Error> {
    match netlink.execute(&[get(name)]) {
        Ok(replies) => Ok(last_link(&replies)),
        Err(error) if error.is(&ABSENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a link; a missing one is no error.
fn remove(netlink: &mut Netlink, name: &str) -> Result<(), Error> {
    let message = link(vec![LinkAttribute::IfName(name.to_owned())]);
    let message = RouteNetlinkMessage::DelLink(message);
    let what = format!("remove the link {name}");
    ignore_absent(netlink.execute(&[Request::new(&message, 0, what)]))
}

/// Names of the bridge's ports.
fn ports(netlink: &mut Netlink, bridge: u32) -> Result<BTreeSet<String>, Error> {
    let all = RouteNetlinkMessage::GetLink(link(Vec::new()));
    let replies = netlink.execute(&[Request::new(&all, NLM_F_DUMP, "list the node's links")])?;
    let links = replies.iter().filter_map(|reply| KernelLink::parse(reply));
    let attached = links.filter(|link| link.bridge == Some(bridge));
    Ok(attached.map(|link| link.name).collect())
}

fn ignore_absent<T>(result: Result<T, RequestError>) -> Result<(), Error> {
    match result {
        Err(error) if !error.is(&ABSENT) => Err(error.into()),
        _ => Ok(()),
    }
}

fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = attributes;
    message
}

fn set_up(link: &mut LinkMessage) {
    link.header.flags |= LinkFlags::Up;
    link.header.change_mask |= LinkFlags::Up;
}

fn get(name: &str) -> Request {
    let message = link(vec![
        LinkAttribute::IfName(name.to_owned()),
        // Statistics are long and not needed.
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
    ]);
    let message = RouteNetlinkMessage::GetLink(message);
    Request::new(&message, 0, format!("look for the link {name}"))
}

/// Sets a link up.
pub(super) fn up(index: u32, what: &str) -> Request {
    let mut message = link(Vec::new());
    message.header.index = index;
    set_up(&mut message);
    Request::new(&RouteNetlinkMessage::SetLink(message), 0, what)
}

/// A veth pair: one end is a port of the bridge, the other is `eth0` of the namespace. Both are down at first.
fn veth(name: &str, bridge: u32, namespace: BorrowedFd<'_>, ip: Ipv4Addr) -> LinkMessage {
    // One queue suffices, since veth does not queue. By default there is one per processor, each with files in /sys.
    let queues = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
    let mut peer = link(vec![
        LinkAttribute::IfName("eth0".to_owned()),
        LinkAttribute::Address(hardware_address(ip).into()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ]);
    peer.attributes.extend(queues.clone());
    let mut pair = link(vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Controller(bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ]);
    pair.attributes.extend(queues);
    pair
}

/// Isolated ports exchange frames with the bridge only, so processes cannot reach each other. Locked ports accept only the
/// hardware addresses of their entries, so processes cannot impersonate each other (Linux 5.18).
fn isolate(port: u32, name: &str) -> Request {
    let options = vec![
        InfoBridgePort::Isolated(true),
        InfoBridgePort::Learning(false),
        InfoBridgePort::Locked(true),
    ];
    let mut message = link(vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(options)),
    ])]);
    message.header.index = port;
    let message = RouteNetlinkMessage::NewLink(message);
    Request::new(&message, 0, format!("isolate {name}"))
}

/// Without a link-local address the node is not reachable over the port. Its creation would also take longer than the port's.
fn disable_ipv6(port: u32, name: &str) -> Request {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let mut message = link(vec![LinkAttribute::AfSpecUnspec(vec![
        AfSpecUnspec::Inet6(vec![none]),
    ])]);
    message.header.index = port;
    let message = RouteNetlinkMessage::SetLink(message);
    Request::new(&message, 0, format!("disable IPv6 addresses of {name}"))
}

/// The forwarding entry that lets the process's hardware address in at its locked port.
fn fdb_entry(port: u32, name: &str, ip: Ipv4Addr) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    let hardware = NeighbourAttribute::LinkLayerAddress(hardware_address(ip).into());
    message.attributes = vec![hardware];
    let message = RouteNetlinkMessage::NewNeighbour(message);
    let what = format!("add the forwarding entry of {name}");
    Request::new(&message, CREATE_OR_REPLACE, what)
}

/// A permanent neighbour entry: the node sends no ARP requests that another process could answer.
fn neighbour_entry(bridge: u32, ip: Ipv4Addr) -> Request {
    let mut message = neighbour(bridge, ip);
    let hardware = NeighbourAttribute::LinkLayerAddress(hardware_address(ip).into());
    message.attributes.push(hardware);
    let message = RouteNetlinkMessage::NewNeighbour(message);
    let what = format!("add the neighbour entry of {ip}");
    Request::new(&message, CREATE_OR_REPLACE, what)
}

fn delete_neighbour(bridge: u32, ip: Ipv4Addr) -> Request {
    let message = RouteNetlinkMessage::DelNeighbour(neighbour(bridge, ip));
    let what = format!("delete the neighbour entry of {ip}");
    Request::new(&message, 0, what)
}

fn neighbour(bridge: u32, ip: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = bridge;
    message.header.state = NeighbourState::Permanent;
    let address = NeighbourAttribute::Destination(NeighbourAddress::Inet(ip));
    message.attributes = vec![address];
    message
}

/// A locally administered address derived from the IPv4 address, so that neighbour entries stay valid for the next process with
/// the same address.
pub(super) fn hardware_address(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, b't', a, b, c, d]
}

/// A link, as the kernel describes it.
#[derive(Debug, Default)]
struct KernelLink {
    index: u32,
    name: String,
    /// Index of the other end of a pair, in its namespace.
    peer: Option<u32>,
    bridge: Option<u32>,
}

impl KernelLink {
    /// Parses a reply: `struct ifinfomsg`, followed by attributes.
    fn parse(reply: &[u8]) -> Option<Self> {
        const HEADER_BYTES: usize = 16;
        let number = |bytes: &[u8]| bytes.first_chunk().copied().map(u32::from_ne_bytes);
        let mut link = Self {
            index: number(reply.get(4..)?)?,
            ..Self::default()
        };
        for attribute in NlasIterator::new(reply.get(HEADER_BYTES..)?) {
            let attribute = attribute.ok()?;
            match attribute.kind() {
                libc::IFLA_IFNAME => {
                    let name = attribute.value().split(|byte| *byte == 0).next()?;
                    link.name = String::from_utf8_lossy(name).into_owned();
                }
                libc::IFLA_LINK => link.peer = number(attribute.value()),
                libc::IFLA_MASTER => link.bridge = number(attribute.value()),
                _ => {}
            }
        }
        Some(link)
    }
}

fn last_link(replies: &[Vec<u8>]) -> Option<KernelLink> {
    replies.last().and_then(|reply| KernelLink::parse(reply))
}
