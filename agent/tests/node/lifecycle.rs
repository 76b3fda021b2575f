//! The life of a process, from the desired set to its removal.

use tucano_api::agent::ProcessState;
use tucano_oci_runtime::supervisor::user_namespaces_work;

use crate::node::{on_a_node, output, process};

#[test]
fn a_process_answers_through_its_node_port_and_leaves_nothing_behind() {
    on_a_node("", async |node| {
        assert_eq!(
            node.traces(),
            Vec::<String>::new(),
            "a node without processes is untouched"
        );
        let service = "env = { GREETING = \"hi\" }\nmemory = \"64MiB\"\npids = 20\ncpus = 0.5\nhealth = { http = \"/healthz\" }";
        node.desire(1, vec![process("hello", 1, service)]).await;
        let running = node.wait_until_healthy("hello-1").await;
        let answer = node.get(&running, "/").await.unwrap();
        assert_eq!(
            answer,
            "hello from service=hello revision=1 process=hello-1 node=w1\n"
        );
        let environment = node.get(&running, "/env").await.unwrap();
        for variable in ["GREETING=hi", "PORT=8080", "TUCANO_SERVICE=hello"] {
            assert!(environment.contains(variable), "{environment}");
        }
        let metrics = node
            .wait_for_process("hello-1", "metrics", |process| process.metrics.is_some())
            .await
            .metrics
            .unwrap();
        assert_eq!((metrics.memory_limit.0, metrics.pids_limit), (64 << 20, 20));
        assert!(metrics.pids_current > 0 && metrics.memory_current.0 > 0);
        node.remove_all(2).await;
    });
}

#[test]
fn a_process_has_its_own_user_ids_or_the_node_reports_a_condition() {
    on_a_node("", async |node| {
        let runtime = tucano_testkit::programs().join("tucano_oci");
        let can = user_namespaces_work(&runtime, node.root.path());
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        let mapping = format!("/proc/{}/uid_map", node.pid("hello-1"));
        let mapping = std::fs::read_to_string(mapping).unwrap();
        let is_roots = mapping.split_whitespace().nth(1) == Some("0");
        assert_eq!(is_roots, !can, "{mapping}");
        let notes = node.controller.last_report().unwrap().notes;
        let reported = notes.iter().any(|note| note.contains("user namespaces"));
        assert_eq!(reported, !can, "{notes:?}");
        node.remove_all(2).await;
    });
}

