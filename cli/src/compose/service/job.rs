//! A service that ends: a job, which the deploy runs.

use serde_json::json;

use super::{super::yaml::Node, Builder};

/// Retries of a job that Compose would start again without end.
const MANY: u32 = 10;

/// How often it is started again.
pub(super) fn restart(builder: &mut Builder<'_>, line: usize, node: &Node) {
    let policy = node.text().unwrap_or_default();
    let (name, count) = policy.split_once(':').unwrap_or((policy, ""));
    match (name, count.parse::<u32>()) {
        ("no" | "false", _) => {}
        ("on-failure", Ok(count)) => builder.set("retries", count),
        ("on-failure", Err(_)) => {
            builder.note(line, "restart", format!("it is tried again {MANY} times"));
            builder.set("retries", MANY);
        }
        ("always" | "unless-stopped", _) => {
            let message = "has no effect: a job is done when it ends";
            builder.note(line, "restart", message);
        }
        _ => builder.refuse(line, "restart", format!("{policy:?} is no policy")),
    }
}

/// Takes out what only services have, and says so.
pub(super) fn without_keys_of_services(builder: &mut Builder<'_>, service: &Node) {
    for key in ["port", "ports"] {
        builder.config.remove(key);
    }
    if builder.config.remove("health").is_some() {
        let line = line_of(service, "healthcheck");
        let message = "has no effect: a job is done when it ends";
        builder.note(line, "healthcheck", message);
    }
    let count = builder.config.remove("concurrency");
    if let Some(count) = count.filter(|count| *count != json!(1)) {
        builder.set("completions", count.clone());
        builder.set("parallelism", count);
    }
    if builder.config.remove("volume").is_some() {
        let line = line_of(service, "volumes");
        let message = "it is a job, and a job has no volumes: let the service that has the volume do this when it starts, or put the files into the image";
        builder.refuse(line, "volumes", message);
    }
}

fn line_of(service: &Node, key: &str) -> usize {
    let entry = service.entries().iter().find(|it| it.key == key);
    entry.map_or(service.line, |it| it.line)
}
