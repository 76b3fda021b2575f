//! What processes are kept from, as the controller tells it: where it and the agents take orders.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddrV4},
    sync::Arc,
};

use tucano_api::{
    AGENT_PORT,
    agent::{ApiAddress, Apis},
};

use crate::runner::{execute::Executor, network, state};

/// Why they are not kept from them.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    Network(#[from] network::Error),
    #[error("the task that keeps them on disk failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Keeps processes from these, and the next agent's from its start on.
pub(super) async fn keep_from(executor: &Arc<Executor>, wanted: &Apis) -> Result<(), Error> {
    let wanted = wanted.addresses.clone();
    let keeper = Arc::clone(executor);
    let apis = tokio::task::spawn_blocking(move || {
        let apis = complete(&wanted, &keeper.data.apis().unwrap_or_default());
        keeper.data.keep_apis(&apis).map(|()| apis)
    });
    Ok(executor.network.keep_from(apis.await??).await?)
}

/// Processes have IPv4 alone. Where an agent's port is not known, it is what it was, or else the usual one.
fn complete(wanted: &[ApiAddress], before: &BTreeSet<SocketAddrV4>) -> BTreeSet<SocketAddrV4> {
    let mut all = BTreeSet::new();
    for ApiAddress { ip, port } in wanted {
        let IpAddr::V4(ip) = ip.to_canonical() else {
            continue;
        };
        match port {
            Some(port) => drop(all.insert(SocketAddrV4::new(ip, *port))),
            None => {
                all.insert(SocketAddrV4::new(ip, AGENT_PORT));
                all.extend(before.iter().filter(|address| *address.ip() == ip));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_not_known_is_what_it_was_or_the_usual_one() {
        let wanted = [
            ("10.0.0.1", Some(7070)),
            ("10.0.0.2", None),
            ("10.0.0.3", Some(9000)),
            ("::ffff:10.0.0.4", Some(7071)),
            ("fd00::1", Some(7071)),
        ];
        let wanted = wanted.map(|(ip, port)| ApiAddress {
            ip: ip.parse().unwrap(),
            port,
        });
        let before =
            BTreeSet::from(["10.0.0.2:8000", "10.0.0.3:8000"].map(|it| it.parse().unwrap()));
        let all: Vec<_> = complete(&wanted, &before)
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected = [
            "10.0.0.1:7070",
            "10.0.0.2:7071",
            "10.0.0.2:8000",
            "10.0.0.3:9000",
            "10.0.0.4:7071",
        ];
        assert_eq!(all, expected);
    }
}
