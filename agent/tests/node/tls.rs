//! The agent's certificate, on a node with an address beyond loopback.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tucano_api::{
    agent::{DesiredSet, VolumeInstance},
    volumes::VolumeExport,
};
use tucano_tls::{Certificates, Identity, Trust, Validity, authority::Name, leaf::Files};

use crate::{
    controller::TOKEN,
    node::{Node, PATIENCE, desired, on_a_node, run},
};

const IP: &str = "10.99.0.1";

/// Gives the node an address, and makes its agent listen there.
fn prepare(node: &mut Node) {
    node.kill_agent();
    run("ip", &["address", "add", &format!("{IP}/32"), "dev", "lo"]);
    let ca_file = node.root.path().join("ca.pem");
    fs::write(&ca_file, node.controller.authority().pem()).unwrap();
    node.reconfigure(|text| {
        let listen = format!("listen = \"0.0.0.0:7071\"\nip = \"{IP}\"\nca_file = {ca_file:?}");
        text.replace("listen = \"127.0.0.1:7071\"", &listen)
    });
}

/// Status of `/healthz` for a client that trusts only the authority.
async fn healthz(node: &Node) -> reqwest::Result<u16> {
    let pem = node.controller.authority().pem();
    let authority = reqwest::Certificate::from_pem_bundle(pem.as_bytes())?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only(authority)
        .build()?;
    let answer = client.get(format!("https://{IP}:7071/healthz")).send();
    Ok(answer.await?.status().as_u16())
}

fn own_identity() -> Identity {
    Identity::Node("w1".to_owned())
}

/// The status of a request with this identity and the token.
async fn status_as(node: &Node, identity: Option<Identity>) -> u16 {
    let request = client_as(node, identity).get(format!("https://{IP}:7071/v1/identity"));
    let answer = request.bearer_auth(TOKEN).send().await.unwrap();
    answer.status().as_u16()
}

