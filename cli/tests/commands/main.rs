//! The program as scripts see it: exit codes, output, and requests to the controller.

#![allow(
    clippy::unwrap_used,
    reason = "test helpers: a failed step fails the test"
)]

mod applications;
mod controller;
mod messages;
mod volumes;

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Output, Stdio},
};

use controller::Controller;
use serde_json::{Value, json};

fn tucano(controller: &Controller, arguments: &[&str]) -> Output {
    command(controller, arguments).output().unwrap()
}

fn command(controller: &Controller, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tucano"));
    for name in ["TUCANO_TOKEN", "HTTP_PROXY", "http_proxy"] {
        command.env_remove(name);
    }
    command
        .env("TUCANO_API", format!("http://{}", controller.address))
        .args(arguments);
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn digest() -> String {
    format!("sha256:{}", "ab".repeat(32))
}

/// The service `hello` with one process in this state.
fn view(state: &str) -> Value {
    let process = json!({
        "node": "w1", "current": true, "routed": true, "draining": false, "id": "hello-1", "service": "hello",
        "revision": 1, "state": state, "restarts": 0, "reason": if state == "healthy" { Value::Null } else { json!("no answer yet") },
    });
    json!({
        "configured": {
            "name": "hello", "revision": 1, "image": digest(), "configured_at": 0,
            "config": { "name": "hello", "concurrency": 1, "port": 8080 },
        },
        "active": {
            "name": "hello", "configured_service": "/v1/configured_services/hello",
            "healthy": u8::from(state == "healthy"), "processes": [process], "pending": [],
        },
    })
}

fn deployed() -> String {
    json!({ "name": "hello", "revision": 1, "image": digest(), "changed": true }).to_string()
}

/// A directory with a service and its image.
fn service() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = "name = \"hello\"\nconcurrency = 1\nport = 8080\nimage = \"hello.tar\"\n";
    fs::write(directory.path().join("hello.toml"), config).unwrap();
    fs::write(directory.path().join("hello.tar"), "an image's bytes").unwrap();
    directory
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

#[test]
fn each_error_has_the_exit_code_of_its_kind_and_one_line() {
    for (status, expected) in [
        (400, 3),
        (401, 6),
        (403, 6),
        (404, 7),
        (409, 3),
        (413, 3),
        (422, 3),
        (429, 1),
        (500, 1),
        (503, 1),
        (507, 1),
    ] {
        let body = json!({ "error": "it is so", "code": "x" }).to_string();
        let output = tucano(&Controller::answering(status, &body), &["ps"]);
        assert_eq!(code(&output), expected, "{status}");
        assert!(
            said(&output).contains("it is so") && said(&output).lines().count() == 1,
            "{}",
            said(&output)
        );
        assert_eq!(printed(&output), "");
    }
}

#[test]
fn an_unreachable_controller_is_reported_with_advice() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_tucano"));
    let output = command
        .args(["--api", &format!("http://{gone}"), "nodes"])
        .output()
        .unwrap();
    assert_eq!(code(&output), 5);
    assert!(
        said(&output).contains("Is it running?") && said(&output).contains("tucano dev"),
        "{}",
        said(&output)
    );
}

#[test]
fn an_answer_that_is_not_the_controllers_is_an_error() {
    let output = tucano(&Controller::answering(200, "<html>hello"), &["services"]);
    assert_eq!(code(&output), 1);
    assert!(
        said(&output).contains("Is it a Tucano controller"),
        "{}",
        said(&output)
    );
}

#[test]
fn the_token_is_sent_from_each_of_its_sources() {
    let directory = tempfile::tempdir().unwrap();
    let file = path(directory.path(), "token");
    fs::write(&file, "secret\n").unwrap();
    for (arguments, variable) in [
        (vec!["ps", "--token", "secret"], None),
        (vec!["ps", "--token-file", &file], None),
        (vec!["ps"], Some("secret")),
    ] {
        let controller = Controller::answering(200, "[]");
        let mut command = command(&controller, &arguments);
        command.envs(variable.map(|token| ("TUCANO_TOKEN", token)));
        assert!(command.status().unwrap().success());
        assert!(
            controller.requests()[0]
                .headers
                .contains("authorization: bearer secret")
        );
    }
    let none = Controller::answering(200, "[]");
    tucano(&none, &["ps"]);
    assert!(!none.requests()[0].headers.contains("authorization"));
}

