//! Settings from the environment.

use std::{env, str::FromStr, thread, time::Duration};

/// A variable's value, or `default` where it is unset or not of the type.
pub fn variable<T: FromStr>(name: &str, default: T) -> T {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// The identity of this process, as set by the runner.
pub fn identity() -> String {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| "-".to_owned());
    format!(
        "service={} revision={} process={} node={}",
        variable("TUCANO_SERVICE"),
        variable("TUCANO_REVISION"),
        variable("TUCANO_PROCESS"),
        variable("TUCANO_NODE"),
    )
}

/// Sleeps: slowness is the purpose of this sample service.
#[allow(
    clippy::disallowed_methods,
    reason = "the delay itself is the service asked for"
)]
pub fn dawdle(time: Duration) {
    thread::sleep(time);
}
