//! The cluster's authority, and TLS on the API's port. Traffic between machines is tested on virtual hosts (tests/cluster).

use std::{
    fs,
    net::TcpListener,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::SystemTime,
};

use nix::sys::signal::Signal;
use reqwest::Method;
use tucano_tls::{Authority, Certificates, Identity, Trust, Validity, authority::Name};

use crate::{
    agent::Agent,
    ctl::{Ctl, config, program},
};

/// A client with a certificate of this identity.
pub(crate) fn client_as(ctl: &Ctl, identity: &str) -> reqwest::Client {
    let authority = Authority::open(&ctl.path("data/tls")).unwrap();
    let names = [Name::parse("10.9.9.9").unwrap()];
    let validity = Validity::from(SystemTime::now());
    let identity = Identity::parse(identity).unwrap();
    let certificates = Arc::new(Certificates::default());
    certificates.set(authority.issue(&identity, &names, validity).unwrap());
    let trust = Trust::from_pem(authority.pem()).unwrap();
    reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(trust.client_config(certificates).unwrap())
        .build()
        .unwrap()
}

fn client(pem: &[u8]) -> reqwest::Client {
    let authority = reqwest::Certificate::from_pem_bundle(pem).unwrap();
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only(authority)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_plain_http_share_the_port_on_loopback() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let pem = fs::read(ctl.path("data/tls/ca.pem")).unwrap();
    let https = |path: &str| ctl.url(path).replace("http:", "https:");
    for path in ["/healthz", "/v1/state", "/v2/"] {
        let tls = client(&pem).get(https(path)).send().await.unwrap();
        assert_eq!(
            (tls.status().as_u16(), tls.version()),
            (200, reqwest::Version::HTTP_11),
            "{path}"
        );
        ctl.get(path).await.expect(200);
    }
    let by_name = https("/healthz").replace("127.0.0.1", "localhost");
    assert!(client(&pem).get(by_name).send().await.is_ok());
    // Clients with another authority, or none, fail the handshake.
    let other = tempfile::tempdir().unwrap();
    let other = tucano_tls::Authority::open(other.path()).unwrap();
    let stranger = client(other.pem().as_bytes());
    assert!(
        stranger
            .get(https("/healthz"))
            .send()
            .await
            .unwrap_err()
            .is_connect()
    );
    assert!(ctl.http().get(https("/healthz")).send().await.is_err());

    // After a restart the authority is the same, and the certificate a new one.
    ctl.end(Signal::SIGTERM).await;
    ctl.start_again().await;
    let again = ctl.url("/healthz").replace("http:", "https:");
    assert!(client(&pem).get(again).send().await.is_ok());
    assert!(!ctl.log().contains("PRIVATE"), "{}", ctl.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_authoritys_certificate_is_copied() {
    let ctl = Ctl::prepare(&config(1, "", ""));
    let copy = ctl.path("ca.pem");
    let write = || {
        let mut command = program(&ctl.path("ctl.toml"));
        command.arg("--write-ca").arg(&copy).output().unwrap()
    };
    let too_early = write();
    let said = String::from_utf8(too_early.stderr).unwrap();
    assert!(
        !too_early.status.success() && said.contains("when it first starts"),
        "{said}"
    );
    let tls = ctl.path("data/tls");
    let authority = tucano_tls::Authority::open(&tls).unwrap();
    assert!(write().status.success());
    assert_eq!(fs::read_to_string(&copy).unwrap(), authority.pem());
    assert_eq!(
        fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
        0o644
    );
    // The controller's user cannot make root disclose another file.
    fs::remove_file(tls.join("ca.pem")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", tls.join("ca.pem")).unwrap();
    let refused = write();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && !said.contains("root"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&copy).unwrap(), authority.pem());
}

/// The authority's files, as far as they exist.
fn authority(tls: &Path) -> [Option<Vec<u8>>; 2] {
    ["ca-key.pem", "ca.pem"].map(|name| fs::read(tls.join(name)).ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_during_creation_leaves_a_complete_authority_or_none() {
    for moment in ["", "ca-key.pem.new", "ca-key.pem", "ca.pem.new", "ca.pem"].repeat(3) {
        let mut ctl = Ctl::prepare(&config(1, "", ""));
        let tls: PathBuf = ctl.path("data/tls");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut child = program(&ctl.path("ctl.toml"))
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Some states are too short to be observed: then it is killed a little later.
        while !tls.join(moment).exists() && !tls.join("ca.pem").exists() {
            if child.try_wait().unwrap().is_some() {
                break;
            }
        }
        child.kill().ok();
        child.wait().unwrap();
        let left = authority(&tls);
        ctl.start_again().await;
        let made = authority(&tls);
        for (left, made) in left.iter().zip(&made) {
            assert!(made.is_some());
            assert!(left.is_none() || left == made, "{moment}");
        }
        let pem = made[1].clone().unwrap();
        let https = ctl.url("/healthz").replace("http:", "https:");
        assert!(client(&pem).get(https).send().await.is_ok(), "{moment}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_older_than_tls_alerts_until_the_setting_is_made() {
    const ALERT: &str = "this cluster is older than TLS";
    let tokens = "agent_token = \"0123456789abcdef-agents\"";
    let text = config(1, tokens, "").replace("127.0.0.11", "10.0.0.11");
    let mut ctl = Ctl::start(&text).await;
    assert!(!ctl.log().contains(ALERT));
    ctl.end(Signal::SIGTERM).await;
    // The state of such a cluster.
    fs::remove_dir_all(ctl.path("data/tls")).unwrap();
    ctl.start_again().await;
    ctl.end(Signal::SIGTERM).await;
    ctl.start_again().await;
    assert_eq!(ctl.log().matches(ALERT).count(), 2, "{}", ctl.log());
    ctl.end(Signal::SIGTERM).await;
    ctl.write_config(&text.replace("[api]", "[api]\ntls = \"on\""));
    ctl.start_again().await;
    ctl.end(Signal::SIGTERM).await;
    ctl.write_config(&text);
    ctl.start_again().await;
    assert_eq!(ctl.log().matches(ALERT).count(), 2, "{}", ctl.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_opens_its_own_routes_only() {
    let tokens = "token = \"0123456789abcdef-s\"\nagent_token = \"0123456789abcdef-a\"";
    let text = config(2, tokens, "").replace("[api]", "[api]\nbalancers = [\"b1\"]");
    let ctl = Ctl::start(&text).await;
    let _agent = Agent::start_with_token(&ctl, 1, Some("0123456789abcdef-a")).await;
    let status = async |identity: &str, method: Method, path: &str, body: String| {
        let url = ctl.url(path).replace("http:", "https:");
        let request = client_as(&ctl, identity).request(method, url).body(body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body: serde_json::Value = answer.json().await.unwrap_or_default();
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    };
    for identity in ["controller", "node:w1", "balancer:b1"] {
        for (method, path) in [
            (Method::GET, "/v1/state"),
            (Method::POST, "/v1/services"),
            (Method::DELETE, "/v1/services/x"),
            (Method::GET, "/v1/services/x/logs"),
            (Method::POST, "/v1/processes/x-1/exec"),
            (Method::POST, "/v1/config/reload"),
            (Method::GET, "/metrics"),
            (Method::GET, "/v2/hello/manifests/1"),
            (Method::DELETE, "/v2/tucano/images/blobs/sha256:0"),
        ] {
            let (status, _) = status(identity, method, path, String::new()).await;
            assert_eq!(status, 401, "{identity} {path}");
        }
    }
    let report = |node: &str, sequence: u64| {
        serde_json::json!({
            "node": node, "ip": "127.0.0.11", "agent_port": 1, "agent_id": "x", "sequence": sequence,
            "version": "0", "architecture": "amd64", "generation": 0, "processes": [],
            "metrics": {
                "cpus": 1, "cpu_used": 0.0, "load1": 0.0, "memory_total": 1, "memory_available": 1,
                "memory_reservable": 1, "disk_total": 1, "disk_available": 1,
            },
        })
        .to_string()
    };
    let reports = async |identity: &str, body: String| {
        status(identity, Method::POST, "/v1/reports", body).await
    };
    let another = reports("node:w1", report("w2", 1)).await;
    assert_eq!(another, (403, "another_node".to_owned()));
    let absurd = reports("node:w1", report("w1", u64::MAX)).await;
    assert_eq!(absurd, (400, "invalid_report".to_owned()));
    // Its own is accepted as far as the agent at its address confirms it.
    let own = reports("node:w1", report("w1", 1)).await;
    assert_eq!(own, (409, "unconfirmed_agent".to_owned()));
    for identity in ["controller", "balancer:b1"] {
        assert_eq!(
            reports(identity, report("w1", 1)).await.0,
            401,
            "{identity}"
        );
    }
    let blob = format!("/v2/tucano/images/blobs/sha256:{}", "0".repeat(64));
    let blob = status("node:w1", Method::GET, &blob, String::new()).await;
    assert_eq!(blob.0, 403);
    let routes = async |identity: &str| {
        status(identity, Method::GET, "/v1/routes", String::new())
            .await
            .0
    };
    assert_eq!(routes("balancer:b1").await, 200);
    assert_eq!(routes("balancer:b2").await, 403, "not configured");
    assert_eq!(routes("node:w1").await, 401);
    // A balancer speaks for itself.
    for (id, expected) in [
        ("b1-7-abc", 204),
        ("b2-7-abc", 403),
        ("b1-2-7-abc", 403),
        ("b1", 403),
    ] {
        let report = serde_json::json!({ "balancer": id, "leaving": true }).to_string();
        let path = "/v1/balancer_reports";
        let (answer, _) = status("balancer:b1", Method::POST, path, report).await;
        assert_eq!(answer, expected, "{id}");
    }
    let request = serde_json::json!({ "name": "b2", "request": "x" }).to_string();
    let path = "/v1/balancer_certificates";
    let another = status("balancer:b1", Method::POST, path, request).await;
    assert_eq!(another, (403, "another_balancer".to_owned()));
}
