//! Creates a process's network namespace, on a thread of its own. A descriptor keeps it alive.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use nix::sched::{CloneFlags, unshare};
use tucano_api::names::ServiceSubnet;

use super::{
    addresses::Subnet,
    links::{self, Error},
    netlink::{Netlink, Request},
};

/// Index of the loopback device in every namespace.
const LOOPBACK: u32 = 1;

/// A network namespace and a netlink socket in it.
#[derive(Debug)]
pub(super) struct Namespace {
    fd: OwnedFd,
    netlink: Netlink,
}

impl Namespace {
    /// Creates a namespace with its loopback device up. The calling thread is moved into it, so it must not be a pool's.
    pub(super) fn make() -> Result<Self, Error> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Namespace(errno.into()))?;
        disable_ipv6()?;
        let own = File::open("/proc/thread-self/ns/net").map_err(Error::Namespace)?;
        let mut netlink = links::netlink()?;
        netlink.execute(&[links::up(LOOPBACK, "set the process's loopback device up")])?;
        Ok(Self {
            fd: own.into(),
            netlink,
        })
    }

    /// Sets `eth0` up with its address and the default route through the bridge.
    pub(super) fn configure(
        mut self,
        eth0: u32,
        ip: Ipv4Addr,
        subnet: Subnet,
    ) -> Result<OwnedFd, Error> {
        self.netlink.execute(&[
            links::up(eth0, "set the process's eth0 up"),
            address(eth0, ip, subnet),
            route(subnet.gateway()),
        ])?;
        Ok(self.fd)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `work` on a new thread: a thread whose network namespace was changed must not return to a pool.
pub(super) async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = thread::Builder::new().name("netns".into());
    thread
        // If the receiver is gone, the result is dropped, and with it the namespace.
        .spawn(move || drop(sender.send(work())))
        .map_err(Error::Namespace)?;
    let ended = |_| Error::Namespace(io::Error::other("its thread panicked"));
    receiver.await.map_err(ended)?
}

/// Assigns an address, with its subnet's prefix, to an interface.
pub(super) fn address(interface: u32, ip: Ipv4Addr, subnet: Subnet) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = subnet.prefix();
    message.header.index = interface;
    message.attributes = vec![
        AddressAttribute::Address(ip.into()),
        AddressAttribute::Local(ip.into()),
        AddressAttribute::Broadcast(subnet.broadcast()),
    ];
    let message = RouteNetlinkMessage::NewAddress(message);
    Request::new(&message, links::NEW, format!("assign the address {ip}"))
}

/// The default route.
fn route(gateway: Ipv4Addr) -> Request {
    let mut message = route_message(RouteType::Unicast);
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
    let message = RouteNetlinkMessage::NewRoute(message);
    Request::new(&message, links::NEW, "add the process's default route")
}

/// A static route of the main table, without destination and gateway.
fn route_message(kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = kind;
    message
}

/// A route that refuses packets to a network.
pub(super) fn prohibit(network: ServiceSubnet) -> Request {
    let message = RouteNetlinkMessage::NewRoute(prohibition(network));
    Request::new(&message, links::NEW, format!("close the network {network}"))
}

/// Removes that route.
pub(super) fn no_prohibit(network: ServiceSubnet) -> Request {
    let message = RouteNetlinkMessage::DelRoute(prohibition(network));
    Request::new(&message, 0, format!("open the network {network}"))
}

fn prohibition(network: ServiceSubnet) -> RouteMessage {
    let mut message = route_message(RouteType::Prohibit);
    message.header.destination_prefix_length = network.prefix();
    let destination = RouteAddress::Inet(network.network());
    message.attributes = vec![RouteAttribute::Destination(destination)];
    message
}

/// Disables IPv6 in this thread's namespace before it has any other link, so that processes cannot reach the node by a link-local
/// address. Loopback keeps `::1`, which programs that listen on `::` expect.
fn disable_ipv6() -> Result<(), Error> {
    let was_disabled = set("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
    // Loopback was created with the previous default, which on most systems is enabled.
    if was_disabled.is_some_and(|before| before != "0") {
        set("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0")?;
    }
    Ok(())
}

/// Enables IPv4 forwarding on the node.
pub(super) fn enable_forwarding() -> Result<(), Error> {
    set("/proc/sys/net/ipv4/ip_forward", "1").map(|_| ())
}

/// Enables forwarding from 127.0.0.1 to processes, and disables IPv6 on the bridge.
pub(super) fn prepare_bridge(bridge: &str) -> Result<(), Error> {
    // The rules of the input chain drop packets from processes to 127.0.0.0/8.
    let localnet = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
    set(&localnet, "1")?;
    set(
        &format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"),
        "1",
    )?;
    Ok(())
}

/// Writes a sysctl if it differs, and returns its previous value; `None` for an IPv6 sysctl of a kernel without IPv6.
fn set(path: &str, value: &str) -> Result<Option<String>, Error> {
    let failed = |source| Error::Sysctl {
        path: path.to_owned(),
        source,
    };
    let before = match fs::read_to_string(path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.contains("/ipv6/") => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    if before != value {
        fs::write(path, value).map_err(failed)?;
    }
    Ok(Some(before))
}
