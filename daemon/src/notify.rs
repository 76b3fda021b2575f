//! Service manager notifications (sd_notify(3)): ready, status, watchdog, stopping.
//!
//! Without `NOTIFY_SOCKET` they do nothing.

use std::{fmt::Display, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// Watchdog pings per `WatchdogSec=`: sd_watchdog_enabled(3) advises two; a third tolerates a late one.
const WATCHDOG_PINGS: u32 = 3;
/// Interval of status updates without a watchdog.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// The daemon has started, or has finished reloading.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The daemon reloads its configuration; [`ready`] ends the reload.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "cannot notify the service manager of the reload"),
    }
}

/// The daemon shuts down.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Sends watchdog pings and the status until the future is dropped. `health` must exercise what the daemon cannot work
/// without: while it does not return, no ping is sent, and the service manager restarts the daemon (`WatchdogSec=`). Once
/// it returns `None`, pings stop for good.
pub async fn run_watchdog<S: Display>(mut health: impl AsyncFnMut() -> Option<S>) {
    let watchdog = sd_notify::watchdog_enabled();
    let period = watchdog.map_or(STATUS_INTERVAL, |timeout| timeout / WATCHDOG_PINGS);
    let mut ticks = interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = String::new();
    loop {
        ticks.tick().await;
        let Some(status) = health().await else {
            return std::future::pending().await;
        };
        let status = status.to_string();
        if status != sent {
            send(&[NotifyState::Status(&status)]);
            sent = status;
        }
        if watchdog.is_some() {
            send(&[NotifyState::Watchdog]);
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
