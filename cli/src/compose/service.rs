//! One service of a Compose file, key by key.

mod job;
mod relations;

pub(super) use relations::jobs;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};
use tucano_api::{ids::ServiceName, service::ServiceConfig, settings::parse_all};

use super::{
    deploy, dotenv,
    file::Shared,
    files,
    findings::Findings,
    health, limits, ports, volumes, words,
    yaml::{Entry, Node, Value},
};

/// A converted service.
pub(super) struct Converted {
    pub(super) name: ServiceName,
    pub(super) line: usize,
    /// Whether it ends.
    pub(super) is_job: bool,
    pub(super) config: Map<String, Json>,
    pub(super) after: Vec<After>,
    /// Its named volumes, by their names in the file, with their lines.
    pub(super) volumes: Vec<(String, usize)>,
    /// The networks that it is in.
    pub(super) networks: BTreeSet<String>,
}

impl Converted {
    /// Whether it has a port that others could connect to.
    pub(super) fn has_ports(&self) -> bool {
        ["port", "ports"]
            .iter()
            .any(|key| self.config.contains_key(*key))
    }
}

/// A service that another one comes after.
pub(super) struct After {
    pub(super) name: ServiceName,
    pub(super) line: usize,
    pub(super) is_required: bool,
    /// Whether the other one is to have ended.
    pub(super) is_completed: bool,
}

impl After {
    /// After one that is to be started, and that is still to be named.
    fn started(builder: &Builder<'_>, line: usize) -> Self {
        Self {
            name: builder.name.clone(),
            line,
            is_required: true,
            is_completed: false,
        }
    }
}

/// What a service is made with.
pub(super) struct Builder<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) findings: &'a mut Findings,
    pub(super) name: ServiceName,
    /// Whether it ends.
    pub(super) is_job: bool,
    /// `services.NAME`.
    pub(super) path: String,
    pub(super) config: Map<String, Json>,
    pub(super) after: Vec<After>,
    pub(super) volumes: Vec<(String, usize)>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) networks: BTreeSet<String>,
}

impl Builder<'_> {
    pub(super) fn refuse(&mut self, line: usize, key: &str, message: impl AsRef<str>) {
        let key = format!("{}.{key}", self.path);
        self.findings.refuse(line, &key, message);
    }

    pub(super) fn note(&mut self, line: usize, key: &str, message: impl AsRef<str>) {
        let key = format!("{}.{key}", self.path);
        self.findings.note(line, &key, message);
    }

    pub(super) fn set(&mut self, key: &str, value: impl Into<Json>) {
        self.config.insert(key.to_owned(), value.into());
    }

    /// The value, or the refusal of a key.
    pub(super) fn take<T>(
        &mut self,
        line: usize,
        key: &str,
        value: Result<T, String>,
    ) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(message) => {
                self.refuse(line, key, message);
                None
            }
        }
    }

    /// Adds an element to a list of the configuration.
    pub(super) fn push(&mut self, list: &str, element: Json) {
        let all = self.config.entry(list).or_insert_with(|| json!([]));
        if let Some(all) = all.as_array_mut() {
            all.push(element);
        }
    }
}

/// Keys that change nothing here, and what happens instead.
const WITHOUT_EFFECT: [(&str, &str); 14] = [
    (
        "container_name",
        "has no effect: processes are named by their service and a number",
    ),
    ("logging", "has no effect: `tucano logs` has the output"),
    ("tty", "has no effect: `tucano exec` gives a terminal"),
    ("stdin_open", "has no effect: `tucano exec` gives an input"),
    (
        "pull_policy",
        "has no effect: the controller pulls what it does not have",
    ),
    (
        "platform",
        "has no effect: each worker gets the image of its architecture",
    ),
    ("develop", "has no effect"),
    ("attach", "has no effect"),
    (
        "labels",
        "have no effect: nothing reads them here. Hosts and paths of requests are keys of `x-tucano`",
    ),
    ("annotations", "have no effect: nothing reads them here"),
    (
        "oom_score_adj",
        "has no effect: containers end before the node's own programs",
    ),
    (
        "oom_kill_disable",
        "has no effect: a process that reaches its memory limit is ended",
    ),
    (
        "memswap_limit",
        "has no effect: there is no swap beyond the memory limit",
    ),
    (
        "mem_swappiness",
        "has no effect: there is no swap beyond the memory limit",
    ),
];

/// What to do instead of keys for devices, which say which ones where the cluster's say how many.
pub(super) const NO_DEVICES: &str = "say it in `x-tucano`, such as `x-tucano: { devices: [\"nvidia.com/gpu=1\", \"/dev/fuse\"] }`: a number is how many there, and not which";