#[test]
fn tables_are_printed_unless_json_is_asked_for() {
    let body = json!([view("healthy")]).to_string();
    let controller = Controller::answering(200, &body);
    let table = tucano(&controller, &["ps"]);
    assert_eq!(printed(&table).lines().count(), 2);
    assert!(
        printed(&table).contains("hello-1  w1"),
        "{}",
        printed(&table)
    );
    assert!(!printed(&table).contains('\u{1b}'));
    let json = tucano(&controller, &["--json", "ps"]);
    assert_eq!(printed(&json).trim_end(), body);
    assert_eq!(controller.requests()[0].line, "GET /v1/services");
}

#[test]
fn deploy_uploads_both_parts_and_waits_until_all_processes_are_healthy() {
    let controller = Controller::start(|line, number| match line {
        "POST /v1/services" => (201, deployed()),
        _ if number < 3 => (200, view("starting").to_string()),
        _ => (200, view("healthy").to_string()),
    });
    let directory = service();
    let output = tucano(
        &controller,
        &["deploy", &path(directory.path(), "hello.toml")],
    );
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert_eq!(printed(&output), "hello revision 1 is healthy\n");
    assert!(
        said(&output).contains("hello-1 on w1 is starting (no answer yet)"),
        "{}",
        said(&output)
    );
    assert!(said(&output).contains("hello-1 on w1 is healthy"));
    let upload = &controller.requests()[0];
    assert!(upload.headers.contains("multipart/form-data"));
    let body = String::from_utf8_lossy(&upload.body);
    let (config, image) = (
        body.find("name=\"config\"").unwrap(),
        body.find("name=\"image\"").unwrap(),
    );
    assert!(
        config < image && body.contains("concurrency = 1") && body.contains("an image's bytes")
    );
}

#[test]
fn a_layout_directory_that_is_not_understood_is_sent_as_an_archive() {
    let controller = Controller::answering(200, &deployed());
    let directory = service();
    let layout = directory.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    for name in ["oci-layout", "index.json", "blobs/sha256/aa"] {
        fs::write(layout.join(name), format!("content of {name}")).unwrap();
    }
    let arguments = [
        "deploy",
        &path(directory.path(), "hello.toml"),
        "--no-wait",
        "--image",
        &path(directory.path(), "layout"),
    ];
    let output = tucano(&controller, &arguments);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let body = String::from_utf8_lossy(&controller.requests()[0].body).into_owned();
    assert!(body.contains("content of blobs/sha256/aa") && body.contains("ustar"));
}

#[test]
fn a_deploy_that_is_not_healthy_in_time_names_each_process_and_its_reason() {
    let controller = Controller::start(|line, _| match line {
        "POST /v1/services" => (200, deployed()),
        _ => (200, view("back_off").to_string()),
    });
    let directory = service();
    let file = path(directory.path(), "hello.toml");
    let output = tucano(
        &controller,
        &["--json", "deploy", &file, "--timeout", "1ms"],
    );
    assert_eq!(code(&output), 4);
    assert!(
        said(&output).contains("hello-1 on w1 is backing off (no answer yet)"),
        "{}",
        said(&output)
    );
    let answer: Value = serde_json::from_str(&printed(&output)).unwrap();
    assert_eq!(
        (&answer["healthy"], &answer["code"]),
        (&json!(false), &json!("not_healthy"))
    );
}

#[test]
fn a_deploy_that_changes_nothing_says_so() {
    let unchanged = deployed().replace("true", "false");
    let controller = Controller::start(move |line, _| match line {
        "POST /v1/services" => (200, unchanged.clone()),
        _ => (200, view("healthy").to_string()),
    });
    let directory = service();
    let output = tucano(
        &controller,
        &["deploy", &path(directory.path(), "hello.toml")],
    );
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert_eq!(
        printed(&output),
        "hello revision 1 is unchanged and healthy\n"
    );
    assert!(
        said(&output).contains("hello is unchanged"),
        "{}",
        said(&output)
    );
}

