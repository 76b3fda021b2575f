//! Which worker gets which certificate, and what it is good for.

use std::{
    fs,
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use tucano_api::{
    agent::{NodeMetrics, NodeReport},
    ids::Generation,
};
use tucano_testkit::{needs, tool};
use tucano_tests::{CLUSTER, Cluster, images};
use tucano_tls::{Authority, Identity, Validity, authority::Name};

use super::{presented, small, text};

/// Sends what an agent on that worker may send.
fn send(cluster: &Cluster, from: usize, path: &str, body: &str) -> String {
    let url = format!("{}{path}", cluster.api());
    let ca_file = cluster.ca_file().display().to_string();
    let token = "Authorization: Bearer the-agents-token-of-a-test-cluster";
    let known = ["-sS", "--max-time", "20", "--cacert", &ca_file];
    let said = ["-H", token, "-d", body, &url];
    cluster.output_on(from, "curl", &[&known[..], &said].concat())
}

/// Arguments of curl for the certificate of that worker's agent.
fn certificate_of(cluster: &Cluster, worker: usize) -> [String; 4] {
    let file = |name: &str| {
        let path = cluster.agent_data(worker).join("tls").join(name);
        path.display().to_string()
    };
    [
        "--cert".to_owned(),
        file("certificate.pem"),
        "--key".to_owned(),
        file("key.pem"),
    ]
}

/// Sends a request with the certificate of the agent on that worker, and the token.
fn send_as(cluster: &Cluster, worker: usize, path: &str, body: &str) -> String {
    let url = format!("{}{path}", cluster.api());
    let own = certificate_of(cluster, worker);
    let mut arguments: Vec<&str> = own.iter().map(String::as_str).collect();
    arguments.extend(["-d", body, url.as_str()]);
    request(cluster, worker, &arguments)
}

/// Runs curl on a worker with the agents' token.
fn request(cluster: &Cluster, from: usize, arguments: &[&str]) -> String {
    let ca_file = cluster.ca_file().display().to_string();
    let token = "Authorization: Bearer the-agents-token-of-a-test-cluster";
    let known = ["-sS", "--max-time", "20", "--cacert", &ca_file, "-H", token];
    cluster.output_on(from, "curl", &[&known[..], arguments].concat())
}

/// A request for a certificate.
fn ask(cluster: &Cluster, from: usize, body: &str) -> String {
    send(cluster, from, "/v1/certificates", body)
}

#[test]
fn a_worker_gets_its_own_certificate_only_and_cannot_answer_for_another() {
    if !needs(&CLUSTER) || !needs(&[tool("openssl")]) {
        return;
    }
    let mut cluster = Cluster::start(&small());
    let made = Command::new("openssl")
        .args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-subj",
            "/CN=w",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "/dev/null",
        ])
        .output()
        .unwrap();
    let request = text(&made.stdout);
    let body = |ip: &str| serde_json::json!({ "ip": ip, "request": request }).to_string();
    let [w1, w2] = [0, 1].map(|index| cluster.worker(index).ip().to_string());
    let own = ask(&cluster, 0, &body(&w1));
    assert!(own.contains("BEGIN CERTIFICATE"), "{own}");
    let another = ask(&cluster, 0, &body(&w2));
    assert!(another.contains("another_address"), "{another}");
    for nobodys in [cluster.ctl().ip().to_string(), "10.9.9.9".to_owned()] {
        let refused = ask(&cluster, 0, &body(&nobodys));
        assert!(refused.contains("unknown_node"), "{refused}");
    }
    for nonsense in ["{", "{\"ip\": \"10.0.0.1\", \"request\": \"x\"}"] {
        let refused = ask(&cluster, 0, nonsense);
        assert!(refused.contains("\"error\""), "{refused}");
    }
    let nonsense = serde_json::json!({ "ip": w1, "request": "x" }).to_string();
    let refused = ask(&cluster, 0, &nonsense);
    assert!(refused.contains("invalid_certificate_request"), "{refused}");

    // An agent that presents another's certificate is not believed; one whose own is gone gets another.
    cluster.kill_agent(0);
    for name in ["key.pem", "certificate.pem"] {
        let from = cluster.agent_data(1).join("tls").join(name);
        fs::copy(from, cluster.agent_data(0).join("tls").join(name)).unwrap();
    }
    cluster.wait("the first worker to be missing", || {
        (cluster.state()?.alive_nodes.len() == 1).then_some(())
    });
    cluster.start_agent(0);
    cluster.wait_for_alive(2);
    let now = presented(&cluster, &format!("{w1}:7071"));
    assert!(now.contains(&format!("IP Address:{w1}\n")), "{now}");
}

