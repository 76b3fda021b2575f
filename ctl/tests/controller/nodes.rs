//! Workers report, go missing, are restarted and return.

use serde_json::{Value, json};

use crate::{
    agent::Agent,
    ctl::{Answer, Ctl, config},
    image,
};

/// A configuration whose worker `w1` has this restart command.
fn with_restart(workers: usize, command: &str) -> String {
    let top = "lease = \"400ms\"\nrestart_attempts = 2\nrestart_backoff = \"10ms\"\nrestart_grace = \"20s\"\nrebalance_after = \"50ms\"";
    config(workers, top, "").replace(
        "name = \"w1\"",
        &format!("name = \"w1\"\nrestart = {command}"),
    )
}

async fn condition(ctl: &Ctl, name: &str) -> Value {
    let nodes = ctl.get("/v1/nodes").await.expect(200);
    let node = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["name"] == name);
    node.unwrap()["condition"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_workers_processes_are_moved_and_not_duplicated_when_it_returns() {
    let mut ctl = Ctl::start(&with_restart(2, "[\"true\"]")).await;
    let (first, second) = (Agent::start(&ctl, 1).await, Agent::start(&ctl, 2).await);
    ctl.deploy_and("?wait=true", &image::config(4, ""), image::archive("one"))
        .await
        .expect(201);
    assert_eq!(first.processes().len(), 2);
    first.cut_off(true);
    ctl.eventually("all four on the other worker", async |ctl| {
        let active = ctl.get("/v1/active_services/hello").await.expect(200);
        let processes = active["processes"].as_array().unwrap().iter();
        let here = processes
            .filter(|p| p["node"] == "w2" && p["routed"] == true)
            .count();
        (here == 4 && second.processes().len() == 4).then_some(())
    })
    .await;
    assert_eq!(condition(&ctl, "w1").await, "missing");
    first.cut_off(false);
    ctl.eventually(
        "the first worker again, without doubled processes",
        async |ctl| {
            let (one, two) = (first.processes(), second.processes());
            let back = condition(ctl, "w1").await == "alive";
            (back && one.len() + two.len() == 4 && one.iter().all(|id| !two.contains(id)))
                .then_some(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_command_is_run_for_its_node() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let command = format!("'echo $TUCANO_NODE $TUCANO_NODE_IP >> {}'", told.display());
    let mut ctl = Ctl::start(&with_restart(1, &command)).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the worker", async |ctl| {
        (condition(ctl, "w1").await == "alive").then_some(())
    })
    .await;
    agent.cut_off(true);
    ctl.eventually("the restart command", async |_| {
        let text = std::fs::read_to_string(&told).ok()?;
        (text.trim() == "w1 127.0.0.11").then_some(())
    })
    .await;
    assert_eq!(condition(&ctl, "w1").await, "missing");
    agent.cut_off(false);
    ctl.eventually("its return", async |ctl| {
        (condition(ctl, "w1").await == "alive").then_some(())
    })
    .await;
    assert_eq!(ctl.get("/v1/dead_nodes").await.expect(200), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_be_restarted_is_dead_with_the_reason() {
    let mut ctl = Ctl::start(&with_restart(1, "\"echo no power >&2; exit 7\"")).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the worker", async |ctl| {
        (condition(ctl, "w1").await == "alive").then_some(())
    })
    .await;
    agent.cut_off(true);
    let dead = ctl
        .eventually("its death", async |ctl| {
            let answer = ctl.get("/v1/dead_nodes/w1").await;
            (answer.status == 200).then_some(answer.body)
        })
        .await;
    let reason = dead["reason"].as_str().unwrap();
    assert!(
        reason.contains("exit status: 7") && reason.contains("no power"),
        "{reason}"
    );
    agent.cut_off(false);
    ctl.eventually("its return", async |ctl| {
        (ctl.get("/v1/dead_nodes").await.expect(200) == json!([])).then_some(())
    })
    .await;
}

async fn post(ctl: &Ctl, report: &Value) -> Answer {
    let request = ctl.http().post(ctl.url("/v1/reports")).json(report);
    ctl.send(request).await
}

/// A report of a node that runs nothing.
fn report(node: &str, ip: &str) -> Value {
    json!({
        "node": node, "ip": ip, "agent_port": 1, "agent_id": "x", "sequence": 1_000_000,
        "version": "0", "architecture": "amd64", "generation": 0, "processes": [],
        "metrics": {
            "cpus": 1, "cpu_used": 0.0, "load": [0.0, 0.0, 0.0], "memory_total": 1,
            "memory_available": 1, "memory_reservable": 1, "disk_total": 1, "disk_available": 1,
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_node_gets_advice() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let known = Agent::start(&ctl, 1).await;
    ctl.eventually("the known one", async |ctl| {
        (condition(ctl, "w1").await == "alive").then_some(())
    })
    .await;
    let stranger = report("w9", "127.0.0.99");
    let error = post(&ctl, &stranger).await.refused(403, "unknown_node");
    assert!(
        error.contains("w9") && error.contains("add it to ctl.toml"),
        "{error}"
    );
    let mut nameless = report("w1", "::ffff:127.0.0.11");
    nameless["node"] = Value::Null;
    let (id, port) = known.id_and_port();
    (nameless["agent_id"], nameless["agent_port"]) = (id.into(), port.into());
    let accepted = post(&ctl, &nameless).await.expect(200);
    assert_eq!(accepted["node"], "w1");
    post(&ctl, &json!({"ip": 3}))
        .await
        .refused(400, "invalid_report");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_nodes_configuration_at_another_address_cannot_report_for_it() {
    let mut ctl = Ctl::start(&with_restart(1, "[\"true\"]")).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the worker", async |ctl| {
        (condition(ctl, "w1").await == "alive").then_some(())
    })
    .await;
    let mut copy = report("w1", "127.0.0.11");
    let error = post(&ctl, &copy).await;
    let error = error.refused(409, "unconfirmed_agent");
    assert!(
        error.contains("127.0.0.11:1") && error.contains("firewalls"),
        "{error}"
    );
    copy["agent_port"] = agent.id_and_port().1.into();
    let error = post(&ctl, &copy).await;
    let error = error.refused(409, "unconfirmed_agent");
    assert!(error.contains("another agent answers there"), "{error}");

    // Nor does it keep a lost node alive.
    agent.cut_off(true);
    ctl.eventually("the loss", async |ctl| {
        (condition(ctl, "w1").await == "missing").then_some(())
    })
    .await;
    post(&ctl, &copy).await.refused(409, "unconfirmed_agent");
    assert_eq!(condition(&ctl, "w1").await, "missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_of_one_node_the_later_one_is_current() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let first = Agent::start(&ctl, 1).await;
    ctl.eventually("the first", async |_| {
        (first.answered()? == 200).then_some(())
    })
    .await;
    let second = Agent::start(&ctl, 1).await;
    ctl.eventually("both to be told", async |_| {
        (second.answered()? == 200 && first.answered()? == 409).then_some(())
    })
    .await;
    ctl.deploy_and("?wait=true", &image::config(2, ""), image::archive("one"))
        .await
        .expect(201);
    assert_eq!((first.processes().len(), second.processes().len()), (0, 2));
    ctl.eventually("the alert", async |ctl| {
        ctl.log()
            .contains("two agents claim to be worker w1")
            .then_some(())
    })
    .await;
    drop(second);
    ctl.eventually("the first again", async |_| {
        (first.answered()? == 200 && first.processes().len() == 2).then_some(())
    })
    .await;
}