/// A controller whose only process crashes again and again, after ten and more lines of output.
fn crashing() -> Controller {
    let mut crashing = view("back_off");
    let process = &mut crashing["active"]["processes"][0];
    process["restarts"] = json!(3);
    process["reason"] = Value::Null;
    process["last_exit"] = json!({ "code": 127, "oom_killed": false, "at": 0 });
    let lines: String = (1..=12).map(|n| format!("line {n}\n")).collect();
    Controller::start(move |line, _| match line {
        "POST /v1/services" => (200, deployed()),
        _ if line.starts_with("GET /v1/processes/hello-1/logs") => (200, lines.clone()),
        _ => (200, crashing.to_string()),
    })
}

#[test]
fn a_crash_loop_ends_the_wait_and_is_explained() {
    let directory = service();
    let file = path(directory.path(), "hello.toml");
    let output = tucano(&crashing(), &["deploy", &file, "--timeout", "1h"]);
    assert_eq!(code(&output), 4);
    let text = said(&output);
    for part in [
        "0 of 1 processes of hello are healthy and keep failing",
        "hello-1 on w1 is backing off: ended with exit code 127 (a command was not found)",
        "  | line 3\n",
        "  | line 12\n",
        "  hint: the image does not contain a program that it runs",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("| line 2\n"), "{text}");
    let output = tucano(&crashing(), &["--json", "deploy", &file, "--timeout", "1h"]);
    let answer: Value = serde_json::from_str(&printed(&output)).unwrap();
    let failure = &answer["failures"][0];
    assert_eq!(failure["process"], json!("hello-1"));
    assert_eq!(failure["log"].as_array().unwrap().len(), 10);
    assert!(
        failure["hints"][0]
            .as_str()
            .unwrap()
            .contains("does not contain a program")
    );
}

#[test]
fn missing_files_and_images_have_the_exit_codes_that_are_documented() {
    let directory = service();
    fs::remove_file(directory.path().join("hello.tar")).unwrap();
    let file = path(directory.path(), "hello.toml");
    let body = json!({ "error": "the registry has no hello:9", "code": "no_such_image" });
    let controller = Controller::answering(404, &body.to_string());
    let absent = path(directory.path(), "absent");
    for (arguments, expected, kind) in [
        (vec!["deploy", &file], 3, "unreadable_input"),
        (vec!["deploy", &absent], 3, "unreadable_input"),
        (vec!["check", &absent], 3, "unreadable_input"),
        (
            vec!["deploy", &file, "--image", "hello:9"],
            3,
            "no_such_image",
        ),
        (vec!["ps", "--token-file", &absent], 6, "unreadable_token"),
    ] {
        let output = tucano(&controller, &arguments);
        assert_eq!(code(&output), expected, "{arguments:?}: {}", said(&output));
        let json = tucano(&controller, &[&["--json"], arguments.as_slice()].concat());
        assert_eq!(code(&json), expected);
        let answer: Value = serde_json::from_str(&printed(&json)).unwrap();
        assert_eq!(
            (&answer["code"], &answer["exit_code"]),
            (&json!(kind), &json!(expected)),
            "{arguments:?}"
        );
        assert_eq!(said(&json), "", "{arguments:?}");
    }
}

#[test]
fn a_bad_configuration_is_refused_before_anything_is_sent() {
    let controller = Controller::answering(200, "");
    let directory = service();
    let file = path(directory.path(), "bad.toml");
    fs::write(&file, "name = \"hello\"\nconcurency = 1\nport = 8080\n").unwrap();
    for arguments in [["deploy", &file], ["check", &file]] {
        let output = tucano(&controller, &arguments);
        assert_eq!(code(&output), 3);
        assert!(
            said(&output).contains("bad.toml:2:1: unknown key"),
            "{}",
            said(&output)
        );
        assert!(said(&output).contains("concurrency"));
    }
    assert!(controller.requests().is_empty());
    let file = path(directory.path(), "hello.toml");
    let good = tucano(&controller, &["--json", "check", &file]);
    assert_eq!(code(&good), 0);
    let answer: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(answer, json!({ "file": file, "fit_for": "tucano deploy" }));
}

