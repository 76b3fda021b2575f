//! `healthcheck`.

use serde_json::{Map, json};

use super::{
    service::Builder,
    words,
    yaml::{Node, Value},
};

pub(super) fn convert(builder: &mut Builder<'_>, line: usize, node: &Node) {
    let disabled = node.get("disable").and_then(Node::text) == Some("true");
    let mut health = Map::new();
    for entry in node.entries() {
        let line = entry.line;
        let own = match entry.key.as_str() {
            "test" => {
                if let Some(command) = builder.take(line, "healthcheck.test", test(&entry.node))
                    && !command.is_empty()
                {
                    health.insert("exec".to_owned(), json!(command));
                }
                continue;
            }
            "interval" => "interval",
            "timeout" => "timeout",
            "start_period" => "grace",
            "start_interval" => {
                builder.note(
                    line,
                    "healthcheck.start_interval",
                    "has no effect: `interval` holds from the start",
                );
                continue;
            }
            "retries" => {
                let message = "has no effect: a process gets no requests while its probe fails, and is started again when that has lasted for `grace`";
                builder.note(line, "healthcheck.retries", message);
                continue;
            }
            "disable" => continue,
            key => {
                builder.refuse(line, "healthcheck", format!("{key} is no key of it"));
                continue;
            }
        };
        if let Some(time) = builder.take(line, "healthcheck", words::duration(&entry.node)) {
            health.insert(own.to_owned(), json!(time.to_string()));
        }
    }
    if disabled || is_none(node) {
        let message = "a process is probed by a connection to its port, if it has one";
        builder.note(line, "healthcheck", message);
        health.remove("exec");
        health.insert("image".to_owned(), json!(false));
    }
    if !health.is_empty() {
        builder.set("health", health);
    }
}

fn is_none(node: &Node) -> bool {
    let test = node.get("test").map(words::texts);
    test.is_some_and(|test| test.is_ok_and(|words| words == ["NONE"]))
}

/// The command; none for `NONE`.
fn test(node: &Node) -> Result<Vec<String>, String> {
    let shell = |line: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()];
    match &node.value {
        Value::Text { text, .. } => Ok(shell(text)),
        Value::List(_) => {
            let words = words::texts(node)?;
            match words.first().map(String::as_str) {
                Some("NONE") => Ok(Vec::new()),
                Some("CMD") => Ok(words[1..].to_vec()),
                Some("CMD-SHELL") if words.len() == 2 => Ok(shell(&words[1])),
                _ => Err("a list begins with NONE, CMD or CMD-SHELL".to_owned()),
            }
        }
        _ => Err("write a command".to_owned()),
    }
}
