//! Bridge and veth pairs, by netlink.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
    thread,
};

use futures_util::{TryStreamExt, join};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{
    Error as NetlinkError, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec,
    LinkVeth, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoVeth, LinkAttribute, LinkMessage},
        neighbour::{NeighbourFlags, NeighbourState},
    },
};

use super::{addresses::Subnet, pool::Namespace};

/// Why a link could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the kernel.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    /// A request failed.
    #[error("cannot {what}: {source}")]
    Request {
        /// What was to be done.
        what: String,
        /// Why it failed.
        #[source]
        source: NetlinkError,
    },
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
}

/// Says what failed.
trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, NetlinkError> {
    fn doing(self, what: impl Into<String>) -> Result<T, Error> {
        self.map_err(|source| Error::Request {
            what: what.into(),
            source,
        })
    }
}

/// Netlink in the network namespace of the thread that made it.
#[derive(Debug, Clone)]
pub(super) struct Links(Handle);

impl Links {
    /// Opens the socket and answers for it on the current runtime.
    pub(super) fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Makes the bridge, if it is not there, gives it its address and sets it up.
    pub(super) async fn ensure_bridge(&self, name: &str, subnet: Subnet) -> Result<u32, Error> {
        if let Some(index) = self.index(name).await? {
            return Ok(index);
        }
        // Without an address of its own it takes the least of its ports', and changes it as they come and go.
        let bridge = LinkBridge::new(name)
            .address(hardware_address(subnet.gateway()).into())
            .build();
        self.0
            .link()
            .add(bridge)
            .execute()
            .await
            .doing(format!("make the bridge {name}"))?;
        let index = self.expect(name).await?;
        self.0
            .address()
            .add(index, subnet.gateway().into(), subnet.prefix())
            .execute()
            .await
            .doing(format!("give {name} the address {}", subnet.gateway()))?;
        Ok(index)
    }

    /// Makes a veth pair: `name` in the bridge, its peer `eth0` in the network namespace, with the hardware address of `ip`.
    pub(super) async fn add_veth(
        &self,
        name: &str,
        bridge: u32,
        namespace: BorrowedFd<'_>,
        ip: Ipv4Addr,
    ) -> Result<(), Error> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .address(hardware_address(ip).into())
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(name, "eth0")
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(bridge)
            .build();
        let what = format!("make the veth pair {name} in the bridge");
        let add = || self.0.link().add(pair.clone()).execute();
        match add().await {
            // One of an earlier start is still there: the kernel removes network namespaces some time after their end.
            Err(error) if is_present(&error) => {
                self.remove(name).await?;
                add().await.doing(what)?;
            }
            other => other.doing(what)?,
        }
        let index = self.expect(name).await?;
        self.restrict(name, index, bridge, ip).await?;
        let up = LinkUnspec::new_with_index(index).up().build();
        let what = format!("set {name} up");
        self.0.link().set(up).execute().await.doing(what)
    }

    /// Makes a port of the bridge, which is not up yet, good for its own addresses alone. The kernel takes requests in their
    /// order, so that none has to wait for the answer to another.
    async fn restrict(
        &self,
        name: &str,
        index: u32,
        bridge: u32,
        ip: Ipv4Addr,
    ) -> Result<(), Error> {
        // Processes must not reach each other: isolated ports exchange frames with the bridge alone. Nor be taken for each other:
        // a locked port lets only those hardware addresses in that it was told of, and learns none (Linux 5.18).
        let closed = LinkBridgePort::new(index)
            .isolated(true)
            .learning(false)
            .locked(true)
            .build();
        let links = self.0.link();
        let isolated = links.set_port(closed).execute();
        let own = self
            .0
            .neighbours()
            .add_bridge(index, &hardware_address(ip))
            .state(NeighbourState::Noarp)
            .flags(NeighbourFlags::Controller)
            .replace()
            .execute();
        // What the node knows of the address is not asked of anyone, so that nobody can answer.
        let known = self
            .0
            .neighbours()
            .add(bridge, ip.into())
            .link_layer_address(&hardware_address(ip))
            .replace()
            .execute();
        let (isolated, own, known) = join!(isolated, own, known);
        isolated.doing(format!("isolate {name}"))?;
        own.doing(format!("tell {name} its hardware address"))?;
        known.doing(format!("note the hardware address of {ip}"))
    }

    /// Forgets the hardware address of a process that is gone: what is sent to it fails at once. Absent is fine.
    pub(super) async fn forget(&self, bridge: u32, ip: Ipv4Addr) -> Result<(), Error> {
        let mut entry = self.0.neighbours().add(bridge, ip.into());
        let message = entry.message_mut().clone();
        match self.0.neighbours().del(message).execute().await {
            Err(error) if is_absent(&error) => Ok(()),
            other => other.doing(format!("forget the hardware address of {ip}")),
        }
    }

    /// Removes a link; absent is fine.
    pub(super) async fn remove(&self, name: &str) -> Result<(), Error> {
        let Some(index) = self.index(name).await? else {
            return Ok(());
        };
        match self.0.link().del(index).execute().await {
            Err(error) if is_absent(&error) => Ok(()),
            other => other.doing(format!("remove the link {name}")),
        }
    }

    /// Names of the links that are attached to the bridge.
    pub(super) async fn attached_to(&self, bridge: u32) -> Result<BTreeSet<String>, Error> {
        let links: Vec<LinkMessage> = self
            .0
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .doing("list the node's links")?;
        let attached = links
            .iter()
            .filter(|link| link.attributes.contains(&LinkAttribute::Controller(bridge)));
        Ok(attached.filter_map(name_of).collect())
    }

    /// The index of a link, if it exists.
    pub(super) async fn index(&self, name: &str) -> Result<Option<u32>, Error> {
        let mut found = std::pin::pin!(self.0.link().get().match_name(name).execute());
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error).doing(format!("look for the link {name}")),
        }
    }

    async fn expect(&self, name: &str) -> Result<u32, Error> {
        let index = self.index(name).await?;
        index.ok_or_else(|| Error::Gone(name.to_owned()))
    }

    async fn set_up(&self, name: &str) -> Result<u32, Error> {
        let index = self.expect(name).await?;
        let up = LinkUnspec::new_with_index(index).up().build();
        let what = format!("set the process's {name} up");
        self.0.link().set(up).execute().await.doing(what)?;
        Ok(index)
    }

    /// Inside of a process's namespace: sets `eth0` up, with its address and the way out through the bridge.
    pub(super) async fn configure_container(
        &self,
        ip: Ipv4Addr,
        subnet: Subnet,
    ) -> Result<(), Error> {
        let index = self.set_up("eth0").await?;
        let address = self
            .0
            .address()
            .add(index, ip.into(), subnet.prefix())
            .execute();
        let out = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(subnet.gateway())
            .build();
        let routes = self.0.route();
        let out = routes.add(out).execute();
        let (address, out) = join!(address, out);
        address.doing(format!("give the process the address {ip}"))?;
        out.doing("give the process its default route")
    }
}

