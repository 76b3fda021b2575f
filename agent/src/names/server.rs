//! The name server of processes, at the bridge's address: over UDP and TCP, without address translation. The source address of a
//! query identifies the process that sent it; processes cannot forge it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    answer::{self, Decision},
    forward::{self, Over},
};
use crate::runner::{execute::Executor, resolver::Resolver};

const PORT: u16 = 53;
/// Pause after the sockets could not be opened.
const RETRY: Duration = Duration::from_secs(2);
/// Look-ups that are forwarded at once, of all processes and of one.
const MAX_FORWARDED: usize = 512;
const MAX_FORWARDED_EACH: usize = 64;
/// TCP connections at once, of all processes and of one.
const MAX_CONNECTIONS: usize = 256;
const MAX_CONNECTIONS_EACH: usize = 16;
/// How long a TCP connection may be idle.
const IDLE: Duration = Duration::from_secs(10);
/// How long the node's list of name servers is used before it is read again.
const SERVERS_FOR: Duration = Duration::from_secs(1);

/// The name server.
#[derive(Debug)]
pub struct NameServer {
    executor: Arc<Executor>,
    forwarded: Slots,
    connections: Slots,
    servers: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

/// Bounds concurrency, of all and of each.
#[derive(Debug)]
struct Slots {
    all: Semaphore,
    most_each: usize,
    each: Mutex<HashMap<Ipv4Addr, usize>>,
}

impl NameServer {
    /// Answers for this node's processes.
    pub fn new(executor: Arc<Executor>) -> Arc<Self> {
        Arc::new(Self {
            executor,
            forwarded: Slots::new(MAX_FORWARDED, MAX_FORWARDED_EACH),
            connections: Slots::new(MAX_CONNECTIONS, MAX_CONNECTIONS_EACH),
            servers: Mutex::default(),
        })
    }

    /// Answers until the future is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut last_failure = None;
        loop {
            let address = SocketAddrV4::new(self.executor.network.gateway(), PORT);
            let failure = match self.serve(address).await {
                Ok(never) => match never {},
                Err(error) => error.to_string(),
            };
            if last_failure.as_ref() != Some(&failure) {
                tracing::warn!(%address, failure, "cannot answer look-ups of processes");
            }
            let message = format!(
                "the name server of processes cannot listen on {address}: {failure}. Another name server that listens on every \
                 address has to leave this one out; until then services with `needs` are not started here"
            );
            self.executor.resolver.not_served(message);
            last_failure = Some(failure);
            sleep(RETRY).await;
        }
    }

    async fn serve(
        self: &Arc<Self>,
        address: SocketAddrV4,
    ) -> std::io::Result<std::convert::Infallible> {
        let udp: std::net::UdpSocket = open(SocketType::DGRAM, address)?.into();
        let tcp: std::net::TcpListener = open(SocketType::STREAM, address)?.into();
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        self.executor.resolver.served_at(*address.ip());
        tokio::select! {
            ended = self.serve_udp(Arc::new(udp)) => ended,
            ended = self.serve_tcp(tcp) => ended,
        }
    }