/// Keys that cannot be done, and what to do.
const REFUSED: [(&str, &str); 24] = [
    (
        "privileged",
        "no container is privileged here: name the capabilities that it needs in `cap_add`, or run it beside the cluster",
    ),
    ("devices", NO_DEVICES),
    ("device_cgroup_rules", NO_DEVICES),
    ("gpus", NO_DEVICES),
    ("ipc", "every container has an IPC namespace of its own"),
    ("pid", "every container has a pid namespace of its own"),
    (
        "uts",
        "every container has a host name of its own: use `hostname`",
    ),
    ("userns_mode", "the node decides about user namespaces"),
    ("cgroup", "every container has a cgroup of its own"),
    ("cgroup_parent", "the node decides where cgroups are"),
    (
        "cpuset",
        "CPUs are not pinned: use `cpus`, and `deploy.resources.reservations.cpus`",
    ),
    ("isolation", "is for Windows"),
    ("credential_spec", "is for Windows"),
    ("runtime", "all containers have the same runtime"),
    (
        "extends",
        "other services are not read: deploy the output of `docker compose config`, which has it resolved",
    ),
    (
        "external_links",
        "services of other applications are not linked",
    ),
    ("volumes_from", "a volume belongs to one service"),
    (
        "group_add",
        "a process has the groups of its user in the image's /etc/group: add them there",
    ),
    ("mac_address", "addresses are chosen by the node"),
    ("domainname", "only `hostname` can be set"),
    ("post_start", "commands in running containers are not run"),
    (
        "pre_stop",
        "commands in running containers are not run: handle the stop signal",
    ),
    ("provider", "services of other programs are not run"),
    ("blkio_config", "disk bandwidth is not limited"),
];

/// Converts a service; `None` if it has no usable name.
pub(super) fn convert(
    shared: &Shared<'_>,
    entry: &Entry,
    findings: &mut Findings,
) -> Option<Converted> {
    let path = format!("services.{}", entry.key);
    let plain = words::name(&entry.key);
    let name: ServiceName = match plain.parse() {
        Ok(name) => name,
        Err(error) => {
            findings.refuse(entry.line, &path, format!("{error}"));
            return None;
        }
    };
    if plain != entry.key {
        let message = format!("is named {plain} here: write that name where others connect to it");
        findings.note(entry.line, &path, message);
    }
    let mut builder = Builder {
        shared,
        findings,
        name: name.clone(),
        is_job: shared.jobs.contains(&entry.key),
        path,
        config: Map::new(),
        after: Vec::new(),
        volumes: Vec::new(),
        env: BTreeMap::new(),
        networks: BTreeSet::from(["default".to_owned()]),
    };
    builder.set("name", name.to_string());
    builder.set("app", shared.app.to_string());
    match builder.is_job {
        true => builder.set("kind", "job"),
        false => builder.set("concurrency", 1),
    }
    if !matches!(entry.node.value, Value::Map(_)) {
        let message = format!("write a mapping, not {}", entry.node.kind());
        builder
            .findings
            .refuse(entry.line, &builder.path.clone(), message);
        return None;
    }
    env_files(&mut builder, &entry.node);
    for key in entry.node.entries() {
        service_key(&mut builder, key, &entry.node);
    }
    whole(&mut builder, &entry.node, entry.line);
    if builder.is_job {
        job::without_keys_of_services(&mut builder, &entry.node);
    }
    extension(&mut builder, &entry.node);
    check(&mut builder, entry.line);
    let Builder {
        config,
        after,
        volumes,
        networks,
        is_job,
        ..
    } = builder;
    Some(Converted {
        name,
        line: entry.line,
        is_job,
        config,
        after,
        volumes,
        networks,
    })
}

/// What the configuration that was made says of itself.
fn check(builder: &mut Builder<'_>, line: usize) {
    let text = Json::Object(builder.config.clone()).to_string();
    if let Err(errors) = parse_all::<ServiceConfig>("", &text) {
        let path = builder.path.clone();
        for error in errors.iter() {
            builder.findings.refuse(line, &path, &error.message);
        }
    }
}

