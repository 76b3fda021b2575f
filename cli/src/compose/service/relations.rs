//! What a service of a Compose file has to do with others: order, links and networks.

use std::collections::BTreeSet;

use super::{
    super::{
        words,
        yaml::{Entry, Node, Value},
    },
    After, Builder,
};

/// The condition of a service that is to end before another one starts.
const COMPLETED: &str = "service_completed_successfully";
/// The mode of a service that ends.
const REPLICATED_JOB: &str = "replicated-job";

/// The services, by their keys, that end: others wait for that, or they say so.
pub(in crate::compose) fn jobs(services: &[&Entry]) -> BTreeSet<String> {
    let text = |node: &Node, key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    let depends = services.iter().filter_map(|it| it.node.get("depends_on"));
    let entries = depends.flat_map(Node::entries);
    let awaited = entries.filter(|it| text(&it.node, "condition").as_deref() == Some(COMPLETED));
    let own = services.iter().filter(|it| {
        let deploy = it.node.get("deploy");
        deploy.and_then(|it| text(it, "mode")).as_deref() == Some(REPLICATED_JOB)
    });
    let own = own.map(|it| it.key.clone());
    awaited.map(|it| it.key.clone()).chain(own).collect()
}

pub(super) fn depends_on(builder: &mut Builder<'_>, line: usize, node: &Node) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let condition = entry.node.get("condition").and_then(Node::text);
                let required = entry.node.get("required").and_then(Node::text);
                if entry.node.get("restart").and_then(Node::text) == Some("true") {
                    let message =
                        "`restart` has no effect: a service goes on when another one is replaced";
                    builder.note(entry.line, "depends_on", message);
                }
                let kind = After {
                    name: builder.name.clone(),
                    line: entry.line,
                    is_required: required != Some("false"),
                    is_completed: condition == Some(COMPLETED),
                };
                comes_after(builder, &entry.key, kind);
            }
        }
        _ => {
            let names = builder.take(line, "depends_on", words::texts(node));
            for name in names.into_iter().flatten() {
                let kind = After::started(builder, line);
                comes_after(builder, &name, kind);
            }
        }
    }
}

fn comes_after(builder: &mut Builder<'_>, name: &str, after: After) {
    match words::name(name).parse() {
        Ok(name) => builder.after.push(After { name, ..after }),
        Err(error) => builder.refuse(after.line, "depends_on", format!("{error}")),
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
        let kind = After::started(builder, line);
        comes_after(builder, name, kind);
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
