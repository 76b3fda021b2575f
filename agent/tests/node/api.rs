//! The agent's API: authorization, validation and limits.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tucano_api::agent::Identity;
use tucano_oci_session::{Begin, Decoder, End, Frame, FromClient, ToClient, UPGRADE};

use crate::{
    controller::TOKEN,
    node::{Node, PATIENCE, desired, on_a_node, process},
};

#[test]
fn requests_without_the_token_are_refused() {
    on_a_node("", async |node| {
        let url = format!("http://{}/v1/desired", node.agent_address);
        let set = desired(1, vec![process("hello", 1, "")]);
        for token in [
            None,
            Some("wrong"),
            Some("agents-onl"),
            Some("agents-only2"),
            Some(""),
        ] {
            let mut request = node.client.put(&url).json(&set);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401, "{token:?}");
            assert!(response.text().await.unwrap().contains("unauthorized"));
        }
        let logs = format!("http://{}/v1/processes/hello-1/logs", node.agent_address);
        assert_eq!(node.client.get(logs).send().await.unwrap().status(), 401);
        let identity = format!("http://{}/v1/identity", node.agent_address);
        let nobody = node.client.get(&identity).send().await.unwrap();
        assert_eq!(nobody.status(), 401);
        let named = node.client.get(&identity).bearer_auth("agents-only");
        let named: Identity = named.send().await.unwrap().json().await.unwrap();
        let report = node.wait_for("a report", |report| Some(report.agent_id.clone()));
        assert_eq!(named.agent_id, report.await);
        let health = format!("http://{}/healthz", node.agent_address);
        assert_eq!(node.client.get(health).send().await.unwrap().status(), 200);
        assert!(!node.data("desired.json").exists(), "nothing was taken");
        assert!(
            !node.logged().contains("agents-only"),
            "the token is not logged"
        );
    });
}

/// Silent connections of one peer, more than the agent admits.
#[test]
fn many_connections_do_not_lock_out_the_controller() {
    on_a_node("[limits]\nconnections = 8", async |node| {
        let mut open = Vec::new();
        for _ in 0..200 {
            let mut stream = tokio::net::TcpStream::connect(node.agent_address)
                .await
                .unwrap();
            // Past the handshake: a request without its end.
            stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.ok();
            open.push(stream);
        }
        // Without TLS the controller is one peer of many: once the others are settled, it is the newest.
        let mut closed = tokio::task::JoinSet::new();
        for mut stream in open {
            closed.spawn(async move { stream.read(&mut [0]).await.ok() });
        }
        for _ in 8..200 {
            closed.join_next().await.unwrap().unwrap();
        }
        node.desire(1, Vec::new()).await;
        let logged = async || node.logged().contains("limits.connections");
        assert!(logged().await, "{}", node.logged());
    });
}

#[test]
fn older_generations_and_sets_of_other_nodes_are_refused() {
    on_a_node("", async |node| {
        node.desire(5, Vec::new()).await;
        assert_eq!(
            node.put(&desired(5, Vec::new())).await.0,
            200,
            "the same again is fine"
        );
        let (status, body) = node.put(&desired(4, Vec::new())).await;
        assert_eq!(status, 409);
        assert!(body.contains("stale_generation"), "{body}");
        let mut other = desired(6, Vec::new());
        other.node = "w2".parse().unwrap();
        let (status, body) = node.put(&other).await;
        assert_eq!(status, 409);
        assert!(body.contains("wrong_node"), "{body}");
        let seen =
            |report: &tucano_api::agent::NodeReport| (report.generation.0 == 5).then_some(());
        node.wait_for("generation 5 in a report", seen).await;
    });
}

#[test]
fn the_generation_survives_a_restart() {
    on_a_node("", async |mut node| {
        node.desire(5, Vec::new()).await;
        node.kill_agent();
        node.start_agent().await;
        assert_eq!(node.put(&desired(4, Vec::new())).await.0, 409);
        assert_eq!(node.put(&desired(6, Vec::new())).await.0, 200);
    });
}

#[test]
fn oversized_or_invalid_bodies_change_nothing() {
    on_a_node(
        "[limits]\nbody_bytes = \"8KiB\"\nprocesses = 2",
        async |node| {
            let url = format!("http://{}/v1/desired", node.agent_address);
            let put = async |body: String| {
                let request = node.client.put(&url).bearer_auth(crate::controller::TOKEN);
                let response = request.body(body).send().await.unwrap();
                (response.status().as_u16(), response.text().await.unwrap())
            };
            let (status, body) = put(" ".repeat(9000)).await;
            assert_eq!(status, 413, "{body}");
            assert!(body.contains("too_large"), "{body}");
            assert_eq!(put("{}".to_owned()).await.0, 400);
            let three = (1..=3).map(|number| process("hello", number, "")).collect();
            let (status, body) = node.put(&desired(1, three)).await;
            assert_eq!(status, 400);
            assert!(body.contains("limits.processes"), "{body}");
            assert!(!node.data("desired.json").exists());
        },
    );
}

