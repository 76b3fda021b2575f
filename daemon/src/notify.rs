//! What the programs tell the service manager (sd_notify(3)): that they are ready, what they do, that they are alive.
//!
//! Without a service manager that listens (`NOTIFY_SOCKET`), nothing happens.

use std::{fmt::Display, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// Beats within the time that the service manager waits for one: it advises two; a third allows for a late one.
const BEATS: u32 = 3;
/// Pause between two looks at the status where nobody waits for beats.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// The program has started, or has taken its new configuration.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The program reads its configuration anew; [`ready`] tells when it is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager is not told of the reload"),
    }
}

/// The program ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells again and again that the program is alive, and its status, until the future is dropped. `look` must go through
/// whatever the program would be dead without: as long as it does not return, nothing is told, and the service manager
/// restarts the program (`WatchdogSec=`). Once it returns `None`, that is so for good.
pub async fn beat<S: Display>(mut look: impl AsyncFnMut() -> Option<S>) {
    let watchdog = sd_notify::watchdog_enabled();
    let period = watchdog.map_or(STATUS_INTERVAL, |patience| patience / BEATS);
    let mut ticks = interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        ticks.tick().await;
        let Some(status) = look().await else {
            return std::future::pending().await;
        };
        let status = status.to_string();
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        if watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
