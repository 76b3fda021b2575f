//! Secrets: set, rolled out, given to the workers that need them, and never shown.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    agent::Agent,
    ctl::{Answer, Ctl, config},
    image,
};

const VALUE: &str = "correct-horse-battery-staple";

async fn set(ctl: &Ctl, name: &str, value: impl Into<Vec<u8>>) -> Answer {
    let url = ctl.url(&format!("/v1/secrets/{name}"));
    ctl.send(ctl.http().put(url).body(value.into())).await
}

fn with_secret(more: &str) -> String {
    image::config(1, &format!("[[secret]]\nname = \"password\"\n{more}"))
}

/// Asks as worker `w<n>`.
async fn values(ctl: &Ctl, n: u8, wanted: &[(&str, u64)]) -> Answer {
    let wanted = wanted.iter();
    let wanted = wanted.map(|(name, version)| json!({ "name": name, "version": version }));
    let body = json!({
        "node": format!("w{n}"), "ip": format!("127.0.0.{}", 10 + n), "secrets": wanted.collect::<Vec<Value>>(),
    });
    ctl.request(Method::POST, "/v1/secret_values", &body).await
}

fn decoded(answer: Answer) -> Vec<Vec<u8>> {
    let body = answer.expect(200);
    let values = body["values"].as_array().unwrap().iter();
    values
        .map(|value| BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap())
        .collect()
}

