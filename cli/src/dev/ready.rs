//! Waits until a development cluster works, and prints what to try.

use std::{
    env, fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use tucano_api::state::State;

use super::{cluster::Cluster, directory::Directory};
use crate::{Error, client::Client};

const INTERVAL: Duration = Duration::from_millis(100);
/// After this many starts the controller is given up.
const MAX_STARTS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until the controller answers and every worker reports.
pub(super) async fn wait(
    client: &Client,
    cluster: &Cluster,
    directory: &Directory,
) -> Result<(), Error> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let last = match client.get::<State>("/v1/state").await {
            Ok(state) if state.alive_nodes.len() == cluster.workers.len() => return Ok(()),
            Ok(state) => {
                let missing = cluster
                    .workers
                    .iter()
                    .map(tucano_vhost::Host::name)
                    .filter(|name| !is_alive(&state, name));
                let missing: Vec<&str> = missing.collect();
                let log = directory.log_of(missing.first().unwrap_or(&"ctld"));
                format!("no report from {}: {}", missing.join(", "), last_line(&log))
            }
            Err(_) => format!(
                "the controller does not start: {}",
                last_line(&directory.log_of("ctld"))
            ),
        };
        if Instant::now() >= deadline || cluster.controller_starts() > MAX_STARTS {
            return Err(Error::Dev(last));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn is_alive(state: &State, name: &str) -> bool {
    state
        .alive_nodes
        .iter()
        .any(|node| node.name.as_str() == name)
}

/// The last line of a log, which usually says why a program ended, and the path of the log.
fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let last = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("its log is empty");
    format!("{last} (see {})", log.display())
}

/// What to try once the cluster works.
pub(super) fn guide(
    cluster: &Cluster,
    directory: &Directory,
    (api, balancer): (SocketAddr, SocketAddr),
) -> String {
    let tucano = env::args().next().unwrap_or_else(|| "tucano".to_owned());
    let tucano = match api.to_string().as_str() {
        "127.0.0.1:7070" => tucano,
        api => format!("{tucano} --api {api}"),
    };
    let lose = cluster
        .workers
        .last()
        .and_then(|worker| Some((worker.pid().ok()?, worker.name())));
    let lose = lose.map(|(pid, name)| {
        format!("\n  kill -9 {pid:<22} # {name} loses power, and is booted again after 10 seconds")
    });
    format!(
        "\n\
         Tucano is up: a controller and {} on this machine.\n  \
         API       http://{api}\n  \
         balancer  http://{balancer} (a service answers at http://<name>.localhost:{}/)\n  \
         data      {} (logs/ holds the log of each program)\n\n\
         Try, in another terminal:\n  \
         {tucano} nodes\n  \
         {tucano} deploy hello.toml\n  \
         {tucano} ps{}\n\n\
         Ctrl-C ends the cluster, and everything in it.",
        count(cluster.workers.len()),
        balancer.port(),
        directory.path().display(),
        lose.unwrap_or_default()
    )
}

fn count(workers: usize) -> String {
    let plural = if workers == 1 { "" } else { "s" };
    format!("{workers} worker{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_log_that_is_not_blank_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("ctld.log");
        assert!(last_line(&log).starts_with("its log is empty"));
        fs::write(&log, "starting\nctl.toml:3:1: unknown key\n\n").unwrap();
        assert!(last_line(&log).starts_with("ctl.toml:3:1: unknown key (see "));
    }

    #[test]
    fn the_plural_is_used_for_several_workers() {
        assert_eq!([count(1), count(3)], ["1 worker", "3 workers"]);
    }
}