fn service_key(builder: &mut Builder<'_>, entry: &Entry, service: &Node) {
    let Entry { key, line, node } = entry;
    let line = *line;
    match key.as_str() {
        "image" => {
            let text = builder.take(line, key, words::text(node).map(str::to_owned));
            if let Some(text) = text {
                let name = text.rsplit('/').next().unwrap_or(&text);
                let is_file = builder.shared.directory.join(&text).exists();
                let is_whole = name.contains([':', '@']) || is_file;
                let text = if is_whole { text } else { format!("{text}:latest") };
                builder.set("image", text);
            }
        }
        "build" if service.get("image").is_some() => builder.note(
            line,
            key,
            "images are not built here: the one that `image` names is used",
        ),
        "build" => builder.refuse(
            line,
            key,
            "images are not built here: build it, push it to a registry that the controller knows, and name it with `image`",
        ),
        "command" if node.is_null() => {}
        "entrypoint" if node.is_null() => {}
        "command" | "entrypoint" => {
            let words = builder.take(line, key, words::command(node));
            if let Some(words) = words {
                let own = if key == "command" { "args" } else { "entrypoint" };
                builder.set(own, words);
            }
        }
        "environment" => environment(builder, line, node),
        "env_file" | "profiles" | "x-tucano" => {}
        "working_dir" | "hostname" | "stop_signal" | "user" => {
            let text = builder.take(line, key, words::text(node).map(str::to_owned));
            if let Some(text) = text {
                builder.set(key, text);
            }
        }
        "init" | "read_only" => {
            if let Some(true) = builder.take(line, key, words::boolean(node)) {
                builder.set(key, true);
            }
        }
        "stop_grace_period" => {
            if let Some(time) = builder.take(line, key, words::duration(node)) {
                builder.set("stop_timeout", time.to_string());
            }
        }
        "ports" => {}
        "expose" => {}
        "volumes" => volumes::convert(builder, node),
        "tmpfs" => volumes::tmpfs(builder, line, node),
        "configs" => files::configs(builder, node),
        "secrets" => files::secrets(builder, node),
        "healthcheck" => health::convert(builder, line, node),
        "depends_on" => relations::depends_on(builder, line, node),
        "links" => relations::links(builder, line, node),
        "deploy" => deploy::convert(builder, node),
        "scale" => {
            if let Some(count) = builder.take(line, key, words::number::<u32>(node)) {
                deploy::replicas(builder, line, key, count);
            }
        }
        "restart" if builder.is_job => job::restart(builder, line, node),
        "restart" => restart(builder, line, node),
        "networks" => relations::networks(builder, line, node),
        "network_mode" => match node.text() {
            Some("bridge") => {}
            _ => builder.refuse(
                line,
                key,
                "every container has a network of its own: remove the key",
            ),
        },
        "security_opt" => security(builder, line, node),
        "cap_add" | "cap_drop" => {}
        "privileged" if node.text() == Some("false") => {}
        "extra_hosts" => limits::extra_hosts(builder, line, node),
        "dns" | "dns_search" | "dns_opt" => limits::dns(builder, line, key, node),
        "ulimits" => limits::ulimits(builder, line, node),
        "sysctls" => limits::sysctls(builder, line, node),
        "mem_limit" | "mem_reservation" | "cpus" | "pids_limit" | "shm_size" | "cpu_shares"
        | "cpu_quota" | "cpu_period" | "cpu_percent" | "cpu_count" => {
            limits::resource(builder, line, key, node);
        }
        key if key.starts_with("x-") => {}
        key => other_key(builder, line, key),
    }
}

fn other_key(builder: &mut Builder<'_>, line: usize, key: &str) {
    if let Some((_, message)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == key) {
        return builder.note(line, key, message);
    }
    match REFUSED.iter().find(|(known, _)| *known == key) {
        Some((_, message)) => builder.refuse(line, key, message),
        None => builder.refuse(line, key, "is no key of a service"),
    }
}

/// What depends on several keys.
fn whole(builder: &mut Builder<'_>, service: &Node, line: usize) {
    if service.get("image").is_none() && service.get("build").is_none() {
        builder.refuse(line, "image", "is missing");
    }
    ports::convert(builder, service);
    capabilities(builder, service, line);
    if !builder.env.is_empty() {
        let env = std::mem::take(&mut builder.env);
        builder.set("env", json!(env));
    }
    if !builder.config.contains_key("memory") {
        builder.note(
            line,
            "mem_limit",
            "is not set: each process may use, and reserves, 256 MiB",
        );
    }
}

