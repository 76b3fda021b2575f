//! What a service of a Compose file has to do with others: order, links and networks.

use std::collections::BTreeSet;

use super::{
    super::{
        words,
        yaml::{Node, Value},
    },
    After, Builder,
};

pub(super) fn depends_on(builder: &mut Builder<'_>, line: usize, node: &Node) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let condition = entry.node.get("condition").and_then(Node::text);
                let required = entry.node.get("required").and_then(Node::text);
                if condition == Some("service_completed_successfully") {
                    builder.refuse(
                        entry.line,
                        "depends_on",
                        format!("{} is to end before this one starts: services that end are not run here yet", entry.key),
                    );
                    continue;
                }
                if entry.node.get("restart").and_then(Node::text) == Some("true") {
                    let message =
                        "`restart` has no effect: a service goes on when another one is replaced";
                    builder.note(entry.line, "depends_on", message);
                }
                comes_after(builder, entry.line, &entry.key, required != Some("false"));
            }
        }
        _ => {
            let names = builder.take(line, "depends_on", words::texts(node));
            for name in names.into_iter().flatten() {
                comes_after(builder, line, &name, true);
            }
        }
    }
}

fn comes_after(builder: &mut Builder<'_>, line: usize, name: &str, is_required: bool) {
    match words::name(name).parse() {
        Ok(name) => builder.after.push(After {
            name,
            line,
            is_required,
        }),
        Err(error) => builder.refuse(line, "depends_on", format!("{error}")),
    }
}

pub(super) fn links(builder: &mut Builder<'_>, line: usize, node: &Node) {
    let names = builder.take(line, "links", words::texts(node));
    for link in names.into_iter().flatten() {
        let (name, alias) = link.split_once(':').unwrap_or((&link, &link));
        if alias != name {
            let message = format!("a service has one name: use {name} in place of {alias}");
            builder.refuse(line, "links", message);
        }
        comes_after(builder, line, name, true);
    }
}

pub(super) fn networks(builder: &mut Builder<'_>, line: usize, node: &Node) {
    for entry in node.entries() {
        for key in entry.node.entries() {
            match key.key.as_str() {
                "aliases" => builder.refuse(
                    key.line,
                    "networks",
                    format!(
                        "{} has aliases: a service has one name, use it in their place",
                        entry.key
                    ),
                ),
                "ipv4_address" | "ipv6_address" | "link_local_ips" | "mac_address" => builder
                    .refuse(
                        key.line,
                        "networks",
                        format!("{}: addresses are chosen by the node: use names", key.key),
                    ),
                _ => {}
            }
        }
    }
    let named = node.entries().iter().map(|entry| entry.key.clone());
    let listed = node.items().iter().filter_map(Node::text);
    let all: BTreeSet<String> = named.chain(listed.map(str::to_owned)).collect();
    match node.value {
        Value::Map(_) | Value::List(_) => builder.networks = all,
        Value::Null => {}
        Value::Text { .. } => builder.refuse(line, "networks", "write a list of networks"),
    }
}
