//! The wire itself: which connections are TLS, and what they cost.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tucano_testkit::{needs, tool};
use tucano_tests::{CLUSTER, Cluster, cluster::TOKEN, images, user::connect};

use super::{HELLO, curl, presented, small, text};

#[test]
fn all_traffic_between_machines_is_encrypted() {
    if !needs(&CLUSTER) || !needs(&[tool("openssl")]) {
        return;
    }
    let cluster = Cluster::start(&small());
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    let (ctl, w1) = (cluster.ctl().ip(), cluster.worker(0).ip());
    // A plain request is answered with advice only.
    for place in [
        format!("{ctl}:7070/v1/state"),
        format!("{w1}:7071/v1/identity"),
    ] {
        let refused = text(&curl(&cluster, &[&format!("http://{place}")]).stdout);
        assert!(
            refused.contains("use https://")
                && refused.contains("tls = \\\"off\\\"")
                && refused.ends_with("\n400"),
            "{place}: {refused}"
        );
    }
    // Without a copy of the authority's certificate, the client's own tools say so.
    let api = cluster.api();
    let stranger = curl(&cluster, &[&format!("{api}/v1/state")]);
    assert_eq!(stranger.status.code(), Some(60), "{stranger:?}");
    let ca_file = cluster.ca_file().display().to_string();
    let known = curl(
        &cluster,
        &["--cacert", &ca_file, &format!("{api}/v1/state")],
    );
    assert!(text(&known.stdout).ends_with("\n200"), "{known:?}");
    // Certificates are for who presents them.
    let agents = presented(&cluster, &format!("{w1}:7071"));
    assert!(agents.contains(&format!("IP Address:{w1}\n")), "{agents}");
    assert!(!agents.contains(&ctl.to_string()), "{agents}");
    assert!(
        agents.contains("CA:FALSE") || !agents.contains("CA:TRUE"),
        "{agents}"
    );
    let controllers = presented(&cluster, &format!("{ctl}:7070"));
    assert!(
        controllers.contains(&format!("IP Address:{ctl}")) && controllers.contains("DNS:localhost"),
        "{controllers}"
    );
    // On loopback all is as it was: no certificate, and both ways.
    let agent = cluster.output_on(0, "curl", &["-sS", "http://127.0.0.1:7071/healthz"]);
    assert_eq!(agent, "ok\n");
    for key in ["ctl/tls/ca-key.pem", "w1-data/tls/key.pem"] {
        let mode = fs::metadata(cluster.path(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let logs = cluster.logs();
    assert!(
        !logs.contains("PRIVATE KEY") && !logs.contains(TOKEN),
        "{logs}"
    );
}

#[test]
fn silent_and_malformed_clients_do_not_block_others() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut options = small();
    options.ctl_settings.insert_str(
        0,
        "limits = { connections = 40, header_timeout = \"2s\" }\n",
    );
    let cluster = Cluster::start(&options);
    let ca = fs::read(cluster.ca_file()).unwrap();
    for address in [(cluster.ctl().ip(), 7070), (cluster.worker(0).ip(), 7071)] {
        let address = SocketAddr::new(address.0.into(), address.1);
        let ca = ca.clone();
        let served = cluster.user().run(async move {
            let mut silent = Vec::new();
            for n in 0..120_u8 {
                let mut stream = TcpStream::connect(address).await?;
                // Nothing, a begun handshake, and garbage.
                match n % 3 {
                    0 => {}
                    1 => stream.write_all(&[0x16, 3, 1]).await?,
                    _ => stream.write_all(&[0x16, 0xff, 0xff, 0xff, 0xff, n]).await?,
                }
                silent.push(stream);
            }
            let mut good = connect(&ca, address).await?;
            good.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .await?;
            let mut said = Vec::new();
            good.read_to_end(&mut said).await?;
            std::io::Result::Ok(text(&said))
        });
        let served = served.unwrap();
        assert!(served.starts_with("HTTP/1.1 200"), "{address}: {served}");
    }
    // The agents' reports arrived all the time.
    cluster.wait_for_alive(2);
}

#[test]
fn reports_do_not_shake_hands_each_time() {
    if !needs(&CLUSTER) || !needs(&[tool("ss")]) {
        return;
    }
    let mut options = small();
    options.agent_settings = "publish_interval = \"100ms\"\n".to_owned();
    let cluster = Cluster::start(&options);
    let ports = || {
        let filter = format!("dst {}:7070", cluster.ctl().ip());
        let listed = cluster.output_on(0, "ss", &["-Htn", "state", "established", &filter]);
        let mut ports: Vec<String> = listed
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned))
            .collect();
        ports.sort();
        ports
    };
    let before = cluster.wait("a connection of the agent's", || {
        let ports = ports();
        (ports.len() == 1).then_some(ports)
    });
    let started = cluster.state().unwrap();
    cluster.wait("many more reports", || {
        let now = cluster.state()?;
        let passed = |state: &tucano_api::state::State| {
            state
                .alive_nodes
                .iter()
                .map(|node| node.reported_at.0)
                .min()
        };
        (passed(&now)? > passed(&started)? + 2000).then_some(())
    });
    assert_eq!(ports(), before);
}
