//! A network namespace for a process: made on a thread of its own, held by a descriptor.

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

use super::{
    addresses::Subnet,
    links::{self, Error},
    netlink::{Netlink, Request},
};

/// The kernel gives it to the loopback device of each namespace.
const LOOPBACK: u32 = 1;

/// A network namespace, and netlink inside of it. It lives as long as this, or something in it.
#[derive(Debug)]
pub(super) struct Namespace {
    fd: OwnedFd,
    netlink: Netlink,
}

impl Namespace {
    /// A new one, with loopback up in it. This thread, which must be one of its own, is in it from then on.
    pub(super) fn make() -> Result<Self, Error> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Namespace(errno.into()))?;
        without_ipv6()?;
        let own = File::open("/proc/thread-self/ns/net").map_err(Error::Namespace)?;
        let mut netlink = links::netlink()?;
        netlink.carry_out(&[links::up(LOOPBACK, "set the process's loopback device up")])?;
        Ok(Self {
            fd: own.into(),
            netlink,
        })
    }

    /// Sets its `eth0` up, with its address and the way out through the bridge.
    pub(super) fn configure(
        mut self,
        eth0: u32,
        ip: Ipv4Addr,
        subnet: Subnet,
    ) -> Result<OwnedFd, Error> {
        self.netlink.carry_out(&[
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

/// A network namespace belongs to a thread: one that has changed it must not go back to a pool.
pub(super) async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = thread::Builder::new().name("netns".into());
    thread
        // A result that nobody waits for any more is dropped, and what it holds with it.
        .spawn(move || drop(sender.send(work())))
        .map_err(Error::Namespace)?;
    let ended = |_| Error::Namespace(io::Error::other("its thread ended early"));
    receiver.await.map_err(ended)?
}

/// That an interface has an address, with the other addresses of its subnet behind it.
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
    Request::new(&message, links::NEW, format!("give out the address {ip}"))
}

/// All ways lead there that do not lead elsewhere.
fn route(gateway: Ipv4Addr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
    let message = RouteNetlinkMessage::NewRoute(message);
    Request::new(&message, links::NEW, "give the process its default route")
}

/// Before any other link exists in this thread's namespace: no process has an IPv6 address, not even a link-local one to reach
/// the node by. Loopback keeps its own, for who listens on `::` expects to be there at `::1`.
fn without_ipv6() -> Result<(), Error> {
    let were_without = set("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
    // Loopback began as is the default, which on most systems is to have it.
    if were_without.is_some_and(|before| before != "0") {
        set("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0")?;
    }
    Ok(())
}

/// Lets the node forward packets, if it does not yet.
pub(super) fn forward() -> Result<(), Error> {
    set("/proc/sys/net/ipv4/ip_forward", "1").map(|_| ())
}

/// Lets local clients reach processes by 127.0.0.1; the bridge has no IPv6 address.
pub(super) fn prepare_bridge(bridge: &str) -> Result<(), Error> {
    // Packets from processes to 127.0.0.0/8 are dropped by the rules of the input chain.
    let localnet = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
    set(&localnet, "1")?;
    set(
        &format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"),
        "1",
    )?;
    Ok(())
}

/// Sets it where it is not so yet, and tells what it was; nothing where a kernel without IPv6 has nothing to set.
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
