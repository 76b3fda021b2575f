//! Acknowledged changes survive any end of the controller.

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tucano_testkit::{ROOT, needs, tool};

use crate::{
    agent::Agent,
    ctl::{Ctl, config, program},
    image,
};

/// The durable part of the services: everything that agents do not report.
async fn durable(ctl: &Ctl) -> Value {
    let services = ctl.get("/v1/services").await.expect(200);
    let services = services.as_array().unwrap().iter().map(|service| {
        let processes = service["active"]["processes"].as_array().unwrap().iter();
        let placed: Vec<Value> = processes
            .map(|p| json!([p["id"], p["node"], p["revision"]]))
            .collect();
        json!({"configured": service["configured"], "placed": placed})
    });
    services.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_no_acknowledged_change() {
    let mut ctl = Ctl::start(&config(2, "", "")).await;
    {
        let _agents = [Agent::start(&ctl, 1).await, Agent::start(&ctl, 2).await];
        ctl.deploy_and("?wait=true", &image::config(3, ""), image::archive("one"))
            .await
            .expect(201);
    }
    for concurrency in [4, 5, 6] {
        let patch = json!({"concurrency": concurrency});
        ctl.request(Method::PATCH, "/v1/services/hello", &patch)
            .await
            .expect(200);
        let (before, blobs) = (durable(&ctl).await, ctl.blobs());
        ctl.kill_9().await;
        ctl.start_again().await;
        assert_eq!(durable(&ctl).await, before);
        assert_eq!(ctl.blobs(), blobs);
        assert_eq!(
            before[0]["configured"]["config"]["concurrency"],
            concurrency
        );
    }
    ctl.delete("/v1/services/hello").await.expect(200);
    ctl.kill_9().await;
    ctl.start_again().await;
    assert_eq!(durable(&ctl).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_shutdown_is_quick_and_keeps_everything() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    ctl.deploy(&image::config(1, ""), image::archive("one"))
        .await
        .expect(201);
    let before = durable(&ctl).await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        assert_eq!(ctl.end(signal).await.code(), Some(0), "{}", ctl.log());
        assert!(!ctl.path("data/ctl.sock").exists());
        ctl.start_again().await;
        assert_eq!(durable(&ctl).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_controller_moves_no_process() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.deploy_and("?wait=true", &image::config(2, ""), image::archive("one"))
        .await
        .expect(201);
    let (before, processes) = (durable(&ctl).await, agent.processes());
    ctl.kill_9().await;
    drop(agent);
    ctl.start_again().await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("both processes healthy again", async |ctl| {
        let active = ctl.get("/v1/active_services/hello").await.expect(200);
        (active["healthy"] == 2).then_some(())
    })
    .await;
    assert_eq!(durable(&ctl).await, before);
    let agents = agent.processes();
    assert!(agents == processes, "{agents:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_refuses_a_change_entirely() {
    let limits = "[limits]\ndatabase_bytes = \"256KiB\"";
    let ctl = Ctl::start(&config(1, "revisions_kept = 1", limits)).await;
    let first = ctl
        .deploy(&image::config(1, ""), image::archive("one"))
        .await
        .expect(201);
    let before = durable(&ctl).await;
    let large: serde_json::Map<String, Value> = (0..500)
        .map(|n| (format!("VARIABLE_{n}"), json!("x".repeat(40))))
        .collect();
    let mut refusals = 0;
    for n in 0..40 {
        let service = json!({
            "name": format!("more-{n}"), "concurrency": 1, "port": 1,
            "image": first["image"], "env": large,
        });
        let answer = ctl.request(Method::POST, "/v1/services", &service).await;
        if answer.status == 201 {
            continue;
        }
        let error = answer.refused(507, "disk_full");
        assert!(error.contains("free some space"), "{error}");
        ctl.get(&format!("/v1/services/more-{n}"))
            .await
            .refused(404, "not_found");
        refusals += 1;
    }
    assert!(refusals > 0, "256 KiB held everything");
    let hello: Vec<Value> = durable(&ctl).await.as_array().unwrap().clone();
    assert!(hello.contains(&before[0]), "{hello:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_images_and_changes_and_the_controller_keeps_working() {
    if !needs(&[ROOT, tool("unshare"), tool("mount")]) {
        return;
    }
    let mut ctl = Ctl::prepare(&config(1, "", ""));
    std::fs::create_dir(ctl.path("data")).unwrap();
    let plain = program(&ctl.path("ctl.toml"));
    // The file system exists in the program's mount namespace only.
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount -t tmpfs -o size=1m tmpfs \"$0\" && exec \"$@\"")
        .arg(ctl.path("data"))
        .arg(plain.get_program())
        .args(plain.get_args());
    ctl.start_as(command).await;
    let answer = ctl
        .deploy(&image::config(1, ""), image::large_archive(3 << 20))
        .await;
    answer.refused(507, "disk_full");
    ctl.get("/v1/services").await.expect(200);
    // The refused image is removed, so that a smaller one fits.
    ctl.eventually("room for a small image", async |ctl| {
        let answer = ctl
            .deploy(&image::config(1, ""), image::archive("one"))
            .await;
        (answer.status == 201).then_some(())
    })
    .await;

    // Through the program's root, to fill its file system.
    let data = ctl.path("data");
    let inside = format!("/proc/{}/root{}", ctl.pid(), data.display());
    let filler = std::path::Path::new(&inside).join("filler");
    fill(&filler);
    let before = durable(&ctl).await;
    // The WAL has some room left from earlier transactions.
    let mut refusal = None;
    for n in 0..500 {
        let patch = json!({"env": {"N": n.to_string(), "X": "x".repeat(8000)}});
        let answer = ctl
            .request(Method::PATCH, "/v1/services/hello", &patch)
            .await;
        if answer.status != 200 {
            refusal = Some((answer.refused(507, "disk_full"), n));
            break;
        }
    }
    let (error, changes) = refusal.expect("a full disk took everything");
    assert!(error.contains("free some space"), "{error}");
    let revision = |services: &Value| services[0]["configured"]["revision"].as_u64().unwrap();
    let after = durable(&ctl).await;
    assert_eq!(revision(&after), revision(&before) + changes);
    std::fs::remove_file(&filler).unwrap();
    let patch = json!({"concurrency": 2});
    ctl.request(Method::PATCH, "/v1/services/hello", &patch)
        .await
        .expect(200);
}

/// Writes until the disk is full.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}
