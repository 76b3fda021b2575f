//! `ports` and `expose`. What Compose publishes on the host, the balancer routes by host name here, if it is HTTP.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    service::Builder,
    words,
    yaml::{Node, Value},
};

/// Ports of programs that do not speak HTTP.
const NOT_HTTP: [u16; 26] = [
    21, 22, 25, 53, 110, 143, 389, 465, 514, 587, 636, 993, 995, 1433, 1521, 1883, 3306, 4222,
    5432, 5672, 6379, 8883, 9092, 11211, 26257, 27017,
];
/// Images, and the port that they listen on.
const USUAL: [(&str, u16); 18] = [
    ("postgres", 5432),
    ("postgis", 5432),
    ("timescaledb", 5432),
    ("pgvector", 5432),
    ("mysql", 3306),
    ("mariadb", 3306),
    ("percona", 3306),
    ("redis", 6379),
    ("valkey", 6379),
    ("keydb", 6379),
    ("memcached", 11211),
    ("mongo", 27017),
    ("rabbitmq", 5672),
    ("nats", 4222),
    ("eclipse-mosquitto", 1883),
    ("elasticsearch", 9200),
    ("clickhouse-server", 8123),
    ("minio", 9000),
];
/// Most ports of one range.
const MAX_RANGE: u16 = 16;

/// A port of a service.
struct Wanted {
    line: usize,
    port: u16,
    is_udp: bool,
    /// Whether the file says that HTTP is spoken on it.
    is_http: Option<bool>,
    /// What it is published as; `None` if it is only exposed.
    published: Option<String>,
}

pub(super) fn convert(builder: &mut Builder<'_>, service: &Node) {
    let mut wanted: Vec<Wanted> = Vec::new();
    for node in service.get("ports").map_or(&[][..], Node::items) {
        match port(node) {
            Ok(ports) => wanted.extend(ports),
            Err(message) => builder.refuse(node.line, "ports", message),
        }
    }
    let exposed = service.get("expose").map_or(&[][..], Node::items);
    for node in exposed {
        match node.text().map(|text| short(node.line, text)) {
            Some(Ok(ports)) => wanted.extend(ports.into_iter().map(|it| Wanted {
                published: None,
                ..it
            })),
            _ => builder.refuse(node.line, "expose", "write a port"),
        }
    }
    if wanted.is_empty() {
        let image = service
            .get("image")
            .and_then(Node::text)
            .unwrap_or_default();
        wanted.extend(usual(image).map(|port| Wanted {
            line: service.line,
            port,
            is_udp: false,
            is_http: Some(false),
            published: None,
        }));
    }
    let mut ports: BTreeMap<(u16, bool), Wanted> = BTreeMap::new();
    for one in wanted {
        let known = ports.get(&(one.port, one.is_udp));
        if known.is_none_or(|known| known.published.is_none()) {
            ports.insert((one.port, one.is_udp), one);
        }
    }
    let http = http_port(&ports);
    let mut named = serde_json::Map::new();
    for ((number, is_udp), one) in &ports {
        let is_http = http == Some(*number) && !is_udp;
        explain(builder, one, is_http);
        if is_http {
            builder.set("port", *number);
        } else {
            let protocol = if *is_udp { "udp" } else { "tcp" };
            let suffix = if *is_udp { "u" } else { "" };
            named.insert(
                format!("p{number}{suffix}"),
                json!({ "port": number, "protocol": protocol }),
            );
        }
    }
    if !named.is_empty() {
        builder.set("ports", named);
    }
}

/// The port of a well-known image: Compose files name none where only other services connect.
fn usual(image: &str) -> Option<u16> {
    let name = image.split('@').next().unwrap_or(image);
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    let known = USUAL.iter().find(|(known, _)| *known == name);
    known.map(|(_, port)| *port)
}

/// Whether a port is known to be that of a program that does not speak HTTP.
pub(crate) fn is_not_http(port: u16) -> bool {
    NOT_HTTP.contains(&port)
}

/// The port of requests: the one that the file says, else the first published one that is not known to be another protocol's.
fn http_port(ports: &BTreeMap<(u16, bool), Wanted>) -> Option<u16> {
    let tcp = || ports.values().filter(|it| !it.is_udp);
    let said = tcp().find(|it| it.is_http == Some(true));
    let may_be = |it: &&Wanted| it.is_http.is_none() && !NOT_HTTP.contains(&it.port);
    let published = || tcp().filter(|it| it.published.is_some()).filter(may_be);
    let usual = [80, 8080, 3000, 8000, 5000];
    let usual = published().find(|it| usual.contains(&it.port));
    said.or(usual)
        .or_else(|| published().next())
        .map(|it| it.port)
}

fn explain(builder: &mut Builder<'_>, one: &Wanted, is_http: bool) {
    let (Some(published), port) = (&one.published, one.port) else {
        return;
    };
    let name = builder
        .config
        .get("name")
        .and_then(|it| it.as_str())
        .unwrap_or_default();
    let message = match is_http {
        true => format!(
            "{published}: requests come through the balancer, for the host {name}.<domain>, and are taken for HTTP to port {port}. `x-tucano` can say more: `hosts`, `path_prefix`, `port`"
        ),
        false => {
            format!("{published}: is not published. Port {port} is there for services that need it")
        }
    };
    builder.note(one.line, "ports", message);
}

fn port(node: &Node) -> Result<Vec<Wanted>, String> {
    match &node.value {
        Value::Text { text, .. } => short(node.line, text),
        Value::Map(_) => long(node),
        _ => Err("write a port".to_owned()),
    }
}

/// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, each a port or a range.
fn short(line: usize, text: &str) -> Result<Vec<Wanted>, String> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let is_udp = udp(protocol)?;
    let container = rest.rsplit(':').next().unwrap_or(rest);
    let (first, last) = range(container)?;
    let all = (first..=last).map(|port| Wanted {
        line,
        port,
        is_udp,
        is_http: None,
        published: Some(text.to_owned()),
    });
    Ok(all.collect())
}

fn long(node: &Node) -> Result<Vec<Wanted>, String> {
    let target = node.get("target").ok_or("`target` is missing")?;
    let (first, last) = range(words::text(target)?)?;
    let protocol = node.get("protocol").and_then(Node::text).unwrap_or("tcp");
    let is_udp = udp(protocol)?;
    let app_protocol = node.get("app_protocol").and_then(Node::text);
    let is_http = app_protocol.map(|it| it.starts_with("http"));
    let published = node.get("published").and_then(Node::text);
    let all = (first..=last).map(|port| Wanted {
        line: node.line,
        port,
        is_udp,
        is_http,
        published: Some(published.unwrap_or("a port").to_owned()),
    });
    Ok(all.collect())
}

fn udp(protocol: &str) -> Result<bool, String> {
    match protocol {
        "tcp" => Ok(false),
        "udp" => Ok(true),
        other => Err(format!(
            "the protocol {other} is not possible: tcp and udp are"
        )),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let number = text.parse::<u16>().ok().filter(|number| *number > 0);
        number.ok_or_else(|| format!("{text:?} is not a port"))
    };
    let (first, last) = (number(first)?, number(last)?);
    match last.checked_sub(first) {
        Some(more) if more < MAX_RANGE => Ok((first, last)),
        Some(_) => Err(format!("a range has at most {MAX_RANGE} ports here")),
        None => Err(format!("{text:?} is not a range")),
    }
}
