//! A listener whose connections go through a [`Door`], side by side: one that says nothing holds nobody else up.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{Door, Stream};

/// Pause when no connection can be accepted, such as for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Bounds on those who have not said anything yet.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most of them; then whoever has been silent for the longest time makes room.
    pub waiting: usize,
    /// Longest time until a handshake is done, or a plain request begins.
    pub patience: Duration,
}

/// Connections that were let in.
#[derive(Debug)]
pub struct Incoming {
    entered: mpsc::Receiver<(Stream, SocketAddr)>,
    /// Ends what waits at the door, with this.
    _accepting: JoinSet<()>,
}

impl Incoming {
    /// Begins to accept.
    pub fn new(listener: TcpListener, door: Door, bounds: Bounds) -> Self {
        let (enter, entered) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept_all(listener, door, bounds, enter));
        Self {
            entered,
            _accepting: accepting,
        }
    }

    /// The next one.
    pub async fn next(&mut self) -> (Stream, SocketAddr) {
        match self.entered.recv().await {
            Some(entered) => entered,
            // Only while everything ends.
            None => std::future::pending().await,
        }
    }
}

async fn accept_all(
    listener: TcpListener,
    door: Door,
    bounds: Bounds,
    enter: mpsc::Sender<(Stream, SocketAddr)>,
) {
    let mut at_the_door = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    oldest_first.retain(|one| !one.is_finished());
                    if oldest_first.len() >= bounds.waiting && let Some(oldest) = oldest_first.pop_front() {
                        oldest.abort();
                    }
                    let pass = pass(door.clone(), stream, from, bounds.patience, enter.clone());
                    oldest_first.push_back(at_the_door.spawn(pass));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = at_the_door.join_next() => {}
        }
    }
}

async fn pass(
    door: Door,
    stream: TcpStream,
    from: SocketAddr,
    patience: Duration,
    enter: mpsc::Sender<(Stream, SocketAddr)>,
) {
    // Answers are small and awaited.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    match timeout(patience, door.enter(stream)).await {
        Ok(Ok(stream)) => drop(enter.send((stream, from)).await),
        Ok(Err(error)) => tracing::debug!(%from, %error, "a connection was not let in"),
        Err(_) => tracing::debug!(%from, "a connection said nothing in time"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::Plain;

    async fn incoming(bounds: Bounds) -> (Incoming, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::new(Arc::default(), Plain::OnLoopback, "x").unwrap();
        (Incoming::new(listener, door, bounds), address)
    }

    #[tokio::test]
    async fn the_silent_hold_nobody_up_and_the_longest_silent_makes_room() {
        let bounds = Bounds {
            waiting: 4,
            patience: Duration::from_secs(600),
        };
        let (mut incoming, address) = incoming(bounds).await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut good = TcpStream::connect(address).await.unwrap();
        good.write_all(b"G").await.unwrap();
        let (mut stream, from) = incoming.next().await;
        assert_eq!(from, good.local_addr().unwrap());
        assert_eq!(stream.read_u8().await.unwrap(), b'G');
        // The first was let go.
        let mut nothing = Vec::new();
        let ended = silent[0].read_to_end(&mut nothing).await;
        assert!(ended.is_err() || nothing.is_empty());
    }

    #[tokio::test]
    async fn silence_ends() {
        let bounds = Bounds {
            waiting: 4,
            patience: Duration::from_millis(50),
        };
        let (_incoming, address) = incoming(bounds).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut nothing = Vec::new();
        let ended = silent.read_to_end(&mut nothing).await;
        assert!(ended.is_err() || nothing.is_empty());
    }
}
