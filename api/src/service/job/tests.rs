use super::*;
use crate::settings::parse;

fn errors(text: &str) -> String {
    let text = format!("name = \"nightly\"\n{text}");
    match parse::<ServiceConfig>("job.toml", &text) {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    }
}

fn refuses(text: &str, key: &str) {
    let errors = errors(text);
    assert!(errors.contains(key), "{text}: {errors:?}");
}

#[test]
fn a_job_needs_neither_concurrency_nor_a_schedule() {
    assert_eq!(errors("kind = \"job\""), "");
    let all = "kind = \"job\"\nretries = 3\ndeadline = \"1h\"\nparallelism = 2\ncompletions = 5\n\
               schedule = \"0 3 * * *\"\ntimezone = \"America/Sao_Paulo\"\noverlap = \"queue\"\ncatch_up = \"2h\"";
    assert_eq!(errors(all), "");
}

#[test]
fn a_service_has_no_key_of_a_job() {
    for line in [
        "retries = 1",
        "deadline = \"1m\"",
        "parallelism = 1",
        "completions = 1",
        "schedule = \"0 3 * * *\"",
        "timezone = \"UTC\"",
        "overlap = \"skip\"",
        "catch_up = \"1h\"",
    ] {
        let key = line.split(' ').next().unwrap();
        let text = format!("concurrency = 1\nport = 80\n{line}");
        refuses(&text, &format!("{key}: only a job has it"));
    }
    refuses("port = 80", "concurrency: ");
}

#[test]
fn a_job_has_no_key_of_what_is_kept_alive() {
    for (line, key) in [
        ("concurrency = 2", "concurrency"),
        ("port = 80", "port"),
        ("ports = { metrics = 80 }", "ports"),
        ("hosts = [\"a.b\"]", "hosts"),
        ("path_prefix = \"/x\"", "path_prefix"),
        ("drain = \"1s\"", "drain"),
        ("placement = { everywhere = true }", "placement.everywhere"),
        ("before = { args = [\"x\"] }", "before"),
        ("after = { args = [\"x\"] }", "after"),
        (
            "[[volume]]\nname = \"data\"\npath = \"/data\"\nsize = \"8MiB\"",
            "volume",
        ),
    ] {
        let text = format!("kind = \"job\"\n{line}");
        refuses(&text, &format!("{key}: "));
    }
}

#[test]
fn what_can_never_run_is_refused() {
    for (line, message) in [
        ("deadline = \"0s\"", "deadline: 0s is out of range"),
        ("retries = 101", "retries: 101 is out of range"),
        ("parallelism = 0", "parallelism: 0 is out of range"),
        ("completions = 1001", "completions: 1001 is out of range"),
        (
            "catch_up = \"8days\"\nschedule = \"@daily\"",
            "catch_up: write at most",
        ),
        (
            "catch_up = \"1h\"",
            "catch_up: has no effect without `schedule`",
        ),
        (
            "overlap = \"skip\"",
            "overlap: has no effect without `schedule`",
        ),
        (
            "schedule = \"@daily\"\ntimezone = \"Mars/Olympus\"",
            "timezone: \"Mars/Olympus\" is not a time zone",
        ),
        ("schedule = \"0 0 30 2 *\"", "schedule: it never comes"),
        ("schedule = \"61 * * * *\"", "schedule: "),
    ] {
        refuses(&format!("kind = \"job\"\n{line}"), message);
    }
    let hook = |hook: &str| format!("concurrency = 1\nport = 80\nbefore = {hook}");
    refuses(&hook("{ args = [] }"), "before.args: ");
    refuses(
        &hook("{ args = [\"a\"], timeout = \"0s\" }"),
        "before.timeout: ",
    );
    assert_eq!(
        errors(&hook("{ args = [\"./migrate\"], timeout = \"5m\" }")),
        ""
    );
}

#[test]
fn agents_get_nothing_of_a_job_but_that_it_ends() {
    let text = "name = \"a\"\nkind = \"job\"\nretries = 3\nschedule = \"@daily\"";
    let job: ServiceConfig = parse("a", text).unwrap();
    let sent = job.for_agents();
    assert_eq!((sent.retries, &sent.schedule), (None, &None));
    assert!(sent.is_job() && sent.agent_keys().any(|key| key == "kind"));
    // What an agent stores, it reads again.
    let text = serde_json::to_string(&sent).unwrap();
    assert_eq!(parse::<ServiceConfig>("a", &text).unwrap(), sent);

    let text = "name = \"a\"\nconcurrency = 2\nport = 80\nbefore = { args = [\"x\"] }";
    let service: ServiceConfig = parse("a", text).unwrap();
    assert_eq!(service.for_agents().before, None);
    assert_eq!(service.agent_keys().count(), 0);
    let run = service.for_run(Some(&["x".to_owned()]));
    assert!(run.is_job() && run.args == Some(vec!["x".to_owned()]));
}
