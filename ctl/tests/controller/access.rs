//! Authorization of requests.

use reqwest::Method;
use serde_json::Value;

use crate::{
    agent::Agent,
    ctl::{Ctl, config, program},
    image,
};

const TOKEN: &str = "0123456789abcdef-sysadmin";
const AGENT_TOKEN: &str = "0123456789abcdef-agents";

const OPERATIONS: [(Method, &str); 14] = [
    (Method::GET, "/v1/state"),
    (Method::GET, "/v1/nodes"),
    (Method::GET, "/v1/services"),
    (Method::POST, "/v1/services"),
    (Method::PATCH, "/v1/services/hello"),
    (Method::DELETE, "/v1/services/hello"),
    (Method::GET, "/v1/services/hello/logs"),
    (Method::POST, "/v1/services/hello/exec"),
    (Method::POST, "/v1/processes/hello-1/exec"),
    (Method::GET, "/v1/config"),
    (Method::POST, "/v1/config/reload"),
    (Method::GET, "/metrics"),
    (Method::GET, "/openapi.json"),
    (Method::GET, "/no/such/path"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_route_accepts_its_own_token_only() {
    let tokens = format!("token = \"{TOKEN}\"\nagent_token = \"{AGENT_TOKEN}\"");
    let mut ctl = Ctl::start(&config(1, &tokens, "")).await;
    let agents = [(Method::POST, "/v1/reports")];
    let everything = OPERATIONS
        .iter()
        .map(|operation| (operation, TOKEN, AGENT_TOKEN));
    let everything = everything.chain(
        agents
            .iter()
            .map(|operation| (operation, AGENT_TOKEN, TOKEN)),
    );
    for ((method, path), right, wrong) in everything {
        let request = || ctl.http().request(method.clone(), ctl.url(path));
        for request in [
            request(),
            request().bearer_auth(wrong),
            request().basic_auth(right, None::<&str>),
        ] {
            let error = ctl.send(request).await.refused(401, "unauthorized");
            assert!(!error.contains("0123456789"), "{error}");
        }
        let answer = ctl.send(request().bearer_auth(right)).await;
        assert_ne!(answer.status, 401, "{method} {path}");
    }
    assert_eq!(ctl.get("/healthz").await.expect(200), Value::from("ok\n"));
    let blob = format!("/v2/tucano/images/blobs/sha256:{}", "0".repeat(64));
    for (method, token, status) in [
        (Method::GET, AGENT_TOKEN, 404),
        (Method::GET, TOKEN, 404),
        (Method::GET, "neither-0123456789", 401),
        (Method::HEAD, AGENT_TOKEN, 401),
        (Method::DELETE, AGENT_TOKEN, 401),
    ] {
        let request = ctl.http().request(method, ctl.url(&blob));
        assert_eq!(ctl.send(request.bearer_auth(token)).await.status, status);
    }

    let agent = Agent::start_with_token(&ctl, 1, Some(AGENT_TOKEN)).await;
    let deploy = ctl
        .http()
        .post(ctl.url("/v1/services?wait=true"))
        .bearer_auth(TOKEN)
        .multipart(
            reqwest::multipart::Form::new()
                .text("config", image::config(1, ""))
                .part(
                    "image",
                    reqwest::multipart::Part::bytes(image::archive("one")),
                ),
        );
    ctl.send(deploy).await.expect(201);
    assert_eq!(
        agent.presented_token(),
        Some(format!("Bearer {AGENT_TOKEN}"))
    );
    let stranger = Agent::start_with_token(&ctl, 1, Some(TOKEN)).await;
    ctl.eventually("the refusal of a stranger", async |ctl| {
        ctl.log().contains("the token is wrong").then_some(())
    })
    .await;
    assert!(stranger.processes().is_empty());
    assert!(!ctl.log().contains("0123456789"), "{}", ctl.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_only_the_agents_token_other_machines_reach_only_the_agents_routes() {
    let tokens = format!("agent_token = \"{AGENT_TOKEN}\"");
    let mut ctl = Ctl::prepare(&config(1, &tokens, ""));
    let command = program(&ctl.path("ctl.toml"));
    ctl.start_on("0.0.0.0:0", command).await;
    for (method, path) in OPERATIONS {
        let request = || ctl.http().request(method.clone(), ctl.url(path));
        ctl.send(request()).await.refused(401, "unauthorized");
        let presenting = request().bearer_auth(AGENT_TOKEN);
        ctl.send(presenting).await.refused(401, "unauthorized");
    }
    let report = ctl.http().post(ctl.url("/v1/reports"));
    ctl.send(report.bearer_auth(AGENT_TOKEN))
        .await
        .refused(400, "invalid_report");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_web_pages_are_refused() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    for (method, path) in OPERATIONS {
        for (name, value) in [
            ("host", "evil.example"),
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let request = ctl
                .http()
                .request(method.clone(), ctl.url(path))
                .header(name, value);
            ctl.send(request).await.refused(403, "foreign_origin");
        }
    }
    let own = ctl
        .http()
        .get(ctl.url("/v1/state"))
        .header("sec-fetch-site", "same-origin");
    ctl.send(own).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_methods_are_refused() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    ctl.get("/v1/no-such").await.refused(404, "not_found");
    ctl.delete("/v1/state")
        .await
        .refused(405, "method_not_allowed");
    for path in [
        "alive_nodes",
        "dead_nodes",
        "configured_services",
        "active_services",
        "services",
    ] {
        ctl.get(&format!("/v1/{path}/nobody"))
            .await
            .refused(404, "not_found");
        ctl.get(&format!("/v1/{path}/..%2f.."))
            .await
            .refused(404, "not_found");
    }
    ctl.get("/v1/services/a/logs?tial=3")
        .await
        .refused(400, "invalid_query");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_headers_and_absurd_reports_are_refused() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    for header in [
        "Host: 127.0.0.1",
        "Authorization: Bearer a\r\nAuthorization: Bearer b",
    ] {
        let head = format!(
            "GET /v1/state HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\nConnection: close\r\n\r\n"
        );
        let answer = ctl.raw(head.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("repeated_header"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_its_limit_gets_its_answer_while_it_is_sent() {
    let limits = "[limits]\nreport_bytes = \"1KiB\"";
    let ctl = Ctl::start(&config(1, "", limits)).await;
    let mut request =
        b"POST /v1/reports HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 8388608\r\n\r\n".to_vec();
    request.resize(request.len() + (8 << 20), b'x');
    for _ in 0..20 {
        let answer = ctl.raw(&request);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("limits.report_bytes"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_trickle_from_one_peer_do_not_lock_out_others() {
    let limits = "[limits]\nconnections = 64\nconnections_per_peer = 16\nbody_time = \"2s\"";
    let mut ctl = Ctl::start(&config(1, "", limits)).await;
    let head = b"POST /v1/reports HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\nx";
    let mut trickling = Vec::new();
    // Connections beyond the peer's bound are refused by name; until a head is read, its connection gives way to the next.
    ctl.eventually("a refusal", async |ctl| {
        trickling.push(ctl.connect(head));
        ctl.log()
            .contains("limits.connections_per_peer")
            .then_some(())
    })
    .await;
    // Those within it end at their deadline.
    let answers = trickling.iter_mut().map(crate::ctl::read_all);
    let answers: Vec<String> = answers.collect();
    let slow = answers.iter().filter(|it| it.contains("limits.body_time"));
    assert!(slow.count() > 0, "{answers:?}");
    let refused = answers
        .iter()
        .filter(|it| it.contains("too_many_connections"));
    assert!(refused.count() > 0, "{answers:?}");
    ctl.get("/healthz").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_silent_ones_time_out() {
    use std::io::Read;
    let limits = "[limits]\nconnections = 8\nheader_timeout = \"1s\"";
    let ctl = Ctl::start(&config(1, "", limits)).await;
    // Eight silent connections take all slots until they time out.
    let silent: Vec<_> = (0..8)
        .map(|_| std::net::TcpStream::connect(ctl.address()).unwrap())
        .collect();
    ctl.get("/healthz").await.expect(200);
    let read = tokio::task::spawn_blocking(move || {
        silent
            .into_iter()
            .map(|mut stream| stream.read(&mut [0; 1]).unwrap_or(0))
            .sum::<usize>()
    });
    assert_eq!(read.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_evicted_for_requests() {
    use std::io::Write;
    let ctl = Ctl::start(&config(1, "", "[limits]\nconnections = 8")).await;
    // Of 40 silent connections, some within a request's head, 8 get a slot, for 30 s.
    let silent: Vec<_> = (0..40)
        .map(|index| {
            let mut stream = std::net::TcpStream::connect(ctl.address()).unwrap();
            if index % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
            }
            stream
        })
        .collect();
    // Each request opens another connection: silent ones are evicted for it.
    for _ in 0..20 {
        ctl.get("/healthz").await.expect(200);
    }
    let open = |stream: &std::net::TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let end = stream.peek(&mut [0; 1]);
        matches!(end, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let left = silent.iter().filter(|stream| open(stream)).count();
    assert!(left < 8, "{left} silent connections are open");
}
