//! What images say of themselves: health checks and volumes.

use reqwest::Method;
use serde_json::{Value, json};
use tucano_api::service::{Health, Probe};
use tucano_api::units::Span;

use crate::{
    agent::Agent,
    ctl::{Ctl, config},
    image,
};

fn archive(declared: Value) -> Vec<u8> {
    let spec = image::spec("one").edit_config(move |whole| {
        let config = whole["config"].as_object_mut().unwrap();
        config.extend(declared.as_object().unwrap().clone());
    });
    spec.build().unwrap().archive().unwrap()
}

/// The health check that the agent got.
async fn sent(ctl: &mut Ctl, agent: &Agent, is_wanted: impl Fn(&Health) -> bool) {
    ctl.eventually("the health check", async |_| {
        let processes = agent.desired_processes();
        let health = &processes.first()?.config.health;
        is_wanted(health).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_images_health_check_is_used_where_the_configuration_names_no_probe() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    let check = json!({ "Test": ["CMD", "/hello", "--check"], "Interval": 5_000_000_000_u64, "StartPeriod": 60_000_000_000_u64 });
    let archive =
        archive(json!({ "Healthcheck": check, "Volumes": { "/data": {}, "/tmp/x/": {} } }));
    let deployed = ctl
        .deploy(&image::config(1, ""), archive.clone())
        .await
        .expect(201);
    let warnings = deployed["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .starts_with("the image declares the volume /data,"),
        "{warnings:?}"
    );
    let command = ["/hello".to_owned(), "--check".to_owned()];
    sent(&mut ctl, &agent, |health| {
        let times = (health.interval, health.timeout, health.grace);
        health.probe() == Probe::Exec(&command)
            && times == (Span::secs(5), Span::secs(30), Span::secs(75))
            && health.of_image.is_none()
    })
    .await;
    // The same deploy is the same revision, with what the controller has filled in.
    let again = ctl
        .deploy(&image::config(1, ""), archive.clone())
        .await
        .expect(200);
    assert_eq!(again["changed"], false);

    let patch = async |body: Value| {
        ctl.request(Method::PATCH, "/v1/services/hello", &body)
            .await
            .expect(200)
    };
    patch(json!({ "health": { "image": false } })).await;
    sent(&mut ctl, &agent, |health| {
        health.probe() == Probe::Tcp && health.interval == Span::secs(1)
    })
    .await;
    let patch = async |body: Value| {
        ctl.request(Method::PATCH, "/v1/services/hello", &body)
            .await
            .expect(200)
    };
    let changed = patch(json!({ "health": { "grace": "5m" } })).await;
    assert_eq!(
        changed.get("warnings"),
        None,
        "it was told before: {changed}"
    );
    sent(&mut ctl, &agent, |health| {
        health.probe() == Probe::Exec(&command) && health.grace == Span::secs(300)
    })
    .await;
    // Another image, another check.
    let plain = ctl
        .deploy(&image::config(1, ""), image::archive("plain"))
        .await
        .expect(200);
    assert_eq!(plain.get("warnings"), None, "{plain}");
    sent(&mut ctl, &agent, |health| health.probe() == Probe::Tcp).await;
    let back = ctl
        .request(Method::POST, "/v1/services/hello/rollback", &json!({}))
        .await;
    back.expect(200);
    sent(&mut ctl, &agent, |health| {
        health.probe() == Probe::Exec(&command)
    })
    .await;
    ctl.kill_9().await;
    ctl.start_again().await;
    let again = ctl.get("/v1/services/hello").await.expect(200);
    let stored = &again["configured"]["config"]["health"]["of_image"]["exec"];
    assert_eq!(stored, &json!(command));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_that_cannot_run_is_told_and_not_used() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    let check = json!({ "Test": ["CMD-SHELL", "curl -f localhost"] });
    let archive = archive(json!({ "Healthcheck": check }));
    let deployed = ctl
        .deploy(&image::config(1, ""), archive.clone())
        .await
        .expect(201);
    let warning = deployed["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with(
            "the image's HEALTHCHECK cannot be used: it has no executable file \"/bin/sh\""
        ),
        "{warning}"
    );
    sent(&mut ctl, &agent, |health| health.probe() == Probe::Tcp).await;
    let own = image::config(1, "health = { tcp = true }");
    let deployed = ctl.deploy(&own, archive).await.expect(200);
    assert_eq!(deployed.get("warnings"), None, "{deployed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_described_to_those_who_configure_services() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let said = json!({
        "User": "1000", "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "Volumes": { "/data": {} }, "StopSignal": "SIGINT",
        "WorkingDir": "/srv", "Healthcheck": { "Test": ["CMD", "/hello"] },
    });
    let deployed = ctl
        .deploy(&image::config(1, ""), archive(said))
        .await
        .expect(201);
    let describe = async |body: Value| {
        let post = ctl.http().post(ctl.url("/v1/images/describe"));
        ctl.send(post.json(&body)).await
    };
    let described = describe(json!({ "image": deployed["image"] }))
        .await
        .expect(200);
    for (key, value) in [
        ("digest", deployed["image"].clone()),
        ("user", json!("1000")),
        ("exposed_ports", json!(["53/udp", "80/tcp"])),
        ("volumes", json!(["/data"])),
        ("stop_signal", json!("SIGINT")),
        ("working_dir", json!("/srv")),
    ] {
        assert_eq!(described[key], value, "{described}");
    }
    assert_eq!(described["health"]["exec"], json!(["/hello"]));
    describe(json!({ "image": "absent:1" }))
        .await
        .refused(404, "no_such_image");
    let listed = describe(json!({ "image": "absent:1", "default_registry": "docker.io" })).await;
    listed.refused(422, "unknown_registry");
    describe(json!({ "image": "./a.tar" }))
        .await
        .refused(400, "no_image");
    describe(json!({ "img": "a" }))
        .await
        .refused(400, "invalid_body");
}
