//! The text of a configuration. What comes from the image is quoted everywhere: a line break in it would begin a line of its own.

use std::{fmt::Write, path::Path};

use tucano_api::{
    ids::{ServiceName, VolumeName},
    image::ImageDescription,
};

use crate::compose;

/// Size of a volume, to begin with.
const VOLUME_SIZE: &str = "1GiB";
/// Longest text of an image that a comment shows, in characters.
const MAX_SHOWN: usize = 200;

pub(super) fn of(name: &ServiceName, image: &ImageDescription, file: &Path) -> String {
    let volumes = volumes(&image.volumes);
    let parts = [
        head(name, image, file),
        ports(&image.exposed_ports),
        process(image),
        health(image),
        volumes,
    ];
    parts.concat()
}

fn head(name: &ServiceName, image: &ImageDescription, file: &Path) -> String {
    let file = match file.to_str() {
        Some("-") | None => format!("{name}.toml"),
        Some(file) => file.to_owned(),
    };
    let check = quoted(&format!("tucano check {file}"));
    format!(
        "# Made by `tucano init` of what the image says of itself. {check} checks this file.\n\n\
         name = \"{name}\"\nimage = {}\n# How many processes are kept alive.\nconcurrency = 1\n\
         # Memory limit of each process; also what it reserves on its worker.\nmemory = \"256MiB\"\n",
        quoted(&image.name)
    )
}

/// Ports of the image: the first one that may speak HTTP gets the requests.
fn ports(exposed: &[String]) -> String {
    let all = exposed.iter().filter_map(|text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
        matches!(protocol, "tcp" | "udp").then_some((port, protocol))
    });
    let mut all: Vec<(u16, &str)> = all.collect();
    all.sort_unstable();
    let http = all
        .iter()
        .find(|(port, protocol)| *protocol == "tcp" && !compose::is_not_http(*port));
    let http = http.copied();
    let mut text = String::new();
    match http {
        Some((port, _)) => {
            text +=
                "\n# Requests come through the balancer to this port, which the image exposes.\n";
            writeln!(text, "port = {port}").ok();
        }
        None if all.is_empty() => {
            text += "\n# The image exposes no port. Requests come through the balancer to this one:\n# port = 8080\n";
        }
        None => {}
    }
    let others: Vec<_> = all.iter().filter(|it| Some(**it) != http).collect();
    if !others.is_empty() {
        text += "\n# Ports for other services only, which name this one in their `needs`.\n";
        let others = others.iter().map(|(port, protocol)| match *protocol {
            "udp" => format!("p{port}u = {{ port = {port}, protocol = \"udp\" }}"),
            _ => format!("p{port} = {port}"),
        });
        let others: Vec<String> = others.collect();
        writeln!(text, "ports = {{ {} }}", others.join(", ")).ok();
    }
    text
}

/// What the image sets, and the key that sets something else.
fn process(image: &ImageDescription) -> String {
    let mut text =
        "\n# What the image says, and what is in force unless a line is taken in:\n".to_owned();
    let mut line = |key: &str, value: String| {
        writeln!(text, "# {key} = {value}").ok();
    };
    let words = |words: &[String]| {
        let words: Vec<String> = words.iter().map(|it| quoted(it)).collect();
        format!("[{}]", words.join(", "))
    };
    if !image.entrypoint.is_empty() {
        line("entrypoint", words(&image.entrypoint));
    }
    if !image.cmd.is_empty() {
        line("args", words(&image.cmd));
    }
    for (key, value, default) in [
        ("user", &image.user, "0"),
        ("working_dir", &image.working_dir, "/"),
        ("stop_signal", &image.stop_signal, "SIGTERM"),
    ] {
        line(key, quoted(if value.is_empty() { default } else { value }));
    }
    if image.user.is_empty() {
        text += "# Its programs run as the container's root. Those that need its powers ask for some, such as caps = \"web\".\n";
    }
    text
}

fn health(image: &ImageDescription) -> String {
    let Some(health) = &image.health else {
        return "\n# A process is healthy when its port takes connections. More telling is a path that answers:\n\
                # health = { http = \"/\" }\n"
            .to_owned();
    };
    let words: Vec<String> = health.exec.iter().map(|it| quoted(it)).collect();
    format!(
        "\n# The image's own health check is used: this command, every {}. Another one, or none:\n# health = {{ exec = [{}] }}\n\
         # health = {{ http = \"/\" }}\n# health = {{ image = false }}\n",
        health.interval,
        words.join(", ")
    )
}

fn volumes(paths: &[String]) -> String {
    let mut text = String::new();
    let mut names: Vec<String> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for path in paths {
        let parts: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
        let path = format!("/{}", parts.join("/"));
        let is_odd = parts.is_empty() || parts.iter().any(|it| [".", ".."].contains(it));
        let is_near = |other: &String| {
            tucano_api::service::is_at_or_below(&path, other)
                || tucano_api::service::is_at_or_below(other, &path)
        };
        if is_odd || seen.iter().any(is_near) {
            continue;
        }
        if seen.is_empty() {
            text += "\n# The image declares volumes. Each process has its own, which outlives it; without these lines, what is written\n\
                     # there is gone when the process ends.\n";
        }
        let name = volume_name(parts.last().copied().unwrap_or_default(), &names);
        write!(
            text,
            "[[volume]]\nname = \"{name}\"\npath = {}\nsize = \"{VOLUME_SIZE}\"\n",
            quoted_whole(&path)
        )
        .ok();
        names.push(name);
        seen.push(path);
    }
    text
}

/// A name of a volume that none before has.
fn volume_name(from: &str, taken: &[String]) -> String {
    let name = compose::name(from);
    let name = match name.parse::<VolumeName>() {
        Ok(name) => name.to_string(),
        Err(_) => "data".to_owned(),
    };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut all = std::iter::once(name.clone()).chain(numbered);
    all.find(|it| !taken.contains(it)).unwrap_or(name)
}

/// A text as TOML has it, cut where it is long.
fn quoted(text: &str) -> String {
    match text.chars().count() > MAX_SHOWN {
        true => quoted_whole(
            &text
                .chars()
                .take(MAX_SHOWN)
                .chain(['…'])
                .collect::<String>(),
        ),
        false => quoted_whole(text),
    }
}

/// A basic string of TOML, in which every control character is escaped.
fn quoted_whole(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                write!(quoted, "\\u{:04X}", u32::from(c)).ok();
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