#[test]
fn processes_of_one_service_run_in_parallel_and_are_isolated() {
    on_a_node("", async |node| {
        let all: Vec<_> = (1..=4).map(|number| process("hello", number, "")).collect();
        node.desire(1, all).await;
        let mut ports = Vec::new();
        for number in 1..=4 {
            let id = format!("hello-{number}");
            let running = node.wait_until_healthy(&id).await;
            let answer = node.get(&running, "/").await.unwrap();
            assert!(answer.contains(&format!("process={id} ")), "{answer}");
            ports.push(running.node_port);
        }
        ports.dedup();
        assert_eq!(ports.len(), 4);
        let fetched = node.controller.blobs_served();
        let pid = node.pid("hello-1").to_string();
        // Addresses and ports are allocated in the order of starts, which is arbitrary.
        let neighbour = std::fs::read(node.data("processes/hello-2/process.json")).unwrap();
        let lease = &serde_json::from_slice::<serde_json::Value>(&neighbour).unwrap()["lease"];
        let (ip, node_port) = (
            lease["ip"].as_str().unwrap(),
            lease["node_port"].to_string(),
        );
        for (address, port) in [
            (ip, "8080"),
            ("172.31.0.1", "7071"),
            ("172.31.0.1", &node_port),
        ] {
            let probe = format!("exec 3<>/dev/tcp/{address}/{port}");
            let reached = std::process::Command::new("nsenter")
                .args(["-t", &pid, "-n", "timeout", "1", "bash", "-c", &probe])
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap();
            assert!(!reached.success(), "a process reaches {address}:{port}");
        }
        // Removing one does not affect the others.
        let before = node.pid("hello-2");
        node.desire(2, vec![process("hello", 2, "")]).await;
        node.wait_for("one process", |report| {
            (report.processes.len() == 1).then_some(())
        })
        .await;
        assert_eq!(node.pid("hello-2"), before);
        assert_eq!(
            node.controller.blobs_served(),
            fetched,
            "the image was fetched once"
        );
        node.remove_all(3).await;
    });
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_after_its_stop_timeout() {
    on_a_node("", async |node| {
        // The program has no handler, and the first process of a pid namespace ignores signals that it does not handle.
        let service = "stop_timeout = \"300ms\"\nenv = { DELAY_MS = \"0\" }";
        node.desire(1, vec![process("slow-start", 1, service)])
            .await;
        node.wait_until_healthy("slow-start-1").await;
        node.remove_all(2).await;
    });
}

#[test]
fn a_slow_process_is_starting_until_it_answers() {
    on_a_node("", async |node| {
        node.desire(1, vec![process("slow-start", 1, "")]).await;
        let starting = |process: &tucano_api::agent::ProcessReport| {
            process.state == ProcessState::Starting && process.reason.is_some()
        };
        let process = node
            .wait_for_process("slow-start-1", "starting, with a reason", starting)
            .await;
        assert!(process.reason.unwrap().contains("port 8080"));
        node.wait_until_healthy("slow-start-1").await;
        node.remove_all(2).await;
    });
}

#[test]
fn a_command_in_the_container_can_be_the_probe() {
    on_a_node("", async |node| {
        let bad = "health = { exec = [\"/no/such\"], grace = \"30s\" }";
        node.desire(1, vec![process("hello", 1, bad)]).await;
        let reported = |process: &tucano_api::agent::ProcessReport| {
            process
                .reason
                .as_ref()
                .is_some_and(|reason| reason.contains("/no/such"))
        };
        node.wait_for_process("hello-1", "the probe's trouble", reported)
            .await;
        node.remove_all(2).await;
    });
}

#[test]
fn output_is_stored_and_followed_until_the_process_is_removed() {
    on_a_node("", async |node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        let running = node.wait_until_healthy("hello-1").await;
        let mut followed = node.logs("hello-1", "stream=stderr&follow=true").await;
        assert_eq!(followed.status(), 200);
        // It logs the signal on stderr, and ends.
        assert!(node.get(&running, "/crash").await.is_err());
        let mut text = String::new();
        while !text.contains("asked to crash") {
            let chunk = followed.chunk().await.unwrap().expect("more output");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        let kept = node
            .logs("hello-1", "tail=1000")
            .await
            .text()
            .await
            .unwrap();
        assert!(kept.contains("asked to crash"), "{kept}");
        assert_eq!(node.logs("hello-9", "").await.status(), 404);
        node.remove_all(2).await;
        while followed.chunk().await.unwrap().is_some() {}
    });
}

#[test]
fn a_port_in_use_is_skipped() {
    on_a_node("ports = \"20000-20001\"", async |node| {
        let _taken = std::net::TcpListener::bind("0.0.0.0:20000").unwrap();
        node.desire(1, vec![process("hello", 1, ""), process("hello", 2, "")])
            .await;
        let reason = |process: &tucano_api::agent::ProcessReport| {
            process
                .reason
                .as_ref()
                .is_some_and(|reason| reason.contains("no free port in 20000-20001"))
        };
        let running = node
            .wait_for("one healthy process", |report| {
                let mut processes = report.processes.iter();
                processes
                    .find(|process| process.state == ProcessState::Healthy)
                    .cloned()
            })
            .await;
        assert_eq!(running.node_port, Some(20001));
        let other = if running.id.as_str() == "hello-1" {
            "hello-2"
        } else {
            "hello-1"
        };
        node.wait_for_process(other, "a reason", reason).await;
        node.remove_all(2).await;
    });
}

#[test]
fn the_rules_list_every_process() {
    on_a_node(
        "bridge = \"other0\"\nsubnet = \"10.77.0.0/24\"",
        async |node| {
            node.desire(1, vec![process("hello", 1, "")]).await;
            let running = node.wait_until_healthy("hello-1").await;
            let rules = output("nft", &["list", "table", "ip", "tucano_other0"]);
            let port = running.node_port.unwrap();
            assert!(
                rules.contains(&format!("{port} : 10.77.0.2 . 8080")),
                "{rules}"
            );
            node.remove_all(2).await;
        },
    );
}

#[test]
fn sandbox_options_of_a_service_are_applied_and_reported() {
    on_a_node("", async |node| {
        let asking = "caps = \"web\"\nread_only = true\ntmp_size = \"1MiB\"\npids = 600";
        node.desire(
            1,
            vec![process("hello", 1, asking), process("hello", 2, "")],
        )
        .await;
        let relaxed = node.wait_until_healthy("hello-1").await.relaxed;
        assert_eq!(relaxed[..2], ["caps=web", "pids=600"]);
        let usual = node.wait_until_healthy("hello-2").await.relaxed;
        assert_eq!(relaxed[2..], usual, "what the node lacks, it lacks for all");
        let of = |id: &str, file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", node.pid(id))).unwrap()
        };
        let has = |id: &str, line: &str| of(id, "status").contains(line);
        assert!(has("hello-1", "CapBnd:\t00000000000004cb\n"));
        assert!(has("hello-2", "CapBnd:\t0000000000000000\n"));
        let root = |id: &str| {
            let mounts = of(id, "mounts");
            let root = mounts
                .lines()
                .find(|line| line.split(' ').nth(1) == Some("/"));
            root.unwrap().split(' ').nth(3).unwrap().starts_with("ro,")
        };
        assert!(root("hello-1") && !root("hello-2"));
        assert!(of("hello-1", "mounts").contains(" /tmp tmpfs "));
        assert_eq!(of("hello-2", "oom_score_adj").trim(), "500");
        node.remove_all(2).await;
    });
}
