//! Reachability between processes and their node.

use crate::node::{in_network_of, on_a_node, output, process};

#[test]
fn a_reused_address_is_reachable_at_once() {
    // Without a pool the freed address is allocated next.
    on_a_node("[limits]\nready_networks = 0", async |node| {
        // This process keeps the bridge, with its neighbour entries.
        let staying = process("hello", 1, "");
        node.desire(1, vec![staying.clone()]).await;
        node.wait_until_healthy("hello-1").await;
        for round in 1..=5 {
            let id = format!("hello-{}", round + 1);
            let patient = "health = { timeout = \"60s\" }";
            let next = process("hello", round + 1, patient);
            node.desire(round * 2, vec![staying.clone(), next]).await;
            let running = node.wait_until_healthy(&id).await;
            let answer = node.get(&running, "/").await.unwrap();
            assert!(answer.contains(&format!("process={id} ")), "{answer}");
            let eth0 = in_network_of(&node, &id, &["ip", "-o", "address", "show", "eth0"]);
            assert!(eth0.contains("172.31.0.3/16"), "{eth0}");
            let known = output("ip", &["neigh", "show", "172.31.0.3"]);
            assert!(known.contains("02:74:ac:1f:00:03"), "{known}");
            node.desire(round * 2 + 1, vec![staying.clone()]).await;
            node.wait_for("one process", |report| {
                (report.processes.len() == 1).then_some(())
            })
            .await;
        }
        node.remove_all(100).await;
    });
}

#[test]
fn the_bridges_address_is_stable_while_processes_come_and_go() {
    on_a_node("", async |node| {
        let bridge = || output("ip", &["link", "show", "tucano0"]);
        for (generation, last) in [(1, 1), (2, 4), (3, 2)] {
            let all: Vec<_> = (1..=last)
                .map(|number| process("hello", number, ""))
                .collect();
            node.desire(generation, all).await;
            for number in 1..=last {
                node.wait_until_healthy(&format!("hello-{number}")).await;
            }
            assert!(bridge().contains("02:74:ac:1f:00:01"), "{}", bridge());
        }
        node.remove_all(4).await;
    });
}

#[test]
fn a_process_has_loopback_and_no_other_ipv6_address() {
    on_a_node("", async |node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        let ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
        for own in ["127.0.0.1"].into_iter().chain(ipv6.then_some("::1")) {
            let connect = format!("exec 3<>/dev/tcp/{own}/8080 && echo connected");
            let said = in_network_of(&node, "hello-1", &["bash", "-c", &connect]);
            assert_eq!(said, "connected\n", "{own}");
        }
        let ipv6 = in_network_of(&node, "hello-1", &["ip", "-6", "-o", "address"]);
        assert!(!ipv6.contains("eth0"), "{ipv6}");
        // On SIGTERM its program connects to itself.
        node.remove_all(2).await;
        let logged = node.logged();
        assert!(logged.contains("exit=ended with exit code 0"), "{logged}");
    });
}

#[test]
fn a_bridge_port_accepts_only_its_own_addresses() {
    on_a_node("", async |node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        let port = "tuac1f0002";
        let shown = output("ip", &["-d", "-o", "link", "show", port]);
        for setting in [
            "master tucano0 ",
            "isolated on ",
            "learning off ",
            "locked on ",
            "numtxqueues 1 numrxqueues 1 ",
        ] {
            assert!(shown.contains(setting), "{setting} is missing in {shown}");
        }
        let known = output("bridge", &["fdb", "show", "brport", port]);
        assert!(known.contains("02:74:ac:1f:00:02"), "{known}");
        for link in [port, "tucano0"] {
            assert_eq!(output("ip", &["-6", "address", "show", "dev", link]), "");
        }
        node.remove_all(2).await;
    });
}
