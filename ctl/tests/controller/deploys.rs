//! Deploying, changing and removing services.

use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::json;
use tucano_api::agent::{Exit, ProcessState};
use tucano_api::units::Timestamp;

use crate::{
    agent::Agent,
    ctl::{Ctl, config},
    image,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_waits_until_all_processes_are_healthy_and_routed() {
    let ctl = Ctl::start(&config(3, "", "")).await;
    let agents = [
        Agent::start(&ctl, 1).await,
        Agent::start(&ctl, 2).await,
        Agent::start(&ctl, 3).await,
    ];
    let deployed = ctl
        .deploy_and("?wait=true", &image::config(7, ""), image::archive("one"))
        .await
        .expect(201);
    assert_eq!(deployed["healthy"], true);
    assert_eq!(deployed["revision"], 1);
    let mut counts: Vec<usize> = agents.iter().map(|agent| agent.processes().len()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 2, 3]);
    let state = ctl.get("/v1/state").await.expect(200);
    let keys: Vec<&String> = state.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "active_services",
            "alive_nodes",
            "configured_services",
            "dead_nodes"
        ]
    );
    let active = &state["active_services"][0];
    assert_eq!(active["healthy"], 7);
    let record = ctl
        .get(active["configured_service"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(record, state["configured_services"][0]);
    assert_eq!(record["config"]["image"], deployed["image"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_accepted_in_either_order_and_a_redeploy_changes_nothing() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let form = |image: Vec<u8>| {
        Form::new()
            .part("image", Part::bytes(image).file_name("x.tar"))
            .part("config", Part::text(image::config(1, "")))
    };
    let first = ctl
        .send_form("", form(image::archive("one")))
        .await
        .expect(201);
    assert_eq!(first["changed"], true);
    let again = ctl
        .deploy(&image::config(1, ""), image::archive("one"))
        .await
        .expect(200);
    assert_eq!(
        (&again["changed"], &again["revision"]),
        (&json!(false), &json!(1))
    );
    let other = ctl
        .deploy(&image::config(1, ""), image::archive("two"))
        .await
        .expect(200);
    assert_eq!(other["revision"], 2);
    assert_ne!(other["image"], first["image"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_image_deploys_by_its_digest_as_toml_and_as_json() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let first = ctl
        .deploy(&image::config(1, ""), image::archive("one"))
        .await
        .expect(201);
    let digest = first["image"].as_str().unwrap();
    let toml = format!("name = \"other\"\nconcurrency = 1\nport = 80\nimage = \"{digest}\"");
    let post = || ctl.http().post(ctl.url("/v1/services"));
    ctl.send(post().body(toml)).await.expect(201);
    let json = json!({"name": "third", "concurrency": 1, "port": 80, "image": digest});
    ctl.send(post().json(&json)).await.expect(201);
    let names = ctl.get("/v1/services").await.expect(200);
    let names: Vec<&str> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["configured"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["hello", "other", "third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unhealthy_processes_are_listed_with_their_reasons() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    agent.report_as(|process, report| {
        if process.id.number() == 2 {
            report.state = ProcessState::BackOff;
            report.restarts = 5;
            report.last_exit = Some(Exit {
                code: Some(1),
                signal: None,
                oom_killed: false,
                disk_exceeded: false,
                memory_peak: None,
                at: Timestamp(1),
            });
        }
    });
    let answer = ctl
        .deploy_and(
            "?wait=true&timeout=10m",
            &image::config(2, ""),
            image::archive("one"),
        )
        .await;
    let error = answer.error().to_owned();
    let body = answer.expect(503);
    assert_eq!(
        body["unhealthy"],
        json!(["hello-2 on w1: back_off: ended with exit code 1"])
    );
    assert_eq!(
        (&body["code"], &body["healthy"]),
        (&json!("not_healthy"), &json!(false))
    );
    assert!(error.contains("keep failing"), "{error}");
    let failure = &body["failures"][0];
    assert_eq!(failure["process"], json!("hello-2"));
    assert_eq!(failure["reason"], json!("ended with exit code 1"));
    assert_eq!(
        failure["log"],
        json!([
            "I am hello-2",
            "asked for stream=both tail=10 follow=false format=cri"
        ])
    );
}

/// The first new process crashes: the wait ends although the old one is still there, and that one serves on.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_of_a_rollout_ends_the_wait_and_the_old_revision_serves() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.deploy_and("?wait=true", &image::config(1, ""), image::archive("one"))
        .await
        .expect(201);
    agent.report_as(|process, report| {
        if process.revision.0 == 2 {
            report.state = ProcessState::BackOff;
            report.attempts = 6;
            report.reason = Some("cannot run /app: No such file or directory".to_owned());
        }
    });
    let answer = ctl
        .deploy_and(
            "?wait=true&timeout=10m",
            &image::config(1, ""),
            image::archive("two"),
        )
        .await;
    let body = answer.expect(503);
    let hints = body["failures"][0]["hints"].to_string();
    assert!(hints.contains("does not contain the program"), "{body}");
    let service = ctl.get("/v1/services/hello").await.expect(200);
    let processes = service["active"]["processes"].as_array().unwrap();
    let old = processes
        .iter()
        .find(|process| process["revision"] == json!(1));
    assert_eq!(old.unwrap()["routed"], json!(true), "{service}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_worker_can_ever_run_is_refused_at_once() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let _agent = Agent::start(&ctl, 1).await;
    let digest = ctl
        .deploy_and("?wait=true", &image::config(1, ""), image::archive("one"))
        .await
        .expect(201)["image"]
        .clone();
    for (more, part) in [
        (
            "memory = \"1TiB\"",
            "memory: no worker can ever give 1.0 TiB",
        ),
        ("cpus = 100.0", "cpus: no worker has 100 CPUs"),
        ("cpus_reserved = 100", "cpus_reserved: no worker can ever"),
        (
            "placement = { labels = { zone = \"b\" } }",
            "placement.labels: no worker has zone=b (w1: no zone)",
        ),
        (
            "placement = { with = [\"db\"] }",
            "placement.with: there is no service db",
        ),
    ] {
        let text = format!("name = \"big\"\nconcurrency = 1\nport = 80\nimage = {digest}\n{more}");
        let post = ctl.http().post(ctl.url("/v1/services")).body(text);
        let answer = ctl.send(post).await;
        assert!(answer.error().starts_with(part), "{}", answer.error());
        assert_eq!(answer.expect(422)["code"], json!("does_not_fit"));
    }
    let patch = json!({"memory": "1TiB"});
    let patched = ctl
        .request(Method::PATCH, "/v1/services/hello", &patch)
        .await;
    assert_eq!(patched.status, 422);
    let services = ctl.get("/v1/services").await.expect(200);
    assert_eq!(services.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_its_timeout() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let answer = ctl
        .deploy_and(
            "?wait=true&timeout=300ms",
            &image::config(1, ""),
            image::archive("one"),
        )
        .await;
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("after 300ms"), "{}", answer.error());
    assert!(answer.error().contains("pending"), "{}", answer.error());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_creates_a_revision_and_a_removal_leaves_nothing() {
    let mut ctl = Ctl::start(&config(2, "drain = \"10ms\"", "")).await;
    let agents = [Agent::start(&ctl, 1).await, Agent::start(&ctl, 2).await];
    ctl.deploy_and("?wait=true", &image::config(2, ""), image::archive("one"))
        .await
        .expect(201);
    let patch = json!({"concurrency": 4, "hosts": ["www.example"]});
    let changed = ctl
        .request(Method::PATCH, "/v1/services/hello?wait=true", &patch)
        .await
        .expect(200);
    assert_eq!(
        (&changed["revision"], &changed["healthy"]),
        (&json!(2), &json!(true))
    );
    let running = |agents: &[Agent; 2]| agents.iter().map(|a| a.processes().len()).sum::<usize>();
    assert_eq!(running(&agents), 4);
    let error = ctl
        .request(Method::PATCH, "/v1/services/hello", &json!({"prot": 1}))
        .await;
    assert_eq!(
        error.refused(400, "invalid_config"),
        "patch: unknown key \"prot\": did you mean \"port\"?"
    );
    ctl.delete("/v1/services/hello?wait=true").await.expect(200);
    assert_eq!(running(&agents), 0);
    ctl.get("/v1/services/hello")
        .await
        .refused(404, "not_found");
    ctl.delete("/v1/services/hello")
        .await
        .refused(404, "not_found");
    ctl.eventually("the image's removal", async |ctl| {
        ctl.blobs().is_empty().then_some(())
    })
    .await;
}

/// The agent says what its process uses, in MiB, of which the kernel can reclaim half.
fn uses(agent: &Agent, mib: u64) {
    agent.report_as(move |_, report| {
        report.metrics = Some(tucano_api::agent::ProcessMetrics {
            memory_current: tucano_api::units::Bytes::mib(mib),
            memory_reclaimable: tucano_api::units::Bytes::mib(mib / 2),
            pids_current: 30,
            ..Default::default()
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_change_as_processes_run_unless_they_use_more() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    uses(&agent, 200);
    ctl.deploy_and("?wait=true", &image::config(1, ""), image::archive("one"))
        .await
        .expect(201);
    ctl.eventually("the process's use is known", async |ctl| {
        let service = ctl.get("/v1/services/hello").await.expect(200);
        let used = &service["active"]["processes"][0]["metrics"]["memory_current"];
        (!used.is_null()).then_some(())
    })
    .await;
    let patch = async |change: serde_json::Value| {
        let path = "/v1/services/hello?wait=true";
        ctl.request(Method::PATCH, path, &change).await
    };
    for (change, part) in [
        (
            json!({"memory": "99MiB"}),
            "process hello-1 on w1 uses 100 MiB now, more than `memory` = 99 MiB",
        ),
        (
            json!({"pids": 29}),
            "process hello-1 on w1 has 30 processes and threads now, more than `pids` = 29",
        ),
    ] {
        let refused = patch(change).await.refused(409, "limit_in_use");
        assert!(refused.starts_with(part), "{refused}");
    }
    let service = ctl.get("/v1/services/hello").await.expect(200);
    assert_eq!(service["configured"]["revision"], 1, "nothing has changed");

    let changed = patch(json!({"memory": "100MiB", "app": "shop", "stop_timeout": "1s"})).await;
    assert_eq!(changed.expect(200)["revision"], 2);
    assert_eq!(agent.processes(), ["hello-1"]);
    let service = ctl.get("/v1/services/hello").await.expect(200);
    let process = &service["active"]["processes"][0];
    assert_eq!(
        (&process["revision"], &process["current"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(service["configured"]["config"]["app"], "shop");
    let state = ctl.get("/v1/state").await.expect(200);
    assert_eq!(state["configured_services"][0]["config"]["app"], "shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_for_an_earlier_revision_changes_nothing() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let with = |value: &str| image::config(1, &format!("env = {{ VALUE = \"{value}\" }}"));
    let deploy = async |query: &str, value: &str| {
        let query = format!("?if_revision={query}");
        ctl.deploy_and(&query, &with(value), image::archive("one"))
            .await
    };
    let error = deploy("1", "a").await.refused(409, "revision_changed");
    assert!(
        error.starts_with(
            "hello: there is no such service, not revision 1: somebody else was faster"
        ),
        "{error}"
    );
    ctl.get("/v1/services/hello")
        .await
        .refused(404, "not_found");
    deploy("0", "a").await.expect(201);
    let error = deploy("0", "b").await.refused(409, "revision_changed");
    assert!(
        error.contains("the newest revision is 1, not revision 0"),
        "{error}"
    );
    deploy("1", "b").await.expect(200);
    // Its answer was lost: sent once more, it has changed nothing, and is not refused.
    assert_eq!(deploy("1", "b").await.expect(200)["changed"], false);
    deploy("1", "c").await.refused(409, "revision_changed");
    let change = async |query: &str| {
        let path = format!("/v1/services/hello?if_revision={query}");
        let body = json!({ "env": { "VALUE": "d" } });
        ctl.request(Method::PATCH, &path, &body).await
    };
    change("1").await.refused(409, "revision_changed");
    assert_eq!(change("2").await.expect(200)["revision"], 3);

    // Of two that are as fast, one wins.
    let (one, other) = tokio::join!(deploy("3", "e"), deploy("3", "f"));
    let mut answers = [one.status.as_u16(), other.status.as_u16()];
    answers.sort_unstable();
    assert_eq!(answers, [200, 409]);
    let revisions = ctl.get("/v1/services/hello/revisions").await.expect(200);
    assert_eq!(revisions.as_array().unwrap().last().unwrap()["revision"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_replaces_the_processes_and_makes_no_revision() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    let config = image::config(2, "");
    let deployed = ctl.deploy_and("?wait=true", &config, image::archive("one"));
    deployed.await.expect(201);
    let before = agent.processes();
    let restart = async |name: &str, query: &str| {
        let url = ctl.url(&format!("/v1/services/{name}/restart{query}"));
        ctl.send(ctl.http().post(url)).await
    };
    let restarted = restart("hello", "?wait=true").await.expect(200);
    assert_eq!(
        (&restarted["revision"], &restarted["healthy"]),
        (&json!(1), &json!(true))
    );
    let service = ctl.get("/v1/services/hello").await.expect(200);
    let processes = service["active"]["processes"].as_array().unwrap();
    let routed = processes.iter().filter(|it| it["routed"] == true);
    assert_eq!(routed.clone().count(), 2, "{service}");
    for process in routed {
        let id = process["id"].as_str().unwrap();
        assert!(!before.contains(&id.to_owned()), "{process}");
    }
    restart("nobody", "").await.refused(404, "not_found");
    let job = "name = \"nightly\"\nkind = \"job\"\n";
    ctl.deploy(job, image::archive("one")).await.expect(201);
    restart("nightly", "").await.refused(409, "job");
}
