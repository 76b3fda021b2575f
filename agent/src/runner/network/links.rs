//! Bridge and veth pairs, by netlink.

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
use nix::libc::{self, EEXIST, ENODEV, ENOENT, ENXIO};

use super::{
    addresses::Subnet,
    namespace::{self, Namespace},
    netlink::{Netlink, Refused, Request},
};

/// Why a link could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the kernel.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    /// A request failed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A link that has just been made is not there.
    #[error("the link {0} is gone: something else on the node removed it")]
    Gone(String),
    /// The network namespace could not be made.
    #[error("cannot make a network namespace: {0}")]
    Namespace(#[source] std::io::Error),
    /// A file below /proc/sys could not be written.
    #[error("cannot write {path}: {source}")]
    Sysctl {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

/// What is made is new.
pub(super) const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// It may be there already.
const ANY: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// How the kernel says that something is not there.
const ABSENT: [i32; 3] = [ENODEV, ENXIO, ENOENT];

/// Netlink in the network namespace of this thread.
pub(super) fn netlink() -> Result<Netlink, Error> {
    Netlink::open(NETLINK_ROUTE).map_err(Error::Socket)
}

/// The bridge and what is attached to it. Clones are of the same.
#[derive(Debug, Clone)]
pub(super) struct Links {
    bridge: Arc<str>,
    subnet: Subnet,
    /// Held while the bridge is made, removed, or given a port.
    node: Arc<Mutex<Node>>,
}

#[derive(Debug)]
struct Node {
    netlink: Netlink,
    has_ipv6: bool,
    /// The index of the bridge for which the node's settings have been made.
    prepared: Option<u32>,
}

impl Links {
    /// In the network namespace of this thread. Changes nothing.
    pub(super) fn new(bridge: &str, subnet: Subnet) -> Result<Self, Error> {
        let node = Node {
            netlink: netlink()?,
            has_ipv6: Path::new("/proc/sys/net/ipv6").exists(),
            prepared: None,
        };
        Ok(Self {
            bridge: bridge.into(),
            subnet,
            node: Arc::new(Mutex::new(node)),
        })
    }

    /// The bridge's index; it is made where it is not there. The thread must be in the agent's network namespace, whose
    /// settings /proc/sys has then.
    fn ensure_bridge(&self) -> Result<u32, Error> {
        self.with(|node| node.ensure_bridge(&self.bridge, self.subnet))
    }

    /// A new network namespace that is connected to the bridge under this address: the node's end of the pair is `name`, the
    /// process's `eth0`. This thread, which must be one of its own, is in it from then on.
    pub(super) fn connect(&self, name: &str, ip: Ipv4Addr) -> Result<OwnedFd, Error> {
        let bridge = self.ensure_bridge()?;
        let namespace = Namespace::make()?;
        let eth0 = self.with(|node| node.add_veth(name, bridge, namespace.as_fd(), ip))?;
        namespace.configure(eth0, ip, self.subnet)
    }

    /// Whether one that was connected still is.
    pub(super) fn are_connected(&self, name: &str) -> Result<bool, Error> {
        let bridge = self.ensure_bridge()?;
        let port = self.with(|node| find(&mut node.netlink, name))?;
        Ok(port.is_some_and(|port| port.bridge == Some(bridge)))
    }

    /// Removes an address's link, and what the node knows of the address: what is sent to it fails at once. Absent is fine.
    pub(super) fn disconnect(&self, name: &str, ip: Ipv4Addr) -> Result<(), Error> {
        // The kernel takes its time to remove a link: starts do not wait for this one.
        let mut netlink = netlink()?;
        if let Some(bridge) = find(&mut netlink, &self.bridge)? {
            unless_absent(netlink.carry_out(&[forget(bridge.index, ip)]))?;
        }
        remove(&mut netlink, name)
    }

    /// Removes the bridge; absent is fine.
    pub(super) fn remove_bridge(&self) -> Result<(), Error> {
        self.with(|node| {
            node.prepared = None;
            remove(&mut node.netlink, &self.bridge)
        })
    }

    /// Removes those links of the bridge that are of no use, judging by their names.
    pub(super) fn tidy(&self, is_of_use: impl Fn(&str) -> bool) -> Result<(), Error> {
        self.with(|node| {
            let Some(bridge) = find(&mut node.netlink, &self.bridge)? else {
                return Ok(());
            };
            for name in attached_to(&mut node.netlink, bridge.index)? {
                if !is_of_use(&name) {
                    remove(&mut node.netlink, &name)?;
                }
            }
            Ok(())
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Node) -> Result<T, Error>) -> Result<T, Error> {
        work(&mut self.node.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Node {
    /// The bridge's index; where it is not there it is made, with its address, and set up.
    fn ensure_bridge(&mut self, name: &str, subnet: Subnet) -> Result<u32, Error> {
        let index = match find(&mut self.netlink, name)? {
            Some(bridge) => bridge.index,
            None => self.make_bridge(name, subnet)?,
        };
        namespace::forward()?;
        if self.prepared != Some(index) {
            namespace::prepare_bridge(name)?;
            self.prepared = Some(index);
        }
        Ok(index)
    }

    fn make_bridge(&mut self, name: &str, subnet: Subnet) -> Result<u32, Error> {
        // Without an address of its own it takes the least of its ports', and changes it as they come and go.
        let mut bridge = link(vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(hardware_address(subnet.gateway()).into()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ]);
        set_up(&mut bridge);
        let bridge = RouteNetlinkMessage::NewLink(bridge);
        let made = Request::new(&bridge, NEW, format!("make the bridge {name}"));
        let told = self.netlink.carry_out(&[made, get(name)])?;
        let made = newest(&told).ok_or_else(|| Error::Gone(name.to_owned()))?;
        let address = namespace::address(made.index, subnet.gateway(), subnet);
        self.netlink.carry_out(&[address])?;
        Ok(made.index)
    }

    /// Makes a veth pair: `name` in the bridge, its peer `eth0` in the network namespace, with the hardware address of `ip`.
    /// The peer's index.
    fn add_veth(
        &mut self,
        name: &str,
        bridge: u32,
        namespace: BorrowedFd<'_>,
        ip: Ipv4Addr,
    ) -> Result<u32, Error> {
        let pair = RouteNetlinkMessage::NewLink(veth(name, bridge, namespace, ip));
        let add = || {
            let what = format!("make the veth pair {name} in the bridge");
            [Request::new(&pair, NEW, what), get(name)]
        };
        let told = match self.netlink.carry_out(&add()) {
            // One of an earlier start is still there: the kernel removes network namespaces some time after their end.
            Err(error) if error.is(&[EEXIST]) => {
                remove(&mut self.netlink, name)?;
                self.netlink.carry_out(&add())?
            }
            other => other?,
        };
        let (port, peer) = newest(&told)
            .and_then(|made| Some((made.index, made.peer?)))
            .ok_or_else(|| Error::Gone(name.to_owned()))?;
        let mut requests = vec![
            restrict(port, name),
            own_hardware(port, name, ip),
            known_hardware(bridge, ip),
        ];
        requests.extend(self.has_ipv6.then(|| without_ipv6(port, name)));
        requests.push(up(port, &format!("set {name} up")));
        // The namespace is empty, and stays so if any of these is refused.
        self.netlink.carry_out(&requests)?;
        Ok(peer)
    }
}

/// The link of this name, if it is there.
fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Found>, Error> {
    match netlink.carry_out(&[get(name)]) {
        Ok(told) => Ok(newest(&told)),
        Err(error) if error.is(&ABSENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a link; absent is fine.
fn remove(netlink: &mut Netlink, name: &str) -> Result<(), Error> {
    let message = link(vec![LinkAttribute::IfName(name.to_owned())]);
    let message = RouteNetlinkMessage::DelLink(message);
    let what = format!("remove the link {name}");
    unless_absent(netlink.carry_out(&[Request::new(&message, 0, what)]))
}

/// Names of the links that are attached to the bridge.
fn attached_to(netlink: &mut Netlink, bridge: u32) -> Result<BTreeSet<String>, Error> {
    let all = RouteNetlinkMessage::GetLink(link(Vec::new()));
    let told = netlink.carry_out(&[Request::new(&all, NLM_F_DUMP, "list the node's links")])?;
    let links = told.iter().filter_map(|told| Found::read(told));
    let attached = links.filter(|link| link.bridge == Some(bridge));
    Ok(attached.map(|link| link.name).collect())
}

fn unless_absent<T>(result: Result<T, Refused>) -> Result<(), Error> {
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
        // What has passed over it is of no interest, and long.
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

/// A pair, one of which is a port of the bridge, the other one `eth0` of the namespace. Neither can be up before both are there.
fn veth(name: &str, bridge: u32, namespace: BorrowedFd<'_>, ip: Ipv4Addr) -> LinkMessage {
    // Nothing is queued in it: else there would be one queue for each of the node's processors, with files in /sys.
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

/// Processes must not reach each other: isolated ports exchange frames with the bridge alone. Nor be taken for each other:
/// a locked port lets only those hardware addresses in that it was told of, and learns none (Linux 5.18).
fn restrict(port: u32, name: &str) -> Request {
    let closed = vec![
        InfoBridgePort::Isolated(true),
        InfoBridgePort::Learning(false),
        InfoBridgePort::Locked(true),
    ];
    let mut message = link(vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(closed)),
    ])]);
    message.header.index = port;
    let message = RouteNetlinkMessage::NewLink(message);
    Request::new(&message, 0, format!("isolate {name}"))
}

/// No address by which the node could be reached over the port; the kernel spends more time on such a one than on the port.
fn without_ipv6(port: u32, name: &str) -> Request {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let mut message = link(vec![LinkAttribute::AfSpecUnspec(vec![
        AfSpecUnspec::Inet6(vec![none]),
    ])]);
    message.header.index = port;
    let message = RouteNetlinkMessage::SetLink(message);
    Request::new(&message, 0, format!("keep {name} from an IPv6 address"))
}

fn own_hardware(port: u32, name: &str, ip: Ipv4Addr) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    let hardware = NeighbourAttribute::LinkLayerAddress(hardware_address(ip).into());
    message.attributes = vec![hardware];
    let message = RouteNetlinkMessage::NewNeighbour(message);
    let what = format!("tell {name} its hardware address");
    Request::new(&message, ANY, what)
}

/// What the node knows of the address is not asked of anyone, so that nobody can answer.
fn known_hardware(bridge: u32, ip: Ipv4Addr) -> Request {
    let mut message = neighbour(bridge, ip);
    let hardware = NeighbourAttribute::LinkLayerAddress(hardware_address(ip).into());
    message.attributes.push(hardware);
    let message = RouteNetlinkMessage::NewNeighbour(message);
    let what = format!("note the hardware address of {ip}");
    Request::new(&message, ANY, what)
}

fn forget(bridge: u32, ip: Ipv4Addr) -> Request {
    let message = RouteNetlinkMessage::DelNeighbour(neighbour(bridge, ip));
    let what = format!("forget the hardware address of {ip}");
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

/// A locally administered address that follows from the IPv4 address, so that what a neighbour has learned of the address
/// is also true of the next one who has it.
pub(super) fn hardware_address(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, b't', a, b, c, d]
}

/// What the kernel tells of a link.
#[derive(Debug, Default)]
struct Found {
    index: u32,
    name: String,
    /// The other end of a pair, in its own namespace.
    peer: Option<u32>,
    bridge: Option<u32>,
}

impl Found {
    /// Of the many attributes only these are looked at (`struct ifinfomsg` comes before them).
    fn read(told: &[u8]) -> Option<Self> {
        const HEADER_BYTES: usize = 16;
        let number = |bytes: &[u8]| bytes.first_chunk().copied().map(u32::from_ne_bytes);
        let mut found = Self {
            index: number(told.get(4..)?)?,
            ..Self::default()
        };
        for attribute in NlasIterator::new(told.get(HEADER_BYTES..)?) {
            let attribute = attribute.ok()?;
            match attribute.kind() {
                libc::IFLA_IFNAME => {
                    let name = attribute.value().split(|byte| *byte == 0).next()?;
                    found.name = String::from_utf8_lossy(name).into_owned();
                }
                libc::IFLA_LINK => found.peer = number(attribute.value()),
                libc::IFLA_MASTER => found.bridge = number(attribute.value()),
                _ => {}
            }
        }
        Some(found)
    }
}

fn newest(told: &[Vec<u8>]) -> Option<Found> {
    told.last().and_then(|told| Found::read(told))
}
