//! A proxy that cuts connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Hands on to one address, and cuts each connection after so many bytes in one direction, as often as it is told to.
pub(crate) struct BreakingProxy {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    cuts_left: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

/// In which direction bytes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl BreakingProxy {
    pub(crate) async fn start(to: SocketAddr, cuts: u64, at: u64, direction: Direction) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        counts.cuts_left.store(cuts, Relaxed);
        let shared = counts.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let counts = shared.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(to).await {
                        hand_on(client, server, &counts, at, direction).await;
                    }
                });
            }
        });
        Self {
            address,
            counts,
            task,
        }
    }

    pub(crate) fn cuts_left(&self) -> u64 {
        self.counts.cuts_left.load(Relaxed)
    }

    /// Bytes that came from clients.
    pub(crate) fn up(&self) -> u64 {
        self.counts.up.load(Relaxed)
    }

    /// Bytes that went to clients.
    pub(crate) fn down(&self) -> u64 {
        self.counts.down.load(Relaxed)
    }
}

impl Drop for BreakingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Both ways, until one side ends or the connection is cut: then both are dropped.
async fn hand_on(
    mut client: TcpStream,
    mut server: TcpStream,
    counts: &Counts,
    at: u64,
    direction: Direction,
) {
    let (mut from_client, mut from_server) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    let mut counted = 0;
    loop {
        let (way, read) = tokio::select! {
            read = client.read(&mut from_client) => (Direction::Up, read),
            read = server.read(&mut from_server) => (Direction::Down, read),
        };
        let Ok(read @ 1..) = read else {
            return;
        };
        let (total, to, bytes) = match way {
            Direction::Up => (&counts.up, &mut server, &from_client[..read]),
            Direction::Down => (&counts.down, &mut client, &from_server[..read]),
        };
        total.fetch_add(read as u64, Relaxed);
        if to.write_all(bytes).await.is_err() {
            return;
        }
        counted += if way == direction { read as u64 } else { 0 };
        let one_less = |left: u64| left.checked_sub(1);
        if counted > at
            && counts
                .cuts_left
                .fetch_update(Relaxed, Relaxed, one_less)
                .is_ok()
        {
            return;
        }
    }
}
