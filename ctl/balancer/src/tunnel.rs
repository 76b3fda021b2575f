//! A tunnel after an upgrade: copies bytes in both directions until both sides have closed.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::{Instant, sleep_until},
};
use tracing::debug;

use crate::{
    metrics,
    plane::DataPlane,
    upstream::{self, health::uptime},
};

const BUFFER_BYTES: usize = 16 * 1024;

/// Copies bytes between a client and a process once both have switched protocols. It is counted in the service's metrics
/// and as in flight to the process.
pub fn start(
    plane: &Arc<DataPlane>,
    client: OnUpgrade,
    process: OnUpgrade,
    counted: (metrics::InFlight, upstream::InFlight),
) {
    let idle_timeout = plane.limits.tunnel_idle_timeout;
    plane.tunnels.spawn(async move {
        let _counted = counted;
        let (client, process) = match tokio::try_join!(client, process) {
            Ok(both) => both,
            Err(error) => {
                debug!(%error, "an upgrade was not completed");
                return;
            }
        };
        if let Err(error) = relay(TokioIo::new(client), TokioIo::new(process), idle_timeout).await {
            debug!(%error, "a tunnel broke");
        }
    });
}

/// Returns when both directions have ended, when one fails, or after `idle_timeout` without a byte.
async fn relay<A, B>(client: A, process: B, idle_timeout: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_read, client_write) = split(client);
    let (process_read, process_write) = split(process);
    let activity = Activity::default();
    let up = copy(client_read, process_write, &activity);
    let down = copy(process_read, client_write, &activity);
    tokio::select! {
        moved = async { tokio::try_join!(up, down) } => moved.map(|_| ()),
        () = activity.until_idle(idle_timeout) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let len = from.read(&mut buffer).await?;
        activity.note();
        if len == 0 {
            // The other direction stays open: some protocols rely on half-closed connections.
            return to.shutdown().await;
        }
        to.write_all(&buffer[..len]).await?;
        to.flush().await?;
        activity.note();
    }
}

/// When a tunnel last carried a byte.
#[derive(Debug)]
struct Activity(AtomicU64);

impl Default for Activity {
    fn default() -> Self {
        let activity = Self(AtomicU64::new(0));
        activity.note();
        activity
    }
}

impl Activity {
    fn note(&self) {
        self.0.store(now_ms(), Relaxed);
    }

    async fn until_idle(&self, timeout: Duration) {
        loop {
            let idle = Duration::from_millis(now_ms().saturating_sub(self.0.load(Relaxed)));
            let Some(left) = timeout.checked_sub(idle).filter(|left| !left.is_zero()) else {
                return;
            };
            sleep_until(Instant::now() + left).await;
        }
    }
}

fn now_ms() -> u64 {
    u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX)
}