    async fn serve_udp(
        self: &Arc<Self>,
        socket: Arc<UdpSocket>,
    ) -> std::io::Result<std::convert::Infallible> {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // Of an earlier answer that could not be delivered.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let SocketAddr::V4(from) = from else {
                continue;
            };
            let question = &buffer[..length];
            match self.decide(question, *from.ip()) {
                Decision::Ignore => {}
                Decision::Answer(message) => {
                    let limit = answer::udp_limit(question);
                    if let Some(bytes) = answer::encode(&message, limit) {
                        send(&socket, &bytes, from).await;
                    }
                }
                Decision::Forward => self.forward_udp(&socket, question.to_vec(), from),
            }
        }
    }

    /// A look-up beyond the bounds is dropped: its client asks again.
    fn forward_udp(
        self: &Arc<Self>,
        socket: &Arc<UdpSocket>,
        question: Vec<u8>,
        from: SocketAddrV4,
    ) {
        let (server, socket) = (Arc::clone(self), Arc::clone(socket));
        tokio::spawn(async move {
            let Some(_slot) = server.forwarded.take(*from.ip()) else {
                return;
            };
            if let Some(bytes) = server.forward(Over::Udp, &question).await {
                send(&socket, &bytes, from).await;
            }
        });
    }

    async fn serve_tcp(
        self: &Arc<Self>,
        listener: TcpListener,
    ) -> std::io::Result<std::convert::Infallible> {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection to the name server");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let SocketAddr::V4(from) = from else {
                continue;
            };
            let server = Arc::clone(self);
            tokio::spawn(async move {
                if let Some(_slot) = server.connections.take(*from.ip()) {
                    server.converse(stream, *from.ip()).await;
                }
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream, from: Ipv4Addr) {
        while let Ok(Ok(question)) = timeout(IDLE, forward::read_message(&mut stream)).await {
            let bytes = match self.decide(&question, from) {
                Decision::Ignore => None,
                Decision::Answer(message) => answer::encode(&message, u16::MAX.into()),
                Decision::Forward => match self.forwarded.take(from) {
                    Some(_slot) => self.forward(Over::Tcp, &question).await,
                    None => None,
                },
            };
            let Some(bytes) = bytes else {
                return;
            };
            if !matches!(
                timeout(IDLE, forward::write_message(&mut stream, &bytes)).await,
                Ok(Ok(()))
            ) {
                return;
            }
        }
    }

    fn decide(&self, question: &[u8], from: Ipv4Addr) -> Decision {
        let network = &self.executor.network;
        answer::decide(question, &network.visible(from), network.service_subnet())
    }

    async fn forward(&self, over: Over, question: &[u8]) -> Option<Vec<u8>> {
        let servers = self.upstreams().await;
        let answered = forward::ask(&servers, over, question).await;
        answered.or_else(|| answer::failure(question))
    }

    /// The node's name servers, as they are now.
    async fn upstreams(&self) -> Vec<IpAddr> {
        let lock = || self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_at, servers)) = lock().as_ref()
            && read_at.elapsed() < SERVERS_FOR
        {
            return servers.clone();
        }
        let resolver: Resolver = self.executor.resolver.clone();
        let read = tokio::task::spawn_blocking(move || resolver.upstreams()).await;
        let servers = read.unwrap_or_default();
        *lock() = Some((Instant::now(), servers.clone()));
        servers
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddrV4) {
    if let Err(error) = socket.send_to(bytes, to).await {
        tracing::debug!(%to, %error, "cannot answer a look-up");
    }
}

/// A socket at the bridge's address, which need not exist yet: the bridge comes with the first process.
fn open(kind: SocketType, address: SocketAddrV4) -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
    sockopt::set_ip_freebind(&socket, true)?;
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        listen(&socket, 128)?;
    }
    Ok(socket)
}

/// One of the slots, until it is dropped.
struct Slot<'a> {
    slots: &'a Slots,
    of: Ipv4Addr,
    _one: tokio::sync::SemaphorePermit<'a>,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut each = self
            .slots
            .each
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = each.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                each.remove(&self.of);
            }
        }
    }
}

impl Slots {
    fn new(all: usize, most_each: usize) -> Self {
        Self {
            all: Semaphore::new(all),
            most_each,
            each: Mutex::default(),
        }
    }

    fn take(&self, of: Ipv4Addr) -> Option<Slot<'_>> {
        let one = self.all.try_acquire().ok()?;
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        let count = each.entry(of).or_default();
        if *count == self.most_each {
            return None;
        }
        *count += 1;
        Some(Slot {
            slots: self,
            of,
            _one: one,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_cannot_take_what_all_have() {
        let slots = Slots::new(3, 2);
        let (one, other) = ([172, 31, 0, 2].into(), [172, 31, 0, 3].into());
        let first = slots.take(one).unwrap();
        let second = slots.take(one).unwrap();
        assert!(slots.take(one).is_none());
        let third = slots.take(other).unwrap();
        assert!(slots.take(other).is_none(), "all are taken");
        drop((first, second));
        assert!(slots.take(one).is_some());
        drop(third);
        assert!(slots.each.lock().unwrap().is_empty());
    }
}