/// A locally administered address that follows from the IPv4 address, so that what a neighbour has learned of the address
/// is also true of the next one who has it.
pub(super) fn hardware_address(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, b't', a, b, c, d]
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
}

fn is_absent(error: &NetlinkError) -> bool {
    matches!(error, NetlinkError::NetlinkError(message)
        if matches!(message.to_io().raw_os_error(), Some(nix::libc::ENODEV | nix::libc::ENXIO | nix::libc::ENOENT)))
}

/// Makes a network namespace, with loopback up in it.
pub(super) async fn new_namespace() -> Result<Namespace, Error> {
    let runtime = tokio::runtime::Handle::current();
    let namespace = on_own_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Namespace(errno.into()))?;
        // Before any other link exists in it: no process has an IPv6 address, not even a link-local one to reach the node by.
        // Loopback keeps its own, for who listens on `::` expects to be there at `::1`.
        set_ipv6("default", false)?;
        set_ipv6("lo", true)?;
        let own = std::fs::File::open("/proc/thread-self/ns/net").map_err(Error::Namespace)?;
        // A socket stays in the namespace that it was made in, whoever uses it.
        let _here = runtime.enter();
        Ok(Namespace {
            fd: own.into(),
            links: Links::connect()?,
        })
    })
    .await?;
    namespace.links.set_up("lo").await?;
    Ok(namespace)
}

/// A network namespace belongs to a thread: one that has changed it must not go back to a pool.
async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = thread::Builder::new().name("netns".into());
    thread
        // A result that nobody waits for any more is dropped, and what it holds with it.
        .spawn(move || drop(sender.send(work())))
        .map_err(Error::Namespace)?;
    receiver
        .await
        .map_err(|_| Error::Namespace(std::io::Error::other("its thread ended early")))?
}

fn is_present(error: &NetlinkError) -> bool {
    matches!(error, NetlinkError::NetlinkError(message)
        if message.to_io().raw_os_error() == Some(nix::libc::EEXIST))
}

/// Lets the node forward packets, if it does not yet, and local clients reach processes by 127.0.0.1.
pub(super) fn prepare_node(bridge: &str) -> Result<(), Error> {
    write_sysctl("/proc/sys/net/ipv4/ip_forward", "1")?;
    // Packets from processes to 127.0.0.0/8 are dropped by the rules of the input chain.
    write_sysctl(
        &format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"),
        "1",
    )?;
    set_ipv6(bridge, false)
}

fn set_ipv6(interface: &str, enabled: bool) -> Result<(), Error> {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    match write_sysctl(&path, if enabled { "0" } else { "1" }) {
        // A kernel without IPv6 has nothing to set.
        Err(Error::Sysctl { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

fn write_sysctl(path: &str, value: &str) -> Result<(), Error> {
    let failed = |source| Error::Sysctl {
        path: path.to_owned(),
        source,
    };
    if std::fs::read_to_string(path).map_err(failed)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value).map_err(failed)
}