/// Every file below a directory that has these bytes.
fn files_with(directory: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if let Ok(content) = fs::read(&path)
            && content.windows(bytes.len()).any(|window| window == bytes)
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_comes_to_the_worker_that_needs_it_and_nowhere_else() {
    let ctl = Ctl::start(&config(2, "", "")).await;
    let agents = [Agent::start(&ctl, 1).await, Agent::start(&ctl, 2).await];
    for value in [VALUE.as_bytes(), b"\0\xff\n", b"pa$1wor$D\n"] {
        let stored = set(&ctl, "password", value).await.expect(200);
        assert_eq!(stored["changed"], true);
    }
    let stored = set(&ctl, "password", VALUE).await.expect(200);
    let version = stored["version"].as_u64().unwrap();
    let deployed = ctl
        .deploy_and("?wait=true", &with_secret(""), image::archive("one"))
        .await;
    deployed.expect(201);
    let holder = agents.iter().position(|it| !it.processes().is_empty());
    let holder = u8::try_from(holder.unwrap()).unwrap() + 1;
    let other = 3 - holder;
    let wanted = [("password", version)];
    assert_eq!(
        decoded(values(&ctl, holder, &wanted).await),
        [VALUE.as_bytes()]
    );
    values(&ctl, other, &wanted)
        .await
        .refused(403, "secret_not_needed");
    values(&ctl, holder, &[("password", version + 1)])
        .await
        .refused(403, "secret_not_needed");
    values(&ctl, 9, &wanted).await.refused(403, "unknown_node");
    ctl.delete("/v1/services/hello").await.expect(200);
    values(&ctl, holder, &wanted)
        .await
        .refused(403, "secret_not_needed");

    // Nothing that the controller has written, and no other answer, has the value.
    assert_eq!(files_with(&ctl.path(""), VALUE.as_bytes()), [""; 0]);
    let encoded = BASE64_STANDARD.encode(VALUE);
    assert_eq!(files_with(&ctl.path(""), encoded.as_bytes()), [""; 0]);
    for path in [
        "/v1/secrets",
        "/v1/services",
        "/v1/state",
        "/metrics",
        "/v1/config",
    ] {
        let text = ctl.get(path).await.expect(200).to_string();
        assert!(!text.contains(VALUE) && !text.contains(&encoded), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_rolls_the_services_that_have_the_secret() {
    let ctl = Ctl::start(&config(2, "", "")).await;
    let agents = [Agent::start(&ctl, 1).await, Agent::start(&ctl, 2).await];
    set(&ctl, "password", "one").await.expect(200);
    let config = with_secret("");
    let deploy = async || {
        let deployed = ctl.deploy_and("?wait=true", &config, image::archive("one"));
        let answer = deployed.await;
        assert!(answer.status.is_success(), "{}", answer.body);
        answer.body
    };
    deploy().await;
    // The same value, and the same configuration, change nothing.
    let same = set(&ctl, "password", "one").await.expect(200);
    assert_eq!(
        (&same["changed"], &same["services"]),
        (&json!(false), &json!([]))
    );
    assert_eq!(deploy().await["changed"], false);
    let new = set(&ctl, "password", "two").await.expect(200);
    assert_eq!(
        (&new["changed"], &new["services"]),
        (&json!(true), &json!(["hello"]))
    );
    let service = ctl.get("/v1/services/hello").await.expect(200);
    assert_eq!(service["configured"]["revision"], 2);
    let version = &service["configured"]["config"]["secret"][0]["version"];
    assert_eq!(version, &new["version"]);
    assert_eq!(deploy().await["changed"], false);

    // A rollback has the earlier value.
    let url = ctl.url("/v1/services/hello/rollback?wait=true");
    let back = ctl.send(ctl.http().post(url)).await.expect(200);
    assert_eq!(back["revision"], 3);
    let service = ctl.get("/v1/services/hello").await.expect(200);
    let version = &service["configured"]["config"]["secret"][0]["version"];
    assert_eq!(version, &same["version"]);
    let processes = agents.iter().flat_map(Agent::processes);
    assert!(processes.count() >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_by_name_and_changes_nothing() {
    let limits = "[limits]\nsecrets = 2\nsecret_bytes = \"1KiB\"";
    let mut ctl = Ctl::start(&config(1, "", limits)).await;
    let _agent = Agent::start(&ctl, 1).await;
    let image = || image::archive("one");
    let two = image::config(
        1,
        "[[secret]]\nname = \"password\"\n[[secret]]\nname = \"key\"\n",
    );
    let missing = ctl.deploy(&two, image()).await;
    let error = missing.refused(422, "no_such_secret");
    assert!(error.contains("no secrets password, key"), "{error}");
    ctl.get("/v1/services/hello")
        .await
        .refused(404, "not_found");

    set(&ctl, "password", "").await.refused(400, "empty_secret");
    let large = set(&ctl, "password", vec![b'x'; 1025]).await;
    assert!(
        large
            .refused(413, "too_large")
            .contains("limits.secret_bytes")
    );
    for name in ["..", "a%2Fb", "a%20b"] {
        let answer = set(&ctl, name, "x").await;
        assert!(answer.status.is_client_error(), "{name}");
    }
    assert_eq!(ctl.get("/v1/secrets").await.expect(200), json!([]));
    set(&ctl, "password", vec![b'x'; 1024]).await.expect(200);
    set(&ctl, "binary", b"a\0b".to_vec()).await.expect(200);
    let third = set(&ctl, "third", "x").await;
    assert!(
        third
            .refused(409, "too_many_secrets")
            .contains("limits.secrets")
    );

    // A variable cannot be what no variable can be: at the deploy, and when the value changes.
    let variable =
        |name: &str| image::config(1, &format!("[[secret]]\nname = \"{name}\"\nenv = \"X\"\n"));
    let error = ctl.deploy(&variable("binary"), image()).await;
    let error = error.refused(409, "not_a_variable");
    assert!(error.contains("NUL") && error.contains("`path`"), "{error}");
    ctl.deploy(&variable("password"), image()).await.expect(201);
    let error = set(&ctl, "password", b"a\0b".to_vec()).await;
    assert!(error.refused(409, "not_a_variable").contains("hello"));

    // In use, by the current revision and by one that can be rolled back to.
    let large = image::config(
        1,
        &(0..40)
            .map(|n| format!("[[secret]]\nname = \"password\"\nenv = \"V{n}\"\n"))
            .collect::<String>(),
    );
    ctl.deploy(&large, image()).await.expect(200);
    ctl.deploy(&variable("password"), image()).await.expect(200);
    let delete = async |query: &str| ctl.delete(&format!("/v1/secrets/password{query}")).await;
    let error = delete("?force=true").await.refused(409, "secret_in_use");
    assert!(error.contains("hello: deploy without it first"), "{error}");
    let without = image::config(1, "");
    let deployed = ctl.deploy_and("?wait=true", &without, image());
    deployed.await.expect(200);
    let error = delete("").await.refused(409, "secret_in_use");
    assert!(error.contains("revision 1 of hello"), "{error}");
    // The last process that has it may still end.
    ctl.eventually("the removal", async |ctl| {
        let removed = ctl.delete("/v1/secrets/password?force=true").await;
        (removed.status == 200).then_some(())
    })
    .await;
    ctl.delete("/v1/secrets/password")
        .await
        .refused(404, "not_found");
    let url = ctl.url("/v1/services/hello/rollback");
    let error = ctl.send(ctl.http().post(url)).await;
    assert!(error.refused(422, "no_such_secret").contains("password"));
    ctl.delete("/v1/secrets/binary").await.expect(200);
    assert_eq!(ctl.get("/v1/secrets").await.expect(200), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_changed_and_a_lost_one_is_told() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    let stored = set(&ctl, "password", VALUE).await.expect(200);
    let wanted = [("password", stored["version"].as_u64().unwrap())];
    let deployed = ctl
        .deploy_and("?wait=true", &with_secret(""), image::archive("one"))
        .await;
    deployed.expect(201);
    let key_file = ctl.path("data/secrets.key");
    let mode = fs::metadata(&key_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = fs::read_to_string(&key_file).unwrap();

    let rekeyed = ctl
        .request(Method::POST, "/v1/secret_key", &Value::Null)
        .await;
    assert_eq!(rekeyed.expect(200), json!({ "secrets": 1 }));
    let second = fs::read_to_string(&key_file).unwrap();
    assert_ne!(first, second);
    assert_eq!(second.lines().count(), first.lines().count());
    assert_eq!(decoded(values(&ctl, 1, &wanted).await), [VALUE.as_bytes()]);

    // With the key of before, as after the restore of a wrong backup: everything goes on, and secrets are told of.
    ctl.kill_9().await;
    fs::write(&key_file, &first).unwrap();
    ctl.start_again().await;
    ctl.eventually("the alert", async |ctl| {
        ctl.log()
            .contains("does not have: restore the key file")
            .then_some(())
    })
    .await;
    let again = Agent::start(&ctl, 1).await;
    ctl.eventually("the service", async |ctl| {
        let service = ctl.get("/v1/services/hello").await.expect(200);
        (service["active"]["processes"][0]["state"] == "healthy").then_some(())
    })
    .await;
    values(&ctl, 1, &wanted)
        .await
        .refused(500, "secret_unreadable");
    // Nothing is encrypted with a key that may be the wrong one, and no file is written over.
    let rekey = async || {
        let body = Value::Null;
        ctl.request(Method::POST, "/v1/secret_key", &body).await
    };
    let refused = set(&ctl, "other", "x").await;
    refused.refused(500, "secret_unreadable");
    rekey().await.refused(500, "secret_unreadable");
    assert_eq!(fs::read_to_string(&key_file).unwrap(), first);
    fs::remove_file(&key_file).unwrap();
    for refused in [set(&ctl, "other", "x").await, rekey().await] {
        let error = refused.refused(500, "secret_unreadable");
        assert!(error.contains("is missing: restore it"), "{error}");
    }
    assert!(!key_file.exists());
    // The file counts as soon as it is back.
    fs::write(&key_file, &second).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(decoded(values(&ctl, 1, &wanted).await), [VALUE.as_bytes()]);
    assert!(!ctl.log().contains(VALUE));
    drop((agent, again));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_between_machines_carries_no_secret() {
    let text = config(1, "token = \"0123456789abcdef-sysadmin\"", "")
        .replace("listen = \"stdin\"", "listen = \"stdin\"\ntls = \"off\"");
    let ctl = Ctl::start(&text).await;
    let url = ctl.url("/v1/secrets/password");
    let request = ctl.http().put(url).body("x");
    let answer = ctl
        .send(request.bearer_auth("0123456789abcdef-sysadmin"))
        .await;
    answer.refused(422, "needs_tls");
}