/// Files of variables; those of `environment` win.
fn env_files(builder: &mut Builder<'_>, service: &Node) {
    let Some(node) = service.get("env_file") else {
        return;
    };
    let one = [node.clone()];
    let files = match &node.value {
        Value::List(list) => &list[..],
        _ => &one[..],
    };
    for file in files {
        let (path, is_required) = match &file.value {
            Value::Map(_) => {
                let path = file.get("path").and_then(Node::text);
                let required = file.get("required").and_then(Node::text);
                if let Some(format) = file.get("format") {
                    builder.refuse(format.line, "env_file", "only the usual format is read");
                }
                (path, required != Some("false"))
            }
            _ => (file.text(), true),
        };
        let Some(path) = path else {
            builder.refuse(file.line, "env_file", "name a file");
            continue;
        };
        let full = builder.shared.directory.join(path);
        match std::fs::read_to_string(&full) {
            Ok(text) => match dotenv::parse(&text, builder.shared.variables) {
                Ok(all) => {
                    let set = all
                        .into_iter()
                        .filter_map(|(name, value)| Some((name, value?)));
                    builder.env.extend(set);
                }
                Err((number, message)) => {
                    let message = format!("{}:{number}: {message}", full.display());
                    builder.refuse(file.line, "env_file", message);
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_required => {}
            Err(error) => {
                let message = format!("cannot read {}: {error}", full.display());
                builder.refuse(file.line, "env_file", message);
            }
        }
    }
}

fn environment(builder: &mut Builder<'_>, line: usize, node: &Node) {
    let pairs = builder.take(line, "environment", words::pairs(node, &['=']));
    for (name, value) in pairs.into_iter().flatten() {
        match value.or_else(|| (builder.shared.variables)(&name)) {
            Some(value) => {
                builder.env.insert(name, value);
            }
            // As by Compose: a name without a value, which is not set here, is not set there.
            None => {
                builder.env.remove(&name);
            }
        }
    }
}

fn restart(builder: &mut Builder<'_>, line: usize, node: &Node) {
    let policy = node.text().unwrap_or_default();
    match policy.split(':').next().unwrap_or_default() {
        "always" | "unless-stopped" => {}
        "no" | "false" | "on-failure" => builder.note(
            line,
            "restart",
            format!("{policy} is not possible: a process that ends is started again"),
        ),
        _ => builder.refuse(line, "restart", format!("{policy:?} is no policy")),
    }
}

fn security(builder: &mut Builder<'_>, line: usize, node: &Node) {
    let options = builder.take(line, "security_opt", words::texts(node));
    for option in options.into_iter().flatten() {
        let is_usual = option.starts_with("no-new-privileges") && !option.ends_with("false");
        if !is_usual {
            let message =
                format!("{option} is not possible: the sandbox is the same for all containers");
            builder.refuse(line, "security_opt", message);
        }
    }
}

/// Docker's containers have some capabilities by default, and programs of images expect them.
fn capabilities(builder: &mut Builder<'_>, service: &Node, line: usize) {
    let list = |key: &str| service.get(key).map_or(Ok(Vec::new()), words::texts);
    let added = builder
        .take(line, "cap_add", list("cap_add"))
        .unwrap_or_default();
    let dropped = builder
        .take(line, "cap_drop", list("cap_drop"))
        .unwrap_or_default();
    let plain = |text: &String| {
        let upper = text.to_ascii_uppercase();
        upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
    };
    let dropped: Vec<String> = dropped.iter().map(plain).collect();
    const USUAL: [&str; 9] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETUID",
    ];
    let drops_all = dropped.iter().any(|it| it == "ALL");
    let usual = USUAL
        .iter()
        .filter(|_| !drops_all)
        .map(|it| (*it).to_owned());
    let mut all: Vec<String> = usual.chain(added.iter().map(plain)).collect();
    all.retain(|it| !dropped.contains(it));
    all.sort();
    all.dedup();
    if let Some(all_of_them) = all.iter().find(|it| *it == "ALL") {
        let message = format!("{all_of_them} is not possible: name the capabilities that it needs");
        return builder.refuse(line, "cap_add", message);
    }
    if !all.is_empty() {
        builder.set("caps", all);
    }
}

/// `x-tucano`: keys of `service.toml`, in place of what was made of the others.
fn extension(builder: &mut Builder<'_>, service: &Node) {
    let Some(node) = service.get("x-tucano") else {
        return;
    };
    for entry in node.entries() {
        match entry.key.as_str() {
            "name" | "app" => builder.refuse(
                entry.line,
                "x-tucano",
                format!("{} is the file's", entry.key),
            ),
            key => builder.set(key, as_json(&entry.node)),
        }
    }
}

/// A value as JSON: plain words are numbers, booleans and nothing where they look so.
fn as_json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Text {
            text,
            is_plain: true,
        } => match text.as_str() {
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            text => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(number), _) => number.into(),
                (_, Ok(number)) if number.is_finite() => number.into(),
                _ => text.into(),
            },
        },
        Value::Text { text, .. } => text.as_str().into(),
        Value::List(list) => list.iter().map(as_json).collect(),
        Value::Map(entries) => {
            let entries = entries.iter();
            Json::Object(
                entries
                    .map(|it| (it.key.clone(), as_json(&it.node)))
                    .collect(),
            )
        }
    }
}
