//! Waiting until a development cluster works, and telling what to do with it.

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
/// A controller that has ended this often will not come up.
const STARTS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the controller answers and every worker reports.
pub(super) async fn wait(
    client: &Client,
    cluster: &Cluster,
    directory: &Directory,
) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
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
                format!(
                    "no report from {}: {}",
                    missing.join(", "),
                    last_words(&log)
                )
            }
            Err(_) => format!(
                "the controller does not come up: {}",
                last_words(&directory.log_of("ctld"))
            ),
        };
        if Instant::now() >= deadline || cluster.controller_starts() > STARTS {
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

/// The last line of a log, which mostly says why a program ended, and where there is more.
fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let last = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing");
    format!("{last} (see {})", log.display())
}

/// What to try once it works.
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
        format!("\n  kill -9 {pid:<22} # {name} loses its power, and comes back after a while")
    });
    format!(
        "\n\
         Tucano is up: a controller and {} on this machine.\n  \
         API       http://{api}\n  \
         balancer  http://{balancer} (a service answers at http://<name>.localhost:{}/)\n  \
         data      {} (logs/ holds what each program says)\n\n\
         Try, in another terminal:\n  \
         {tucano} nodes\n  \
         {tucano} deploy hello.toml\n  \
         {tucano} ps{}\n\n\
         Ctrl-C ends it, and everything in it.",
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
    fn the_last_words_of_a_log_are_its_last_line_that_says_something() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("ctld.log");
        assert!(last_words(&log).starts_with("it said nothing"));
        fs::write(&log, "starting\nctl.toml:3:1: unknown key\n\n").unwrap();
        assert!(last_words(&log).starts_with("ctl.toml:3:1: unknown key (see "));
    }

    #[test]
    fn one_worker_is_not_many() {
        assert_eq!([count(1), count(3)], ["1 worker", "3 workers"]);
    }
}
