//! `deploy`: how many processes, where, and what they reserve.

use serde_json::{Map, json};

use super::{
    limits,
    service::Builder,
    words,
    yaml::{Entry, Node},
};

pub(super) fn convert(builder: &mut Builder<'_>, node: &Node) {
    for entry in node.entries() {
        let Entry { key, line, node } = entry;
        let line = *line;
        let path = format!("deploy.{key}");
        match key.as_str() {
            "replicas" => {
                if let Some(count) = builder.take(line, &path, words::number::<u32>(node)) {
                    replicas(builder, line, &path, count);
                }
            }
            "mode" => match node.text() {
                Some("replicated" | "replicated-job") => {}
                Some("global") if builder.is_job => {
                    let message = "global is not possible for a job: `replicas` says how many processes have to succeed";
                    builder.refuse(line, &path, message);
                }
                Some("global") => {
                    builder.config.remove("concurrency");
                    placement(builder).insert("everywhere".to_owned(), json!(true));
                }
                other => builder.refuse(
                    line,
                    &path,
                    format!(
                        "{} is not possible: replicated, replicated-job and global are",
                        other.unwrap_or("this")
                    ),
                ),
            },
            "resources" => resources(builder, node),
            "placement" => places(builder, node),
            "update_config" | "rollback_config" => {
                let message = "has no effect: new processes are healthy before old ones stop, up to half of them at once, and an update that fails leaves the old ones";
                builder.note(line, &path, message);
            }
            "restart_policy" => {
                let message =
                    "has no effect: a process that ends is started again, after a growing delay";
                builder.note(line, &path, message);
            }
            "labels" | "endpoint_mode" => builder.note(line, &path, "has no effect"),
            key => builder.refuse(line, "deploy", format!("{key} is no key of it")),
        }
    }
}

/// Sets the number of processes. A service cannot have none.
pub(super) fn replicas(builder: &mut Builder<'_>, line: usize, key: &str, count: u32) {
    match count {
        0 => builder.refuse(
            line,
            key,
            "a service has at least 1 process: remove it, or give it a profile",
        ),
        count => builder.set("concurrency", count),
    }
}

fn resources(builder: &mut Builder<'_>, node: &Node) {
    for part in node.entries() {
        let is_limit = match part.key.as_str() {
            "limits" => true,
            "reservations" => false,
            key => {
                builder.refuse(
                    part.line,
                    "deploy.resources",
                    format!("{key} is no key of it"),
                );
                continue;
            }
        };
        for entry in part.node.entries() {
            let key = match (entry.key.as_str(), is_limit) {
                ("cpus", true) => "cpus",
                ("memory", true) => "mem_limit",
                ("pids", true) => "pids_limit",
                ("memory", false) => "mem_reservation",
                ("cpus", false) => {
                    let cpus = words::number::<f64>(&entry.node);
                    if let Some(cpus) =
                        builder.take(entry.line, "deploy.resources.reservations.cpus", cpus)
                    {
                        builder.set("cpus_reserved", cpus);
                    }
                    continue;
                }
                ("devices", _) => {
                    builder.refuse(entry.line, "deploy.resources", super::service::NO_DEVICES);
                    continue;
                }
                (key, _) => {
                    builder.refuse(
                        entry.line,
                        "deploy.resources",
                        format!("{key} is not possible"),
                    );
                    continue;
                }
            };
            limits::resource(builder, entry.line, key, &entry.node);
        }
    }
}

fn places(builder: &mut Builder<'_>, node: &Node) {
    for entry in node.entries() {
        let line = entry.line;
        match entry.key.as_str() {
            "constraints" => {
                let all = builder.take(line, "deploy.placement", words::texts(&entry.node));
                for text in all.into_iter().flatten() {
                    constraint(builder, line, &text);
                }
            }
            "preferences" => {
                for preference in entry.node.items() {
                    let spread = preference.get("spread").and_then(Node::text);
                    match spread.and_then(|it| it.strip_prefix("node.labels.")) {
                        Some(label) => {
                            placement(builder).insert("spread".to_owned(), json!(label));
                        }
                        None => builder.refuse(
                            preference.line,
                            "deploy.placement",
                            "only a spread over node.labels.NAME is possible",
                        ),
                    }
                }
            }
            key => builder.refuse(
                line,
                "deploy.placement",
                format!(
                    "{key} is not possible: processes are spread evenly over the workers that fit"
                ),
            ),
        }
    }
}

fn constraint(builder: &mut Builder<'_>, line: usize, text: &str) {
    let parts = text
        .split_once("==")
        .map(|(name, value)| (name.trim(), value.trim()));
    match parts {
        Some(("node.role", "worker")) => {}
        Some((name, value)) if name.starts_with("node.labels.") => {
            let label = name.trim_start_matches("node.labels.").to_owned();
            let labels = placement(builder).entry("labels").or_insert_with(|| json!({}));
            labels[label] = json!(value);
        }
        _ => builder.refuse(
            line,
            "deploy.placement",
            format!("{text} is not possible: write node.labels.NAME == VALUE, and label the workers in the topology"),
        ),
    }
}

/// The rules of placement.
fn placement<'a>(builder: &'a mut Builder<'_>) -> &'a mut Map<String, serde_json::Value> {
    let placement = builder
        .config
        .entry("placement")
        .or_insert_with(|| json!({}));
    if !placement.is_object() {
        *placement = json!({});
    }
    placement.as_object_mut().expect("an object")
}
