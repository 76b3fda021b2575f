//! `volumes` and `tmpfs`.

use serde_json::json;
use tucano_api::units::Bytes;

use super::{
    limits::exact,
    service::Builder,
    words,
    yaml::{Entry, Node, Value},
};

/// Size of a volume that the file gives none for.
const DEFAULT_SIZE: Bytes = Bytes(1 << 30);
/// Size of a file system in memory that the file gives none for.
const DEFAULT_TMPFS: Bytes = Bytes(64 << 20);

/// What is mounted, as the file has it.
struct Mount {
    kind: Kind,
    source: String,
    target: String,
    is_read_only: bool,
    size: Option<Bytes>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Volume,
    Bind,
    Tmpfs,
}

pub(super) fn convert(builder: &mut Builder<'_>, node: &Node) {
    for item in node.items() {
        let mount = match &item.value {
            Value::Text { text, .. } => short(text),
            Value::Map(_) => long(item),
            _ => Err("write SOURCE:TARGET".to_owned()),
        };
        if let Some(mount) = builder.take(item.line, "volumes", mount) {
            add(builder, item.line, mount);
        }
    }
}

pub(super) fn tmpfs(builder: &mut Builder<'_>, line: usize, node: &Node) {
    let all = builder.take(line, "tmpfs", words::texts(node));
    for text in all.into_iter().flatten() {
        let (target, options) = text.split_once(':').unwrap_or((&text, ""));
        let size = options.split(',').find_map(|it| it.strip_prefix("size="));
        let size = size.map(|size| {
            words::bytes(&Node {
                line,
                value: Value::Text {
                    text: size.to_owned(),
                    is_plain: true,
                },
            })
        });
        let Some(size) = builder.take(line, "tmpfs", size.transpose()) else {
            continue;
        };
        let mount = Mount {
            kind: Kind::Tmpfs,
            source: String::new(),
            target: target.to_owned(),
            is_read_only: false,
            size,
        };
        add(builder, line, mount);
    }
}

/// `[SOURCE:]TARGET[:OPTIONS]`.
fn short(text: &str) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(format!("{text:?} is not SOURCE:TARGET:OPTIONS")),
    };
    let is_path = source.starts_with(['/', '.', '~']);
    Ok(Mount {
        kind: if is_path { Kind::Bind } else { Kind::Volume },
        source: source.to_owned(),
        target: target.to_owned(),
        is_read_only: options.split(',').any(|it| it == "ro"),
        size: None,
    })
}

fn long(node: &Node) -> Result<Mount, String> {
    let text = |key: &str| {
        node.get(key)
            .and_then(Node::text)
            .unwrap_or_default()
            .to_owned()
    };
    let kind = match text("type").as_str() {
        "volume" => Kind::Volume,
        "bind" => Kind::Bind,
        "tmpfs" => Kind::Tmpfs,
        other => {
            return Err(format!(
                "the type {other:?} is not possible: volume, bind and tmpfs are"
            ));
        }
    };
    let size = node.get("tmpfs").and_then(|it| it.get("size"));
    Ok(Mount {
        kind,
        source: text("source"),
        target: text("target"),
        is_read_only: text("read_only") == "true",
        size: size.map(words::bytes).transpose()?,
    })
}

fn add(builder: &mut Builder<'_>, line: usize, mount: Mount) {
    if !mount.target.starts_with('/') {
        let message = format!(
            "{:?} is not an absolute path in the container",
            mount.target
        );
        return builder.refuse(line, "volumes", message);
    }
    match mount.kind {
        Kind::Tmpfs => {
            let size = mount.size.unwrap_or_else(|| {
                let message = format!(
                    "{} has no size: it gets 64 MiB, which count as memory",
                    mount.target
                );
                builder.note(line, "tmpfs", message);
                DEFAULT_TMPFS
            });
            builder.push(
                "mount",
                json!({ "path": mount.target, "tmpfs": exact(size) }),
            );
        }
        Kind::Bind => bind(builder, line, &mount),
        Kind::Volume if mount.source.is_empty() => {
            let message = format!(
                "{} has no name: what is written there is gone when its process ends. Name the volume to keep it",
                mount.target
            );
            builder.note(line, "volumes", message);
        }
        Kind::Volume => volume(builder, line, &mount),
    }
}

fn bind(builder: &mut Builder<'_>, line: usize, mount: &Mount) {
    let source = &mount.source;
    if source.starts_with('/') {
        let message = format!(
            "{source} is a directory of each worker, not of this machine: its `agent.toml` must list it in `host_paths`"
        );
        builder.note(line, "volumes", message);
        let own = json!({ "path": mount.target, "host": source, "read_only": mount.is_read_only });
        return builder.push("mount", own);
    }
    let is_file = builder.shared.directory.join(source).is_file();
    let advice = match is_file {
        true => format!(
            "send the file along with `configs`, with the target {}",
            mount.target
        ),
        false => {
            "put its files into the image, send single ones along with `configs`, or name a volume"
                .to_owned()
        }
    };
    let message = format!(
        "{source} is on this machine, and the container on a worker, where it would be an empty directory: {advice}"
    );
    builder.refuse(line, "volumes", message);
}

fn volume(builder: &mut Builder<'_>, line: usize, mount: &Mount) {
    let declared = builder
        .shared
        .volumes
        .iter()
        .find(|it| it.key == mount.source);
    let Some(declared) = declared else {
        let message = format!(
            "the volume {} is not among `volumes` of the file",
            mount.source
        );
        return builder.refuse(line, "volumes", message);
    };
    if mount.is_read_only {
        let message = format!(
            "{} can be written to: a volume is its service's own",
            mount.source
        );
        builder.note(line, "volumes", message);
    }
    let size = size_of(builder, declared);
    let name = words::name(&mount.source);
    if name != mount.source {
        let message = format!("the volume {} is named {name} here", mount.source);
        builder.note(line, "volumes", message);
    }
    builder.volumes.push((mount.source.clone(), line));
    builder.push(
        "volume",
        json!({ "name": name, "path": mount.target, "size": exact(size) }),
    );
}

fn size_of(builder: &mut Builder<'_>, declared: &Entry) -> Bytes {
    let key = format!("volumes.{}", declared.key);
    for entry in declared.node.entries() {
        match entry.key.as_str() {
            "external" if entry.node.text() == Some("true") => builder.findings.note(
                entry.line,
                &key,
                "volumes of others are not used: the service gets one of its own, which is empty at first",
            ),
            "driver" | "driver_opts" | "labels" => builder.findings.note(
                entry.line,
                &key,
                format!("{} has no effect: volumes are file systems of the workers", entry.key),
            ),
            _ => {}
        }
    }
    let size = declared.node.get("x-tucano").and_then(|it| it.get("size"));
    match size.map(words::bytes) {
        Some(Ok(size)) => size,
        Some(Err(message)) => {
            builder.findings.refuse(declared.line, &key, message);
            DEFAULT_SIZE
        }
        None => {
            builder.findings.note(
                declared.line,
                &key,
                "has no size: each process gets one of 1 GiB. `x-tucano: { size: 10g }` gives another, and it can grow later",
            );
            DEFAULT_SIZE
        }
    }
}
