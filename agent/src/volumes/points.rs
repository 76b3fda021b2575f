//! Points at which tests kill the agent.

/// The variable that names the point at which an agent of a debug build kills itself.
#[cfg(debug_assertions)]
const VARIABLE: &str = "TUCANO_TEST_KILL_AT";

/// Kills this agent if a test wants that here.
pub(crate) fn reached(point: &str) {
    #[cfg(debug_assertions)]
    if std::env::var(VARIABLE).is_ok_and(|wanted| wanted == point) {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::KILL).ok();
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
}