#[test]
fn scale_and_rm_send_their_requests() {
    let controller = Controller::start(|line, _| match line {
        "GET /v1/services/hello" => (200, view("healthy").to_string()),
        _ => (200, deployed()),
    });
    assert_eq!(code(&tucano(&controller, &["scale", "hello", "1"])), 0);
    let change = &controller.requests()[0];
    assert_eq!(change.line, "PATCH /v1/services/hello");
    assert_eq!(change.body, b"{\"concurrency\":1}");
    assert_eq!(
        code(&tucano(&controller, &["rm", "hello", "--timeout", "3s"])),
        0
    );
    let removal = controller.requests().pop().unwrap();
    assert_eq!(
        removal.line,
        "DELETE /v1/services/hello?wait=true&timeout=3000ms"
    );
    assert_eq!(code(&tucano(&controller, &["rm", "hello", "--no-wait"])), 0);
    assert_eq!(
        controller.requests().pop().unwrap().line,
        "DELETE /v1/services/hello"
    );
}

#[test]
fn logs_are_those_of_a_service_or_else_of_a_process() {
    let controller = Controller::start(|line, _| match line {
        _ if line.starts_with("GET /v1/processes/hello-1/logs") => (200, "a line\n".to_owned()),
        _ => (
            404,
            json!({ "error": "no such service", "code": "not_found" }).to_string(),
        ),
    });
    let output = tucano(&controller, &["logs", "hello-1", "--tail", "5"]);
    assert_eq!(
        (code(&output), printed(&output)),
        (0, "a line\n".to_owned())
    );
    assert!(
        controller.requests()[1]
            .line
            .ends_with("?stream=both&tail=5")
    );
    assert_eq!(code(&tucano(&controller, &["logs", "hello"])), 7);
    let since = [
        "logs",
        "hello",
        "-t",
        "--since",
        "2026-07-01T14:00:00+02:00",
    ];
    assert_eq!(code(&tucano(&controller, &since)), 7);
    let query = "?stream=both&since=2026-07-01T12:00:00.000Z&timestamps=true";
    let asked = controller.requests().pop().unwrap().line;
    assert!(asked.ends_with(query), "{asked}");
    let local = tucano(
        &controller,
        &["logs", "hello", "--since", "2026-07-01T14:00:00"],
    );
    assert_eq!(code(&local), 2);
    assert!(said(&local).contains("RFC 3339"), "{}", said(&local));
}

#[test]
fn the_controllers_json_lines_are_printed_unchanged() {
    let lines = "{\"process\":\"hello-1\",\"time\":\"2026-07-01T12:00:00.000Z\",\"stream\":\"stderr\",\"line\":\"x\"}\n";
    let controller = Controller::answering(200, lines);
    assert_eq!(
        printed(&tucano(&controller, &["--json", "logs", "hello"])),
        lines
    );
    let asked = controller.requests().pop().unwrap().line;
    assert!(asked.ends_with("?stream=both&format=json"), "{asked}");
}

#[test]
fn logs_of_a_controller_of_an_earlier_version_have_neither_times_nor_streams() {
    let controller = Controller::start(|line, _| match line {
        _ if line.contains("format=")
            || line.contains("since=")
            || line.contains("timestamps=") =>
        {
            let error = json!({ "error": "unknown field", "code": "invalid_query" });
            (400, error.to_string())
        }
        _ if line.starts_with("GET /v1/processes/hello-1/logs") => (200, "a line\n".to_owned()),
        _ => (
            404,
            json!({ "error": "no such service", "code": "not_found" }).to_string(),
        ),
    });
    let json = tucano(&controller, &["--json", "logs", "hello-1"]);
    let line: Value = serde_json::from_str(&printed(&json)).unwrap();
    assert_eq!(line, json!({ "process": "hello-1", "line": "a line" }));
    for option in [&["--since", "10m"][..], &["--timestamps"]] {
        let output = tucano(&controller, &[&["logs", "hello-1"][..], option].concat());
        assert_eq!((code(&output), printed(&output)), (1, String::new()));
        assert!(
            said(&output).contains("earlier version"),
            "{}",
            said(&output)
        );
    }
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let controller = Controller::answering(200, &"x".repeat(4 << 20));
    let mut child = command(&controller, &["logs", "hello"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), said(&output)), (0, String::new()));
}

