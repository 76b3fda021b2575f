//! Limits of resources, kernel settings, and names.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Map, json};
use tucano_api::units::Bytes;

use super::{
    service::Builder,
    words,
    yaml::{Node, Value},
};

pub(super) fn resource(builder: &mut Builder<'_>, line: usize, key: &str, node: &Node) {
    match key {
        "mem_limit" | "shm_size" => {
            if let Some(size) = builder.take(line, key, words::bytes(node)) {
                let own = if key == "mem_limit" {
                    "memory"
                } else {
                    "shm_size"
                };
                builder.set(own, exact(size));
            }
        }
        "mem_reservation" => {
            let message = "what a process reserves is its memory limit";
            builder.note(line, key, message);
            if let Some(size) = builder.take(line, key, words::bytes(node))
                && !builder.config.contains_key("memory")
            {
                builder.set("memory", exact(size));
            }
        }
        "cpus" => {
            if let Some(cpus) = builder.take(line, key, words::number::<f64>(node))
                && cpus > 0.0
            {
                builder.set("cpus", cpus);
            }
        }
        "pids_limit" => {
            if let Some(pids) = builder.take(line, key, words::number::<i64>(node)) {
                match pids > 0 {
                    true => builder.set("pids", pids),
                    false => builder.note(
                        line,
                        key,
                        "there is always a limit: 512 processes and threads",
                    ),
                }
            }
        }
        _ => builder.note(
            line,
            key,
            "has no effect: `cpus` limits, and `deploy.resources.reservations.cpus` reserves",
        ),
    }
}

/// A size without rounding.
pub(super) fn exact(size: Bytes) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units
        .iter()
        .find(|(unit, _)| size.0 > 0 && size.0.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{}{name}", size.0 / unit),
        None => format!("{}B", size.0),
    }
}

pub(super) fn ulimits(builder: &mut Builder<'_>, line: usize, node: &Node) {
    let mut all = Map::new();
    for entry in node.entries() {
        let amount = |node: &Node| words::number::<i64>(node);
        let limit = match &entry.node.value {
            Value::Map(_) => {
                let part = |key: &str| {
                    entry
                        .node
                        .get(key)
                        .map_or(Err("`soft` and `hard` are needed".to_owned()), amount)
                };
                part("soft").and_then(|soft| Ok(json!({ "soft": soft, "hard": part("hard")? })))
            }
            _ => amount(&entry.node).map(|both| json!(both)),
        };
        if let Some(limit) = builder.take(entry.line, "ulimits", limit) {
            all.insert(entry.key.clone(), limit);
        }
    }
    match all.is_empty() && !node.is_null() && node.entries().is_empty() {
        true => builder.refuse(line, "ulimits", "write a mapping"),
        false => builder.set("ulimits", all),
    }
}

pub(super) fn sysctls(builder: &mut Builder<'_>, line: usize, node: &Node) {
    let pairs = builder.take(line, "sysctls", words::pairs(node, &['=']));
    let all: Map<String, serde_json::Value> = pairs
        .into_iter()
        .flatten()
        .map(|(name, value)| (name, json!(value.unwrap_or_default())))
        .collect();
    builder.set("sysctls", all);
}

pub(super) fn extra_hosts(builder: &mut Builder<'_>, line: usize, node: &Node) {
    let pairs = builder.take(line, "extra_hosts", words::pairs(node, &['=', ':']));
    let mut all = Map::new();
    for (name, value) in pairs.into_iter().flatten() {
        let value = value.unwrap_or_default();
        let address = value.trim().trim_start_matches('[').trim_end_matches(']');
        match address.parse::<IpAddr>() {
            Ok(ip) => {
                all.insert(name, json!(ip));
            }
            Err(_) if address == "host-gateway" => builder.refuse(
                line,
                "extra_hosts",
                format!("{name}: containers do not reach their worker: write the address of the machine that is meant"),
            ),
            Err(_) => {
                let message = format!("{name}: {value:?} is not an address");
                builder.refuse(line, "extra_hosts", message);
            }
        }
    }
    builder.set("extra_hosts", all);
}

pub(super) fn dns(builder: &mut Builder<'_>, line: usize, key: &str, node: &Node) {
    if key != "dns" {
        return builder.note(
            line,
            key,
            "has no effect: search domains and options are the node's",
        );
    }
    let servers = builder.take(line, key, words::texts(node));
    let servers = servers.unwrap_or_default();
    let wrong = servers.iter().find(|it| it.parse::<Ipv4Addr>().is_err());
    match wrong {
        Some(wrong) => builder.refuse(line, key, format!("{wrong:?} is not an IPv4 address")),
        None => builder.set("dns", servers),
    }
}
