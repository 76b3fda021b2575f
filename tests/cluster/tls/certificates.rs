//! Which worker gets which certificate, and what it is good for.

use std::{fs, process::Command};

use tucano_testkit::{needs, tool};
use tucano_tests::{CLUSTER, Cluster};

use super::{presented, small, text};

/// A request for a certificate, as an agent on that worker would send it.
fn ask(cluster: &Cluster, from: usize, body: &str) -> String {
    let url = format!("{}/v1/certificates", cluster.api());
    let ca_file = cluster.ca_file().display().to_string();
    let token = "Authorization: Bearer the-agents-token-of-a-test-cluster";
    let arguments = [
        "-sS",
        "--max-time",
        "20",
        "--cacert",
        &ca_file,
        "-H",
        token,
        "-d",
        body,
        &url,
    ];
    cluster.output_on(from, "curl", &arguments)
}

#[test]
fn a_worker_gets_no_certificate_but_its_own_and_cannot_answer_for_another() {
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