#[test]
fn a_development_cluster_checks_its_addresses_and_images_first() {
    let tucano = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tucano"));
        command
            .env_remove("TUCANO_API")
            .arg("dev")
            .args(arguments)
            .output()
            .unwrap()
    };
    let open = tucano(&["--api", "0.0.0.0:7070"]);
    assert!(
        code(&open) == 2 && said(&open).contains("loopback"),
        "{}",
        said(&open)
    );
    let malformed = tucano(&["--api", "here"]);
    assert!(
        code(&malformed) == 2 && said(&malformed).contains("127.0.0.1:7070"),
        "{}",
        said(&malformed)
    );
    if !tucano_testkit::needs(&[tucano_testkit::ROOT]) {
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let busy = tucano(&["--api", &address]);
    assert!(
        code(&busy) == 1 && said(&busy).contains("choose another with --api"),
        "{}",
        said(&busy)
    );
    let absent = tucano(&["--api", "127.0.0.1:0", "--deploy", "/no/such/image.tar"]);
    assert!(
        code(&absent) != 0 && said(&absent).contains("/no/such/image.tar"),
        "{}",
        said(&absent)
    );
}

#[test]
fn a_service_is_shown_with_its_paths() {
    let mut web = view("healthy");
    web["configured"]["name"] = json!("web");
    web["configured"]["config"]["name"] = json!("web");
    web["configured"]["config"]["needs"] = json!(["hello"]);
    let all = json!([view("healthy"), web]).to_string();
    let controller = Controller::answering(200, &all);
    let text = printed(&tucano(&controller, &["services", "hello"]));
    assert!(
        text.contains("may be reached by") && text.contains("hello:8080"),
        "{text}"
    );
    let text = printed(&tucano(&controller, &["services", "web"]));
    assert!(
        text.contains("may reach") && !text.contains("reached by"),
        "{text}"
    );
    let json = printed(&tucano(&controller, &["services", "hello", "--json"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["may_reach"], &json["may_be_reached_by"]),
        (&json!([]), &json!(["web"]))
    );
    assert_eq!(code(&tucano(&controller, &["services", "db"])), 7);
}

#[test]
fn services_and_processes_of_one_application_are_shown() {
    let named = |name: &str, app: &str| {
        let text = view("healthy").to_string().replace("hello", name);
        let mut view: Value = serde_json::from_str(&text).unwrap();
        view["configured"]["config"]["app"] = json!(app);
        view["configured"]["a_newer_key"] = json!(1);
        view
    };
    let all = json!([
        named("web", "shop"),
        named("api", "shop"),
        named("blog", "pages"),
        view("healthy")
    ]);
    let controller = Controller::answering(200, &all.to_string());
    for command in ["services", "ps"] {
        let shown = printed(&tucano(&controller, &[command, "--app", "shop"]));
        let has = |name: &str| shown.lines().any(|line| line.starts_with(name));
        assert!(has("web") && has("api"), "{shown}");
        assert!(!has("blog") && !has("hello"), "{shown}");
        let shown = printed(&tucano(&controller, &["--json", command, "--app", "pages"]));
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown, json!([named("blog", "pages")]));
        let shown = printed(&tucano(&controller, &[command]));
        assert!(shown.contains("blog") && shown.contains("hello"), "{shown}");
    }
    let wrong = tucano(&controller, &["ps", "--app", "A/b"]);
    assert_eq!(code(&wrong), 2, "{}", said(&wrong));
}
