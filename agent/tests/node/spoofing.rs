//! Spoofed addresses. Containers cannot send such frames (no CAP_NET_ADMIN, no packet sockets), so the node's root does it in
//! their network namespaces.

use std::{net::UdpSocket, sync::mpsc};

use nix::sched::{CloneFlags, unshare};

use crate::node::{Node, PATIENCE, in_network_of, on_a_node, output, process};

/// A machine outside of the node that receives datagrams.
struct Beyond {
    socket: UdpSocket,
}

const ADDRESS: &str = "10.99.0.2";

impl Beyond {
    /// Connects it to the network namespace of this thread.
    fn connect() -> Self {
        let (made, namespace) = mpsc::channel();
        let (go, done) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
            made.send((nix::unistd::gettid().as_raw(), socket)).unwrap();
            // The thread keeps the namespace until the socket and the link do.
            done.recv().ok();
        });
        let (thread_id, socket) = namespace.recv().unwrap();
        let namespace = format!("/proc/{}/task/{thread_id}/ns/net", std::process::id());
        let pair = format!("link add out0 type veth peer name out1 netns {thread_id}");
        let inside = format!("--net={namespace} ip");
        for (program, arguments) in [
            ("ip", pair.as_str()),
            ("ip", "address add 10.99.0.1/24 dev out0"),
            ("ip", "link set out0 up"),
            (
                "nsenter",
                &format!("{inside} address add {ADDRESS}/24 dev out1"),
            ),
            ("nsenter", &format!("{inside} link set out1 up")),
        ] {
            let arguments: Vec<_> = arguments.split(' ').collect();
            assert_eq!(output(program, &arguments), "", "{program} {arguments:?}");
        }
        drop(go);
        thread.join().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    fn received(&self) -> String {
        let mut text = [0; 64];
        let length = self.socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    }
}

/// Sends one datagram out of a process's network namespace.
fn send(node: &Node, id: &str, text: &str) {
    let script = format!("echo {text} > /dev/udp/{ADDRESS}/9");
    in_network_of(node, id, &["bash", "-c", &script]);
}

/// Changes a process's network, which its container could not.
fn ip(node: &Node, id: &str, arguments: &str) {
    let script = format!("ip {arguments} && echo done");
    let said = in_network_of(node, id, &["bash", "-c", &script]);
    assert_eq!(said, "done\n", "{arguments}");
}

/// Sends from this IP address and this hardware address.
fn send_as(node: &Node, address: &str, hardware: &str, text: &str) {
    let id = "hello-1";
    ip(node, id, &format!("link set eth0 address {hardware}"));
    let route = format!("route replace default via 172.31.0.1 dev eth0 src {address}");
    ip(node, id, &route);
    let chosen = in_network_of(node, id, &["ip", "route", "get", ADDRESS]);
    assert!(chosen.contains(&format!("src {address} ")), "{chosen}");
    // The kernel sends an ARP request for the gateway from that address, as in ARP poisoning.
    ip(node, id, "neigh flush dev eth0");
    send(node, id, text);
}

#[test]
fn packets_with_a_spoofed_address_are_dropped() {
    on_a_node("", async |node| {
        // Sequentially, because addresses are allocated in the order of starts.
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        let both = vec![process("hello", 1, ""), process("hello", 2, "")];
        node.desire(2, both).await;
        let victim = node.wait_until_healthy("hello-2").await;
        let beyond = Beyond::connect();
        send(&node, "hello-1", "own-name");
        assert_eq!(beyond.received(), "own-name");
        let (own, neighbour) = ("02:74:ac:1f:00:02", "02:74:ac:1f:00:03");
        ip(&node, "hello-1", "address add 172.31.0.3/32 dev eth0");
        ip(&node, "hello-1", "address add 192.0.2.7/32 dev eth0");
        send_as(&node, "172.31.0.3", own, "neighbours-address");
        send_as(&node, "172.31.0.3", neighbour, "neighbours-both");
        send_as(&node, "172.31.0.2", neighbour, "neighbours-hardware");
        send_as(&node, "192.0.2.7", own, "nobodys-address");
        send_as(&node, "192.0.2.7", "02:00:00:00:00:07", "nobodys-both");

        // The victim is still reachable.
        let known = output("ip", &["neigh", "show", "172.31.0.3"]);
        assert!(known.contains("02:74:ac:1f:00:03 PERMANENT"), "{known}");
        let answer = node.get(&victim, "/").await.unwrap();
        assert!(answer.contains("process=hello-2 "), "{answer}");
        send(&node, "hello-2", "victim");
        assert_eq!(beyond.received(), "victim", "nothing came before");
        send_as(&node, "172.31.0.2", own, "own-name-again");
        assert_eq!(beyond.received(), "own-name-again");
        output("ip", &["link", "del", "out0"]);
        node.remove_all(3).await;
    });
}

#[test]
fn a_process_reaches_no_address_of_the_node() {
    on_a_node("", async |node| {
        let beyond = Beyond::connect();
        node.desire(1, vec![process("hello", 1, "")]).await;
        let running = node.wait_until_healthy("hello-1").await;
        let agent = node.agent_address.port();
        let controller = node.controller.address.port();
        let own = running.node_port.unwrap();
        for address in ["172.31.0.1", "10.99.0.1"] {
            for port in [agent, controller, own] {
                let reached = in_network_of(
                    &node,
                    "hello-1",
                    &[
                        "timeout",
                        "1",
                        "bash",
                        "-c",
                        &format!("exec 3<>/dev/tcp/{address}/{port} && echo reached"),
                    ],
                );
                assert_eq!(reached, "", "{address}:{port}");
            }
        }
        // Hosts beyond the node are reachable, so there is a route.
        send(&node, "hello-1", "out");
        assert_eq!(beyond.received(), "out");
        output("ip", &["link", "del", "out0"]);
        node.remove_all(2).await;
    });
}