/// A client with this identity.
fn client_as(node: &Node, identity: Option<Identity>) -> reqwest::Client {
    let authority = node.controller.authority();
    let certificates = Arc::new(Certificates::default());
    if let Some(identity) = identity {
        let names = [Name::parse("10.99.0.9").unwrap()];
        let validity = Validity::from(SystemTime::now());
        certificates.set(authority.issue(&identity, &names, validity).unwrap());
    }
    let trust = Trust::from_pem(authority.pem()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(trust.client_config(certificates).unwrap());
    client.build().unwrap()
}

async fn wait_until(node: &Node, what: &str, condition: impl Fn(&Node) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition(node) {
        let in_time = tokio::time::Instant::now() < deadline;
        assert!(in_time, "timed out waiting for {what}\n{}", node.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn an_agent_waits_for_its_first_certificate_and_logs_that() {
    on_a_node("", async |mut node| {
        prepare(&mut node);
        node.controller.forget_reports();
        node.controller.set_issuing(false);
        node.agent = Some(node.spawn_agent());
        wait_until(&node, "its word", |node| {
            node.logged().contains("waiting for a certificate")
        })
        .await;
        assert!(healthz(&node).await.unwrap_err().is_connect());
        let own = node
            .client
            .get("http://127.0.0.1:7071/healthz")
            .send()
            .await;
        assert_eq!(own.unwrap().status(), 200);
        assert!(
            node.controller.last_report().is_none(),
            "it reports too early"
        );

        node.controller.set_issuing(true);
        node.wait_for("the first report", |_| Some(())).await;
        assert_eq!(healthz(&node).await.unwrap(), 200);
        let plain = node.client.get(format!("http://{IP}:7071/healthz")).send();
        let plain = plain.await.unwrap();
        assert_eq!(plain.status(), 400);
        assert!(plain.text().await.unwrap().contains("tls_required"));
        assert!(!node.logged().contains("PRIVATE"), "{}", node.logged());
    });
}

#[test]
fn an_agent_with_an_identity_obeys_the_controllers_certificate_only() {
    on_a_node("", async |mut node| {
        prepare(&mut node);
        node.start_agent().await;
        let identity = |text: &str| Identity::parse(text);
        for (caller, expected) in [
            (None, 401),
            (identity("node:w1"), 403),
            (identity("node:w2"), 403),
            (identity("balancer:b1"), 403),
            (identity("controller"), 200),
        ] {
            let status = status_as(&node, caller.clone()).await;
            assert_eq!(status, expected, "{caller:?}");
        }
        let plain = node.client.get("http://127.0.0.1:7071/v1/identity");
        let plain = plain.bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(plain.status(), 401);
    });
}

#[test]
fn a_certificate_is_stored_and_replaced_once_invalid() {
    on_a_node("", async |mut node| {
        prepare(&mut node);
        node.start_agent().await;
        assert_eq!(node.controller.certificates_issued(), 1);
        // The next agent uses the stored one, even if the controller issues none.
        node.kill_agent();
        node.controller.set_issuing(false);
        node.start_agent().await;
        assert_eq!(healthz(&node).await.unwrap(), 200);
        node.controller.set_issuing(true);

        let files = Files::open(&node.data("tls")).unwrap();
        let request = files.request().unwrap();
        let now = SystemTime::now();
        let day = Duration::from_secs(86_400);
        let own: std::net::IpAddr = IP.parse().unwrap();
        let others = "10.99.0.2".parse().unwrap();
        let cases = [
            ("over", own, now - day * 40),
            ("soon over", own, now - day * 25),
            ("for another address", others, now),
        ];
        for (given, (what, ip, issued)) in (2..).zip(cases) {
            node.kill_agent();
            let authority = node.controller.authority();
            let bad = authority
                .sign(
                    &request,
                    &own_identity(),
                    &[Name::Ip(ip)],
                    Validity::from(issued),
                )
                .unwrap();
            files.store(&bad).unwrap();
            node.start_agent().await;
            wait_until(&node, what, |node| {
                node.controller.certificates_issued() == given
            })
            .await;
            let trust = Trust::from_pem(node.controller.authority().pem()).unwrap();
            wait_until(&node, what, |_| {
                let leaf = files.leaf().unwrap().unwrap();
                trust.verify(&leaf, IP, now).is_ok() && !leaf.validity().is_due(now)
            })
            .await;
            assert_eq!(healthz(&node).await.unwrap(), 200, "{what}");
        }
    });
}

/// Sends the agent a desired set as the controller.
async fn put(node: &Node, set: &DesiredSet) {
    node.controller.announce(set.generation.0);
    let controller = client_as(node, Identity::parse("controller"));
    let sent = controller
        .put(format!("https://{IP}:7071/v1/desired"))
        .json(set)
        .send();
    let answer = sent.await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

#[test]
fn a_volume_is_read_by_the_worker_that_it_moves_to_only() {
    if !crate::volumes::can() {
        return;
    }
    on_a_node("", async |mut node| {
        prepare(&mut node);
        node.start_agent().await;
        let export = |instance| VolumeExport {
            volume: VolumeInstance {
                id: "hello/data/1".parse().unwrap(),
                instance,
            },
            to: "w2".parse().unwrap(),
        };
        let with_exports = |generation, processes, instances: &[u64]| DesiredSet {
            exports: instances.iter().map(|it| export(*it)).collect(),
            ..desired(generation, processes)
        };
        let process = crate::volumes::with_volume("hello", 1, "64MiB", "");
        put(&node, &with_exports(1, vec![process], &[1])).await;
        node.wait_until_healthy("hello-1").await;
        let status = async |who: &str, instance: u64, part: &str| {
            let client = client_as(&node, Identity::parse(who));
            let url = format!("https://{IP}:7071/v1/volumes/hello/data/1/{instance}/{part}");
            let answer = client.get(url).bearer_auth(TOKEN).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let (in_use, said) = status("node:w2", 1, "manifest").await;
        assert_eq!(in_use, 409, "{said}");
        assert!(said.contains("in use by hello-1"), "{said}");

        put(&node, &with_exports(2, Vec::new(), &[1, 7])).await;
        node.wait_for("no process", |report| {
            report.processes.is_empty().then_some(())
        })
        .await;
        for (who, instance, part, expected) in [
            ("node:w2", 1, "manifest", 200),
            ("node:w2", 1, "digests", 200),
            ("node:w2", 2, "manifest", 404),
            ("node:w2", 7, "manifest", 409),
            ("node:w2", 1, "image", 400),
            ("node:w3", 1, "manifest", 404),
            ("node:w1", 1, "manifest", 404),
            ("controller", 1, "manifest", 403),
            ("balancer:b1", 1, "manifest", 403),
            ("nobody", 1, "manifest", 401),
        ] {
            let (status, said) = status(who, instance, part).await;
            assert_eq!(status, expected, "{who} {instance} {part}: {said}");
        }
        let (_, manifest) = status("node:w2", 1, "manifest").await;
        assert!(manifest.ends_with("{\"end\":1}\n"), "{manifest}");

        // Not any more.
        put(&node, &with_exports(3, Vec::new(), &[])).await;
        assert_eq!(status("node:w2", 1, "manifest").await.0, 404);
    });
}