#[test]
fn the_number_of_followers_is_limited() {
    on_a_node("[limits]\nfollowers = 1", async |node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        let first = node.logs("hello-1", "follow=true").await;
        assert_eq!(first.status(), 200);
        let second = node.logs("hello-1", "follow=true").await;
        assert_eq!(second.status(), 429);
        assert_eq!(node.logs("hello-1", "").await.status(), 200);
        drop(first);
        let deadline = tokio::time::Instant::now() + crate::node::PATIENCE;
        while node.logs("hello-1", "follow=true").await.status() != 200 {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the place is never given back"
            );
        }
        assert_eq!(node.logs("hello-1", "tail=x").await.status(), 400);
        node.remove_all(2).await;
    });
}

/// The response to a request to run a command in a process's container.
async fn session(node: &Node, id: &str, upgrade: Option<&str>) -> reqwest::Response {
    let url = format!("http://{}/v1/processes/{id}/exec", node.agent_address);
    let mut request = node.client.post(url).bearer_auth(TOKEN);
    if let Some(protocol) = upgrade {
        request = request.header("Connection", "Upgrade");
        request = request.header("Upgrade", protocol);
    }
    request.send().await.unwrap()
}

fn run(command: &[&str]) -> Vec<u8> {
    let begin = FromClient::Begin(Begin {
        command: command.iter().map(ToString::to_string).collect(),
        terminal: None,
    });
    begin.encode()
}

/// Reads a session to its end: its stderr and exit.
async fn read_to_end(session: &mut reqwest::Upgraded) -> (String, End) {
    let (mut decoder, mut buffer, mut said) = (Decoder::default(), [0; 4096], Vec::new());
    loop {
        let length = session.read(&mut buffer).await.unwrap();
        assert!(length > 0, "it closed before its end");
        decoder.push(&buffer[..length]);
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame {
                ToClient::ErrorOutput(bytes) => said.extend(bytes),
                ToClient::End(end) => return (String::from_utf8(said).unwrap(), end),
                ToClient::Output(_) => {}
            }
        }
    }
}

#[test]
fn a_command_runs_in_a_processs_container() {
    on_a_node("", async |node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        let answer = session(&node, "hello-1", Some(UPGRADE)).await;
        assert_eq!(answer.status(), 101);
        let mut connection = answer.upgrade().await.unwrap();
        // The same program fails, because its port is in use.
        connection.write_all(&run(&["/hello"])).await.unwrap();
        let (said, end) = read_to_end(&mut connection).await;
        assert!(said.contains("in use"), "{said}");
        assert!(matches!(end, End::Exited(code) if code != 0), "{end:?}");
        assert_eq!(connection.read(&mut [0; 16]).await.unwrap(), 0);
        let answer = session(&node, "hello-1", Some(UPGRADE)).await;
        let mut connection = answer.upgrade().await.unwrap();
        connection.write_all(&run(&["/none"])).await.unwrap();
        let (_, end) = read_to_end(&mut connection).await;
        assert!(matches!(&end, End::Failed(why) if why.contains("no such program")));
        assert_eq!(session(&node, "hello-9", Some(UPGRADE)).await.status(), 404);
        assert_eq!(session(&node, "hello-1", None).await.status(), 426);
        let other = session(&node, "hello-1", Some("websocket")).await;
        assert_eq!(other.status(), 426);
        let url = format!("http://{}/v1/processes/hello-1/exec", node.agent_address);
        let nobody = node.client.post(url).send().await.unwrap();
        assert_eq!(nobody.status(), 401);
        node.remove_all(2).await;
    });
}

#[test]
fn sessions_are_limited_and_end_with_their_clients() {
    on_a_node("[limits]\nsessions = 1", async |node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        let first = session(&node, "hello-1", Some(UPGRADE)).await;
        let connection = first.upgrade().await.unwrap();
        let second = session(&node, "hello-1", Some(UPGRADE)).await;
        assert_eq!(second.status(), 429);
        assert!(second.text().await.unwrap().contains("limits.sessions"));
        drop(connection);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while session(&node, "hello-1", Some(UPGRADE)).await.status() != 101 {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the place is never given back"
            );
        }
        node.remove_all(2).await;
    });
}
