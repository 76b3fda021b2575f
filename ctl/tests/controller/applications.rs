//! Services that are deployed together.

use serde_json::{Value, json};

use crate::{
    agent::Agent,
    ctl::{Answer, Ctl, config},
    image,
};

async fn stored(ctl: &Ctl, content: &str) -> String {
    let config = image::config(1, "");
    let deployed = ctl.deploy(&config, image::archive(content)).await.body;
    deployed["image"].as_str().unwrap().to_owned()
}

fn service(name: &str, image: &str, more: Value) -> Value {
    let mut service = json!({ "name": name, "concurrency": 1, "port": 80, "image": image });
    for (key, value) in more.as_object().unwrap() {
        service[key] = value.clone();
    }
    service
}

async fn deploy(ctl: &Ctl, services: &[Value]) -> Answer {
    let body = json!({ "services": services });
    let post = ctl.http().post(ctl.url("/v1/applications"));
    ctl.send(post.json(&body)).await
}

async fn names(ctl: &Ctl) -> Vec<String> {
    let services = ctl.get("/v1/services").await.expect(200);
    let services = services.as_array().unwrap().iter();
    let name = |it: &Value| it["configured"]["name"].as_str().unwrap().to_owned();
    services.map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_need_each_other_are_configured_at_once() {
    let mut ctl = Ctl::start(&config(2, "", "")).await;
    let _agents = [Agent::start(&ctl, 1).await, Agent::start(&ctl, 2).await];
    let image = stored(&ctl, "one").await;
    let services = [
        service(
            "api",
            &image,
            json!({ "needs": ["db", "web"], "start_after": ["db"] }),
        ),
        service("db", &image, json!({ "needs": ["api"] })),
        service(
            "web",
            &image,
            json!({ "needs": ["api"], "placement": { "with": ["api"] } }),
        ),
    ];
    let deployed = deploy(&ctl, &services).await.expect(200);
    let deployed: Vec<_> = deployed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            (
                it["name"].clone(),
                it["revision"].clone(),
                it["changed"].clone(),
            )
        })
        .collect();
    let new = |name: &str| (json!(name), json!(1), json!(true));
    assert_eq!(deployed, [new("api"), new("db"), new("web")]);
    ctl.eventually("all are healthy", async |ctl| {
        let services = ctl.get("/v1/services").await.expect(200);
        let mut services = services.as_array().unwrap().iter();
        services
            .all(|it| it["active"]["healthy"] == 1)
            .then_some(())
    })
    .await;
    let again = deploy(&ctl, &services).await.expect(200);
    assert!(
        again
            .as_array()
            .unwrap()
            .iter()
            .all(|it| it["changed"] == false),
        "{again}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_refused_keeps_all_of_them_away() {
    let limits = "[limits]\napplication_services = 2\nservices = 4\nconfig_bytes = 400";
    let mut ctl = Ctl::start(&config(1, "", limits)).await;
    let _agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the worker's report", async |ctl| {
        let alive = ctl.get("/v1/alive_nodes").await.expect(200);
        (!alive.as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    let image = stored(&ctl, "one").await;
    let plain = |name: &str| service(name, &image, json!({}));
    let with = |name: &str, more: Value| service(name, &image, more);
    let missing = format!("sha256:{}", "0".repeat(64));
    for (services, status, code, part) in [
        (
            vec![with("a", json!({ "needs": ["b", "c"] })), plain("b")],
            422,
            "unknown_service",
            "needs of a: there is no service c",
        ),
        (
            vec![
                with("a", json!({ "start_after": ["b"] })),
                with("b", json!({ "start_after": ["a"] })),
            ],
            409,
            "names",
            "it would wait for itself",
        ),
        (
            vec![
                with("a", json!({ "hosts": ["x.example"] })),
                with("b", json!({ "hosts": ["x.example"] })),
            ],
            409,
            "host_taken",
            "already belongs to service",
        ),
        (
            vec![
                with("a", json!({ "placement": { "with": ["b"] } })),
                with("b", json!({ "placement": { "apart_from": ["a"] } })),
            ],
            422,
            "does_not_fit",
            "",
        ),
        (
            vec![plain("a"), plain("a")],
            400,
            "invalid_config",
            "a is named twice",
        ),
        (
            vec![plain("a"), with("b", json!({ "prot": 80 }))],
            400,
            "invalid_config",
            "prot",
        ),
        (
            vec![plain("a"), service("b", &missing, json!({}))],
            422,
            "not_found",
            "b: ",
        ),
        (
            vec![plain("a"), service("b", "no-such:1", json!({}))],
            404,
            "no_such_image",
            "b: image: the registry has no no-such:1",
        ),
        (
            vec![plain("a"), plain("b"), plain("c")],
            413,
            "too_large",
            "limits.application_services in ctl.toml allows 2",
        ),
        (
            vec![plain("a"), with("b", json!({ "memory": "1TiB" }))],
            422,
            "does_not_fit",
            "b: memory: no worker can ever give 1.0 TiB",
        ),
        (
            vec![with("a", json!({ "env": { "LONG": "x".repeat(900) } }))],
            413,
            "too_large",
            "limits.application_services, in ctl.toml sets this limit",
        ),
    ] {
        let error = deploy(&ctl, &services).await.refused(status, code);
        assert!(error.contains(part), "{error}");
        assert_eq!(names(&ctl).await, ["hello"], "{error}");
    }
    ctl.kill_9().await;
    ctl.start_again().await;
    assert_eq!(names(&ctl).await, ["hello"]);
    deploy(&ctl, &[plain("a"), plain("b")]).await.expect(200);
    let too_many = deploy(&ctl, &[plain("c"), plain("d")]).await;
    let error = too_many.refused(409, "too_many_services");
    assert!(
        error.starts_with("there are 3 services, and limits.services in ctl.toml allows 4"),
        "{error}"
    );
    // Others of what is there are no more services.
    deploy(&ctl, &[plain("b"), plain("c")]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_lacks_is_looked_for_where_short_names_belong() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let body = |registry: &str| json!({ "services": [service("db", "postgres:16", json!({}))], "default_registry": registry });
    for (registry, full) in [
        ("docker.io", "docker.io/library/postgres:16"),
        ("mirror.example", "mirror.example/postgres:16"),
    ] {
        let post = ctl.http().post(ctl.url("/v1/applications"));
        let refused = ctl.send(post.json(&body(registry))).await;
        let error = refused.refused(422, "unknown_registry");
        let start = format!(
            "db: image: the registry has no postgres:16, and {full} cannot be used: the registry {registry} is not listed"
        );
        assert!(error.starts_with(&start), "{error}");
    }
}
