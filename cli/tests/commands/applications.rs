//! Deploys of applications.

use std::fs;

use serde_json::{Value, json};

use crate::{code, controller::Controller, digest, printed, said, tucano};

fn configured(name: &str) -> Value {
    json!({ "name": name, "revision": 1, "image": digest(), "changed": true })
}

fn run(outcome: Option<&str>) -> String {
    let mut run = json!({
        "service": "setup", "number": 1, "revision": 1, "trigger": { "kind": "request" }, "created_at": 0, "epoch": 1, "retries": 0,
        "completions": 1, "parallelism": 1,
    });
    if let Some(outcome) = outcome {
        run["result"] = json!(outcome);
        run["ended_at"] = json!(1);
    }
    run.to_string()
}

/// A controller without services, on which a run has this outcome.
fn controller(outcome: &'static str) -> Controller {
    Controller::start(move |line, _| match line {
        "GET /v1/services" => (200, "[]".to_owned()),
        "POST /v1/jobs/setup/runs" => (202, run(None)),
        "GET /v1/jobs/setup/runs/1" => (200, run(Some(outcome))),
        "POST /v1/applications" => (
            200,
            json!([configured("db"), configured("setup")]).to_string(),
        ),
        _ => (
            404,
            json!({ "error": line, "code": "not_found" }).to_string(),
        ),
    })
}

const COMPOSE: &str = "
name: forum
services:
  web: { image: 'forum:3', expose: [80], depends_on: { setup: { condition: service_completed_successfully } } }
  setup: { image: 'forum:3', depends_on: [db] }
  db: { image: 'postgres:16' }
";

/// The requests that change something: their lines, and the services with their needs.
fn changes(controller: &Controller) -> Vec<(String, Value)> {
    let requests = controller.requests().into_iter();
    let requests = requests.filter(|it| it.line.starts_with("POST"));
    requests
        .map(|request| {
            let mut body: Value = serde_json::from_slice(&request.body).unwrap();
            if let Some(services) = body["services"].as_array() {
                let services = services.iter().map(|it| json!([it["name"], it["needs"]]));
                body = services.collect();
            }
            (request.line, body)
        })
        .collect()
}

#[test]
fn a_job_that_others_wait_for_is_run_once_between_two_stages() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("compose.yaml");
    fs::write(&file, COMPOSE).unwrap();
    let file = file.to_str().unwrap();
    let deploy = ["deploy", file, "--no-wait"];

    let all_well = controller("succeeded");
    let output = tucano(&all_well, &deploy);
    // `db` has no answer: what the job waits for has to be healthy, whatever --no-wait says.
    assert_eq!(code(&output), 7, "{output:?}");

    let without_order = COMPOSE.replace(", depends_on: [db]", "");
    fs::write(file, without_order).unwrap();
    let output = tucano(&all_well, &deploy);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let applications = "POST /v1/applications".to_owned();
    let all = changes(&all_well);
    let expected = [
        // The first command.
        (
            applications.clone(),
            json!([["db", null], ["setup", ["db"]]]),
        ),
        (
            applications.clone(),
            json!([["db", null], ["setup", ["db"]]]),
        ),
        (
            "POST /v1/jobs/setup/runs".to_owned(),
            json!({ "once": true }),
        ),
        (applications.clone(), json!([["web", ["db"]]])),
        (applications, json!([["db", ["web"]]])),
    ];
    assert_eq!(all, expected);

    let failing = controller("failed");
    let output = tucano(&failing, &deploy);
    assert_eq!(code(&output), 4, "{output:?}");
    let text = said(&output);
    assert!(text.contains("not deployed: web\n"), "{text}");
    assert!(text.contains("run setup/1 failed"), "{text}");
    assert_eq!(changes(&failing).len(), 2);
    let output = tucano(&failing, &[&deploy[..], &["--json"]].concat());
    let error: Value = serde_json::from_str(printed(&output).trim()).unwrap();
    assert_eq!(
        (&error["code"], &error["exit_code"]),
        (&json!("job_failed"), &json!(4))
    );
}

#[test]
fn who_was_slower_gets_an_exit_code_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.toml");
    let config = "name = \"web\"\nconcurrency = 1\nport = 80\nimage = \"web:1\"\n";
    fs::write(&file, config).unwrap();
    let body = json!({ "error": "web: the newest revision is 4, not revision 3", "code": "revision_changed" });
    let controller = Controller::answering(409, &body.to_string());
    let file = file.to_str().unwrap();
    let output = tucano(&controller, &["deploy", file, "--if-changed-from", "3"]);
    assert_eq!(code(&output), 8);
    assert!(
        said(&output).contains("the newest revision is 4"),
        "{output:?}"
    );
    assert_eq!(
        controller.requests()[0].line,
        "POST /v1/services?if_revision=3"
    );

    fs::write(directory.path().join("compose.yaml"), COMPOSE).unwrap();
    let application = directory.path().join("compose.yaml");
    let application = application.to_str().unwrap();
    let output = tucano(
        &controller,
        &["deploy", application, "--if-changed-from", "3"],
    );
    assert_eq!(code(&output), 2);
    let output = tucano(&controller, &["plan", file, "--if-changed-from", "3"]);
    assert_eq!(code(&output), 2);
}
