//! Ends TCP sockets of processes whose connection is ended: a client that waits for an answer sends nothing by which it would
//! notice. The encoding is that of include/uapi/linux/inet_diag.h; the kernel needs `CONFIG_INET_DIAG_DESTROY`.

use std::{
    net::SocketAddrV4,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use netlink_packet_core::NLM_F_ACK;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::libc::{AF_INET, ENOENT, EOPNOTSUPP, IPPROTO_TCP};
use rustix::thread::move_into_link_name_space;

use super::{
    elements::Error,
    links,
    namespace::on_own_thread,
    netlink::{Netlink, Request},
};

/// A TCP connection as its process sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Connection {
    /// The process's address and port.
    pub(super) from: SocketAddrV4,
    /// The service's.
    pub(super) to: SocketAddrV4,
}

/// Ends the sockets of connections, each with the network of its process. Sockets that are gone already are no error.
pub(super) async fn end(of_networks: Vec<(Arc<OwnedFd>, Vec<Connection>)>) -> Result<(), String> {
    let ending = on_own_thread(move || {
        let mut networks = of_networks.iter();
        let ended = networks.try_for_each(|(network, connections)| end_in(network, connections));
        Ok::<_, links::Error>(ended.map_err(|error| error.to_string()))
    });
    ending.await.map_err(|error| error.to_string())?
}

/// Moves the calling thread into the network, so it must not be a pool's.
fn end_in(network: &OwnedFd, connections: &[Connection]) -> Result<(), Error> {
    move_into_link_name_space(network.as_fd(), None)
        .map_err(|errno| Error::Socket(errno.into()))?;
    let mut netlink = Netlink::open(NETLINK_SOCK_DIAG).map_err(Error::Socket)?;
    for connection in connections {
        match netlink.execute(&[connection.request()]) {
            Err(error) if !error.is(&[ENOENT, EOPNOTSUPP]) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

impl Connection {
    fn request(&self) -> Request {
        // struct inet_diag_req_v2: family, protocol, extensions, padding, states, then struct inet_diag_sockid.
        let mut body = vec![AF_INET as u8, IPPROTO_TCP as u8, 0, 0];
        body.extend(u32::MAX.to_ne_bytes());
        body.extend(self.from.port().to_be_bytes());
        body.extend(self.to.port().to_be_bytes());
        for end in [self.from, self.to] {
            body.extend(end.ip().octets());
            // The rest of an IPv6 address.
            body.extend([0; 12]);
        }
        let any_interface = 0_u32;
        body.extend(any_interface.to_ne_bytes());
        body.extend([u8::MAX; COOKIE_BYTES]);
        let what = format!("end the connection from {} to {}", self.from, self.to);
        Request::raw(SOCK_DESTROY, NLM_F_ACK, body, what)
    }
}

const SOCK_DESTROY: u16 = 21;
/// With all bits set, any socket with these ends is meant (`INET_DIAG_NOCOOKIE`).
const COOKIE_BYTES: usize = 8;
