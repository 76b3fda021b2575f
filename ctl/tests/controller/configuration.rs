//! The controller's configuration: validated, refused with an exit code, reloaded.

use std::net::TcpListener;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    agent::Agent,
    ctl::{Answer, Ctl, config, program, run},
};

#[test]
fn check_prints_valid_or_the_error() {
    let output = run(&config(1, "", ""), &["--check"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("valid"));
    let two = config(1, "", "[[topology]]\nkind = \"ctl\"\nip = \"127.0.0.2\"");
    for arguments in [&["--check"][..], &[]] {
        let output = run(&two, arguments);
        assert_eq!(output.status.code(), Some(3));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            message.contains("ctl.toml:11:8: topology names 2 nodes of kind \"ctl\""),
            "{message}"
        );
    }
    assert_eq!(run("", &["--chekc"]).status.code(), Some(2));
}

#[test]
fn a_missing_file_is_named() {
    let output = program("/no/such/ctl.toml".as_ref()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/ctl.toml: cannot be read"));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_directory_and_address_are_exclusive() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let again = program(&ctl.path("ctl.toml")).output().unwrap();
    assert_eq!(again.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&again.stderr).contains("in use by another tucano_ctld"));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = config(1, "", "").replace("\"stdin\"", &format!("\"{address}\""));
    let output = run(&text, &[]);
    assert_eq!(
        output.status.code(),
        Some(5),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_socket_open_to_other_machines_needs_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ctl.toml");
    std::fs::write(&path, config(1, "", "")).unwrap();
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let output = program(&path)
        .stdin(std::os::fd::OwnedFd::from(everywhere))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("without a token"));
}

async fn node_names(ctl: &Ctl) -> Vec<String> {
    let nodes = ctl.get("/v1/nodes").await.expect(200);
    let names = nodes.as_array().unwrap().iter();
    names
        .map(|node| node["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_topology_is_reloaded_by_request_and_by_signal() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    assert_eq!(node_names(&ctl).await, ["127.0.0.1", "w1"]);
    ctl.write_config(&config(2, "lease = \"3s\"", ""));
    let shown = ctl
        .request(Method::POST, "/v1/config/reload", &Value::Null)
        .await
        .expect(200);
    assert_eq!(shown["lease"], "3s");
    assert_eq!(node_names(&ctl).await, ["127.0.0.1", "w1", "w2"]);
    let _second = Agent::start(&ctl, 2).await;
    ctl.eventually("the new worker", async |ctl| {
        (ctl.get("/v1/alive_nodes/w2").await.status == 200).then_some(())
    })
    .await;
    ctl.write_config(&config(3, "", ""));
    ctl.signal(Signal::SIGHUP);
    ctl.eventually("the third worker", async |ctl| {
        (node_names(ctl).await.len() == 4).then_some(())
    })
    .await;
}

async fn reload(ctl: &Ctl, text: &str) -> Answer {
    ctl.write_config(text);
    ctl.request(Method::POST, "/v1/config/reload", &Value::Null)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_file_is_refused_and_the_old_one_stays_in_force() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let before = ctl.get("/v1/config").await.expect(200);
    let error = reload(&ctl, &config(2, "leese = \"3s\"", ""))
        .await
        .refused(422, "invalid_config");
    assert!(
        error.ends_with("ctl.toml:2:1: unknown key \"leese\": did you mean \"lease\"?"),
        "{error}"
    );
    for (text, key) in [
        (
            config(2, "", "").replace("\"data\"", "\"elsewhere\""),
            "data_dir",
        ),
        (
            config(2, "", "").replace("\"stdin\"", "\"127.0.0.1:7070\""),
            "api.listen",
        ),
        (
            config(2, "", "").replace("spawn = false", "spawn = true"),
            "[balancer]",
        ),
        (
            config(2, "", "[limits]\ndatabase_bytes = \"1GiB\""),
            "limits.database_bytes",
        ),
    ] {
        let error = reload(&ctl, &text).await.refused(422, "needs_restart");
        assert!(
            error.contains(key) && error.contains("restart it"),
            "{error}"
        );
    }
    ctl.signal(Signal::SIGHUP);
    ctl.eventually("the refusal in the log", async |ctl| {
        ctl.log()
            .contains("the old one stays in force")
            .then_some(())
    })
    .await;
    assert_eq!(ctl.get("/v1/config").await.expect(200), before);
    assert_eq!(node_names(&ctl).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reloaded_token_is_in_force_at_once_and_never_shown() {
    let (old, new) = ("old-old-old-old-old", "new-new-new-new-new");
    let hook = "[alerts]\nwebhooks = [\"http://user:pass@127.0.0.1:1/hook-secret\"]";
    let mut ctl = Ctl::prepare(&config(1, "token_file = \"token\"", hook));
    std::fs::write(ctl.path("token"), format!("{old}\n")).unwrap();
    ctl.start_again().await;
    let with = |token: &str, method: Method, path: &str| {
        ctl.http().request(method, ctl.url(path)).bearer_auth(token)
    };
    std::fs::write(ctl.path("token"), new).unwrap();
    ctl.send(with(old, Method::POST, "/v1/config/reload"))
        .await
        .expect(200);
    ctl.send(with(old, Method::GET, "/v1/config"))
        .await
        .refused(401, "unauthorized");
    let shown = ctl
        .send(with(new, Method::GET, "/v1/config"))
        .await
        .expect(200);
    assert_eq!(
        (&shown["token"], &shown["agent_token"]),
        (&json!(true), &json!(false))
    );
    for secret in [old, new, "hook-secret", "pass"] {
        assert!(!shown.to_string().contains(secret), "{shown}");
        assert!(!ctl.log().contains(secret), "{}", ctl.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_agent_token_is_valid_beside_the_previous_one() {
    let (old, new) = ("old-old-old-old-old", "new-new-new-new-new");
    let mut ctl = Ctl::prepare(&config(1, "agent_token_file = \"agent-token\"", ""));
    std::fs::write(ctl.path("agent-token"), old).unwrap();
    ctl.start_again().await;
    let status = async |ctl: &Ctl, token: &str| {
        let report = ctl.http().post(ctl.url("/v1/reports"));
        ctl.send(report.bearer_auth(token)).await.status
    };
    assert_eq!(status(&ctl, old).await, 400);
    std::fs::write(ctl.path("agent-token"), new).unwrap();
    reload(
        &ctl,
        &std::fs::read_to_string(ctl.path("ctl.toml")).unwrap(),
    )
    .await
    .expect(200);
    for token in [old, new] {
        assert_eq!(status(&ctl, token).await, 400, "an empty report");
    }
    assert_eq!(status(&ctl, "another-another-another").await, 401);
    // The overlap is a setting.
    let none = config(
        1,
        "agent_token_file = \"agent-token\"\nagent_token_overlap = \"0s\"",
        "",
    );
    reload(&ctl, &none).await.expect(200);
    assert_eq!(status(&ctl, old).await, 401);
    assert_eq!(status(&ctl, new).await, 400);
}
