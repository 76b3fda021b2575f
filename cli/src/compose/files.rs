//! `configs` and `secrets`.

use serde_json::{Map, json};

use super::{
    service::Builder,
    words,
    yaml::{Entry, Node, Value},
};

pub(super) fn configs(builder: &mut Builder<'_>, node: &Node) {
    for item in node.items() {
        let Some((source, item_line)) = source(builder, item, "configs") else {
            continue;
        };
        let declared = builder.shared.configs.iter().find(|it| it.key == source);
        let Some(declared) = declared else {
            let message = format!("{source} is not among `configs` of the file");
            builder.refuse(item_line, "configs", message);
            continue;
        };
        let Some(content) = content(builder, declared) else {
            continue;
        };
        let target = item.get("target").and_then(Node::text);
        let target = target.map_or_else(|| format!("/{source}"), str::to_owned);
        let mut file = Map::from_iter([
            ("path".to_owned(), json!(target)),
            ("content".to_owned(), json!(content)),
        ]);
        ownership(builder, item, "configs", &mut file);
        builder.push("file", json!(file));
    }
}

pub(super) fn secrets(builder: &mut Builder<'_>, node: &Node) {
    for item in node.items() {
        let Some((source, line)) = source(builder, item, "secrets") else {
            continue;
        };
        let declared = builder.shared.secrets.iter().find(|it| it.key == source);
        let Some(declared) = declared else {
            let message = format!("{source} is not among `secrets` of the file");
            builder.refuse(line, "secrets", message);
            continue;
        };
        let from = declared.node.get("file").and_then(Node::text);
        let how = match from {
            Some(file) => format!("tucano secret set {source} < {file}"),
            None => format!("tucano secret set {source}"),
        };
        builder.findings.note(
            declared.line,
            &format!("secrets.{source}"),
            format!("values are not sent along: set it with `{how}`, unless it is set already"),
        );
        let mut secret = Map::from_iter([("name".to_owned(), json!(source))]);
        if let Some(target) = item.get("target").and_then(Node::text) {
            let path = match target.starts_with('/') {
                true => target.to_owned(),
                false => format!("/run/secrets/{target}"),
            };
            secret.insert("path".to_owned(), json!(path));
        }
        ownership(builder, item, "secrets", &mut secret);
        builder.push("secret", json!(secret));
    }
}

/// The name of what a service uses.
fn source(builder: &mut Builder<'_>, item: &Node, key: &str) -> Option<(String, usize)> {
    let name = match &item.value {
        Value::Text { text, .. } => Some(text.clone()),
        _ => item.get("source").and_then(Node::text).map(str::to_owned),
    };
    if name.is_none() {
        builder.refuse(item.line, key, "name one of the file's");
    }
    Some((name?, item.line))
}

/// The text of a config.
fn content(builder: &mut Builder<'_>, declared: &Entry) -> Option<String> {
    let key = format!("configs.{}", declared.key);
    let get = |name: &str| declared.node.get(name).and_then(Node::text);
    if let Some(content) = get("content") {
        return Some(content.to_owned());
    }
    if let Some(name) = get("environment") {
        let value = (builder.shared.variables)(name);
        if value.is_none() {
            let message = format!("the variable {name} is not set");
            builder.findings.refuse(declared.line, &key, message);
        }
        return value;
    }
    let Some(file) = get("file") else {
        let message = "configs of others are not used: write `file`, `content` or `environment`";
        builder.findings.refuse(declared.line, &key, message);
        return None;
    };
    let path = builder.shared.directory.join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.display());
            builder.findings.refuse(declared.line, &key, message);
            None
        }
    }
}

/// `uid`, `gid` and `mode`, which is octal however it is written.
fn ownership(
    builder: &mut Builder<'_>,
    item: &Node,
    key: &str,
    file: &mut Map<String, serde_json::Value>,
) {
    for id in ["uid", "gid"] {
        if let Some(node) = item.get(id)
            && let Some(number) = builder.take(node.line, key, words::number::<u32>(node))
        {
            file.insert(id.to_owned(), json!(number));
        }
    }
    let Some(node) = item.get("mode") else {
        return;
    };
    let text = node.text().unwrap_or_default();
    let digits = text.trim_start_matches("0o");
    let mode = u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| *mode <= 0o777);
    match mode {
        Some(mode) => {
            file.insert("mode".to_owned(), json!(format!("{mode:04o}")));
        }
        None => builder.refuse(
            node.line,
            key,
            format!("{text:?} are no permissions: write them in octal, such as 0440"),
        ),
    }
}
