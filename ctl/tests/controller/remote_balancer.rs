//! A balancer on another machine: it follows the routes over mutual TLS, with a certificate of its own.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tucano_testkit::programs;
use tucano_tls::{Authority, Identity, Validity, leaf::Files};

use crate::{
    agent::Agent,
    balancer,
    ctl::{Ctl, config},
};

const DAY: Duration = Duration::from_secs(86_400);

struct Balancer {
    directory: TempDir,
    child: Child,
}

impl Balancer {
    fn start(ctl: &Ctl, directory: TempDir) -> Self {
        let path = |name: &str| directory.path().join(name);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(path("log"))
            .unwrap();
        let child = Command::new(programs().join("tucano_balancerd"))
            .args(["--follow", &ctl.url("").replace("http:", "https:")])
            .arg("--identity")
            .arg(path("identity"))
            .arg("--ca")
            .arg(ctl.path("data/tls/ca.pem"))
            .args(["--listen", "127.0.0.1:0"])
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        Self { directory, child }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("identity").join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    fn end(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.directory
    }
}

fn following(balancers: &str) -> String {
    let token = "token = \"0123456789abcdef-s\"\nagent_token = \"0123456789abcdef-a\"";
    let api = format!("listen = \"stdin\"\nbalancers = {balancers}");
    config(1, token, "").replace("listen = \"stdin\"", &api)
}

async fn certify(ctl: &Ctl, name: &str, request: &str) -> crate::ctl::Answer {
    let body = json!({ "name": name, "request": request }).to_string();
    let request = ctl
        .http()
        .request(Method::POST, ctl.url("/v1/balancer_certificates"));
    ctl.send(request.bearer_auth("0123456789abcdef-s").body(body))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_elsewhere_follows_with_a_certificate_of_its_own() {
    if !balancer::is_there() {
        return;
    }
    let mut ctl = Ctl::start(&following("[\"edge1\"]")).await;
    let _agent = Agent::start_with_token(&ctl, 1, Some("0123456789abcdef-a")).await;
    let edge = Balancer::start(&ctl, tempfile::tempdir().unwrap());
    let request = ctl
        .eventually("its request", async |_| {
            fs::read_to_string(edge.path("request.pem")).ok()
        })
        .await;
    ctl.eventually("what to do", async |_| {
        edge.log()
            .contains("tucano balancer-certificate NAME")
            .then_some(())
    })
    .await;
    certify(&ctl, "edge2", &request)
        .await
        .refused(403, "unknown_balancer");
    certify(&ctl, "edge1", "x")
        .await
        .refused(400, "invalid_certificate_request");
    certify(&ctl, "-", &request)
        .await
        .refused(400, "invalid_certificate_request");
    let issued = certify(&ctl, "edge1", &request).await.expect(200);
    fs::write(
        edge.path("certificate.pem"),
        issued["certificate"].as_str().unwrap(),
    )
    .unwrap();
    ctl.eventually("routes", async |_| {
        edge.log().contains("new routes").then_some(())
    })
    .await;

    // One that is due is renewed by the balancer itself.
    let directory = edge.end();
    let files = Files::open(&directory.path().join("identity")).unwrap();
    let authority = Authority::open(&ctl.path("data/tls")).unwrap();
    let due = Validity::from(SystemTime::now() - DAY * 25);
    let identity = Identity::parse("balancer:edge1").unwrap();
    let old = authority
        .sign(&files.request().unwrap(), &identity, &[], due)
        .unwrap();
    files.store(&old).unwrap();
    let edge = Balancer::start(&ctl, directory);
    ctl.eventually("a new certificate", async |_| {
        let leaf = files.leaf().unwrap().unwrap();
        (!leaf.validity().is_due(SystemTime::now())).then_some(())
    })
    .await;

    // Its name is taken out: it gets nothing more, and the last routes stay in force.
    ctl.write_config(&following("[]"));
    let reload = ctl.http().post(ctl.url("/v1/config/reload"));
    ctl.send(reload.bearer_auth("0123456789abcdef-s"))
        .await
        .expect(200);
    ctl.eventually("the refusal", async |_| {
        edge.log()
            .contains("the controller answered 403")
            .then_some(())
    })
    .await;
    edge.end();
}
