//! Named ports of processes.

use std::{net::Ipv4Addr, time::Duration};

use tucano_api::{agent::ProcessReport, ids::PortName};

use crate::node::{on_a_node, process};

/// The node's port for a named port of a process.
fn node_port(process: &ProcessReport, name: &str) -> u16 {
    let name: PortName = name.parse().unwrap();
    process.ports[&name]
}

/// The answer to a datagram; sent again until it comes, since datagrams may be lost.
async fn ask(port: u16) -> String {
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let mut answer = [0; 1500];
    loop {
        socket.send(b"who?").await.unwrap();
        let received = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut answer)).await;
        if let Ok(Ok(length)) = received {
            return String::from_utf8(answer[..length].to_vec()).unwrap();
        }
    }
}

#[test]
fn every_named_port_is_reached_through_a_port_of_the_node_also_after_a_restart_of_the_agent() {
    on_a_node("", async |mut node| {
        let service = "env = { UDP_PORT = \"53\" }\n[ports]\nmetrics = { port = 8080, protocol = \"tcp\" }\n\
                       dns = { port = 53, protocol = \"udp\" }";
        let mut wanted = process("hello", 1, "");
        let text =
            format!("name = \"hello\"\nconcurrency = 1\nuser = \"0\"\ncaps = \"web\"\n{service}");
        wanted.config = tucano_api::settings::parse("service.toml", &text).unwrap();
        node.desire(1, vec![wanted.clone()]).await;
        let first = node.wait_until_healthy("hello-1").await;
        assert_eq!(
            first.node_port,
            Some(node_port(&first, "metrics")),
            "the main port is one with TCP"
        );
        let answer = node.get(&first, "/").await.unwrap();
        assert!(answer.contains("process=hello-1 "), "{answer}");
        assert!(
            ask(node_port(&first, "dns"))
                .await
                .contains("process=hello-1 ")
        );
        node.kill_agent();
        node.start_agent().await;
        node.desire(2, vec![wanted]).await;
        let again = node.wait_until_healthy("hello-1").await;
        assert_eq!((again.restarts, &again.ports), (0, &first.ports));
        assert!(
            ask(node_port(&again, "dns"))
                .await
                .contains("process=hello-1 ")
        );
        node.remove_all(3).await;
    });
}

#[test]
fn a_process_without_ports_is_healthy_while_it_runs() {
    on_a_node("", async |node| {
        let mut wanted = process("hello", 1, "");
        wanted.config.port = None;
        node.desire(1, vec![wanted]).await;
        let running = node.wait_until_healthy("hello-1").await;
        assert!(running.ports.is_empty());
        node.remove_all(2).await;
    });
}