/// An empty report of the worker at this address.
fn report(ip: Ipv4Addr) -> String {
    let report = NodeReport {
        node: None,
        ip: ip.into(),
        agent_port: 7071,
        agent_id: "an impostor".to_owned(),
        sequence: 1,
        version: "0".to_owned(),
        architecture: "amd64".to_owned(),
        live_changes: true,
        keys: Vec::new(),
        host_paths: Vec::new(),
        devices: Default::default(),
        device_paths: Vec::new(),
        volumes: None,
        generation: Generation(0),
        identity: Default::default(),
        held: None,
        metrics: NodeMetrics::default(),
        notes: Vec::new(),
        apis: None,
        processes: Vec::new(),
    };
    serde_json::to_string(&report).unwrap()
}

#[test]
fn a_workers_certificate_opens_nothing_of_another_worker() {
    if !needs(&CLUSTER) || !needs(&[tool("openssl")]) {
        return;
    }
    let cluster = Cluster::start(&small());
    cluster.deploy_healthy(super::HELLO, &images::sample("hello"));
    let before = cluster.placement("hello");
    let [w1, w2] = [0, 1].map(|index| cluster.worker(index).ip());
    let own = certificate_of(&cluster, 0);
    let empty = serde_json::json!({ "node": "w2", "generation": u64::MAX, "processes": [] });
    let empty = empty.to_string();
    let process = &cluster.processes("hello")[0].report.id;
    let (logs, exec) = (
        format!("/v1/processes/{process}/logs"),
        format!("/v1/processes/{process}/exec"),
    );
    for (method, path) in [
        ("PUT", "/v1/desired"),
        ("POST", "/v1/prefetch"),
        ("GET", "/v1/identity"),
        ("GET", logs.as_str()),
        ("POST", exec.as_str()),
    ] {
        let url = format!("https://{w2}:7071{path}");
        let command = ["-X", method, "-d", empty.as_str(), url.as_str()];
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let refused = request(&cluster, 0, &[&own[..], &command].concat());
        assert!(refused.contains("controller_only"), "{path}: {refused}");
        // Nor does the token.
        let refused = request(&cluster, 0, &command);
        assert!(refused.contains("unauthorized"), "{path}: {refused}");
    }
    let another = send_as(&cluster, 0, "/v1/reports", &report(w2));
    assert!(another.contains("another_node"), "{another}");
    let by_token = send(&cluster, 0, "/v1/reports", &report(w2));
    assert!(by_token.contains("certificate_required"), "{by_token}");
    let own_by_token = send(&cluster, 0, "/v1/reports", &report(w1));
    assert!(
        own_by_token.contains("certificate_required"),
        "{own_by_token}"
    );
    for path in ["/v1/state", "/v1/services", "/v2/_catalog"] {
        let refused = send_as(&cluster, 0, path, "");
        let is_refused = refused.contains("unauthorized") || refused.contains("UNAUTHORIZED");
        assert!(is_refused, "{path}: {refused}");
    }
    assert_eq!(cluster.placement("hello"), before);
    assert_eq!(cluster.state().unwrap().alive_nodes.len(), 2);
}

#[test]
fn the_controller_refuses_agents_with_a_foreign_or_expired_certificate() {
    if !needs(&CLUSTER) || !needs(&[tool("openssl")]) {
        return;
    }
    let mut cluster = Cluster::start(&small());
    let [w1, w2] = [0, 1].map(|index| cluster.worker(index).ip());
    let key = cluster.path("key.pem");
    let made = Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-nodes", "-subj", "/CN=w"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-keyout"])
        .arg(&key)
        .output()
        .unwrap();
    let request = text(&made.stdout);
    let authority = Authority::open(&cluster.path("ctl/tls")).unwrap();
    let stranger = Authority::open(&cluster.path("stranger")).unwrap();
    let now = SystemTime::now();
    let over = now - Duration::from_secs(40 * 86_400);
    cluster.kill_agent(0);
    for (authority, ip, issued, expected) in [
        (&authority, w2, now, "not valid for name"),
        (&stranger, w1, now, "UnknownIssuer"),
        (&authority, w1, over, "expired"),
        // What is vouched for is spoken to, and found to be something else.
        (&authority, w1, now, "sent a malformed answer"),
    ] {
        let certificate = cluster.path("certificate.pem");
        let node = Identity::Node("w1".to_owned());
        let signed = authority.sign(
            &request,
            &node,
            &[Name::Ip(ip.into())],
            Validity::from(issued),
        );
        fs::write(&certificate, signed.unwrap()).unwrap();
        let mut impostor = cluster
            .on_worker(0, "openssl")
            .args([
                "s_server", "-accept", "7071", "-naccept", "1", "-www", "-quiet",
            ])
            .arg("-cert")
            .arg(&certificate)
            .arg("-key")
            .arg(&key)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        cluster.wait(expected, || {
            let refused = send_as(&cluster, 0, "/v1/reports", &report(w1));
            assert!(refused.contains("unconfirmed_agent"), "{refused}");
            refused.contains(expected).then_some(())
        });
        impostor.wait().unwrap();
    }
}
