//! The document as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tucano_api::ids::{AppName, ServiceName};

use super::{
    Application, Options, Service, dotenv,
    findings::Findings,
    interpolate::interpolate,
    service::{self, Converted},
    words,
    yaml::{self, Entry, Node, Value},
};

/// How the text is read: scalars stay text, since the key decides what `0440`, `22:22` or `yes` is.
const YAML: yaml::Options = yaml::Options {
    max_nodes: 100_000,
    max_depth: 64,
    merges: true,
    nulls: &["", "~", "null", "Null", "NULL"],
};

/// What the services of a file share.
pub(super) struct Shared<'a> {
    /// The directory that relative paths start at.
    pub(super) directory: &'a Path,
    pub(super) app: AppName,
    pub(super) volumes: &'a [Entry],
    pub(super) configs: &'a [Entry],
    pub(super) secrets: &'a [Entry],
    /// The services, by their keys, that end.
    pub(super) jobs: BTreeSet<String>,
    /// Variables of the environment and of `.env`.
    pub(super) variables: &'a dyn Fn(&str) -> Option<String>,
}

/// Reads a Compose file's text.
///
/// # Errors
/// Everything in it that cannot be done, a line for each.
pub(super) fn read(path: &Path, text: &str, options: &Options<'_>) -> Result<Application, String> {
    let shown = |line: usize, message: &str| format!("{}:{line}: {message}", path.display());
    let mut root = yaml::parse(text, YAML).map_err(|it| shown(it.line, &it.message))?;
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let env = variables_of(directory, options)?;
    let variables = |name: &str| (options.variables)(name).or_else(|| env.get(name).cloned());
    let mut findings = Findings::default();
    interpolate_all(&mut root, "", &variables, &mut findings);
    let app = name(&root, directory, &variables);
    let app = app.map_err(|message| shown(1, &format!("name: {message}")))?;
    check_top(&root, &mut findings);
    let entries = |key: &str| root.get(key).map_or(&[][..], Node::entries);
    let services = entries("services");
    if services.is_empty() {
        findings.refuse(root.line, "services", "there is none");
    }
    let chosen = chosen(services, options.profiles, &mut findings);
    let shared = Shared {
        directory,
        jobs: service::jobs(&chosen),
        app: app.clone(),
        volumes: entries("volumes"),
        configs: entries("configs"),
        secrets: entries("secrets"),
        variables: &variables,
    };
    let mut converted = BTreeMap::new();
    for entry in chosen {
        let service = service::convert(&shared, entry, &mut findings);
        if let Some(service) = service {
            let name = service.name.clone();
            if converted.insert(name.clone(), service).is_some() {
                let message = format!("another service of this file is named {name} here, too");
                findings.refuse(entry.line, &format!("services.{}", entry.key), message);
            }
        }
    }
    check_volumes(&converted, &mut findings);
    connect(&mut converted, &mut findings);
    let services = ordered(converted, &mut findings);
    let notes = findings.finish(path)?;
    Ok(Application {
        name: app,
        services,
        notes,
    })
}

/// The variables of `.env` beside the file.
fn variables_of(
    directory: &Path,
    options: &Options<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let path = directory.join(".env");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let all = dotenv::parse(&text, options.variables)
        .map_err(|(line, message)| format!("{}:{line}: {message}", path.display()))?;
    let set = all
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    Ok(set.collect())
}

/// Replaces variables in all values. Keys stay as they are.
fn interpolate_all(
    node: &mut Node,
    key: &str,
    variables: &dyn Fn(&str) -> Option<String>,
    findings: &mut Findings,
) {
    match &mut node.value {
        Value::Null => {}
        Value::Text { text, .. } if text.contains('$') => match interpolate(text, variables) {
            Ok((new, unset)) => {
                for name in unset {
                    let message = format!("the variable {name} is not set: it is taken as empty");
                    findings.note(node.line, key, message);
                }
                *text = new;
            }
            Err(message) => findings.refuse(node.line, key, message),
        },
        Value::Text { .. } => {}
        Value::List(list) => {
            for item in list {
                interpolate_all(item, key, variables, findings);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let below = match key {
                    "" => entry.key.clone(),
                    key => format!("{key}.{}", entry.key),
                };
                interpolate_all(&mut entry.node, &below, variables, findings);
            }
        }
    }
}

/// The application's name: `name`, the variable `COMPOSE_PROJECT_NAME`, or that of the directory.
fn name(
    root: &Node,
    directory: &Path,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<AppName, String> {
    let configured = root.get("name").and_then(Node::text).map(str::to_owned);
    let configured = variables("COMPOSE_PROJECT_NAME").or(configured);
    let own = || {
        let path = directory.canonicalize().ok()?;
        Some(path.file_name()?.to_string_lossy().into_owned())
    };
    let text = configured.or_else(own).unwrap_or_default();
    let name = words::name(&text);
    let name = if name.is_empty() { "app" } else { &name };
    name.parse().map_err(|error| format!("{error}"))
}

fn check_top(root: &Node, findings: &mut Findings) {
    if !matches!(root.value, Value::Map(_)) {
        findings.refuse(
            root.line,
            "the file",
            "write a mapping with the key `services`",
        );
    }
    for entry in root.entries() {
        match entry.key.as_str() {
            "services" | "volumes" | "configs" | "secrets" | "name" | "networks" => {}
            "version" => {}
            "include" => findings.refuse(
                entry.line,
                "include",
                "other files are not read: deploy the output of `docker compose config`, which has all of them",
            ),
            "models" => findings.refuse(entry.line, "models", "models are not run here"),
            key if key.starts_with("x-") => {}
            key => findings.refuse(entry.line, key, "is no key of a Compose file"),
        }
    }
    let networks = root.get("networks").map_or(&[][..], Node::entries);
    for network in networks {
        let key = format!("networks.{}", network.key);
        for entry in network.node.entries() {
            match entry.key.as_str() {
                "external" if entry.node.text() == Some("true") => findings.note(
                    entry.line,
                    &key,
                    "networks of other applications are not joined: a service names what it needs",
                ),
                "driver" | "driver_opts" | "ipam" | "enable_ipv6" | "attachable" | "internal" => {
                    let message = format!(
                        "{} has no effect: the workers' agents make the network",
                        entry.key
                    );
                    findings.note(entry.line, &key, message);
                }
                _ => {}
            }
        }
    }
}

/// The services without a profile, and those whose profile is active.
fn chosen<'a>(services: &'a [Entry], active: &[String], findings: &mut Findings) -> Vec<&'a Entry> {
    let mut chosen = Vec::new();
    for entry in services {
        let profiles = entry.node.get("profiles");
        let profiles = profiles.map_or(Ok(Vec::new()), words::texts);
        match profiles {
            Ok(profiles) if profiles.is_empty() => chosen.push(entry),
            Ok(profiles) => {
                let is_active = |it: &String| active.iter().any(|name| name == it || name == "*");
                match profiles.iter().any(is_active) {
                    true => chosen.push(entry),
                    false => findings.note(
                        entry.line,
                        &format!("services.{}", entry.key),
                        format!(
                            "is left out: it belongs to the profile {}, use --profile",
                            profiles.join(", ")
                        ),
                    ),
                }
            }
            Err(message) => {
                findings.refuse(
                    entry.line,
                    &format!("services.{}.profiles", entry.key),
                    message,
                );
            }
        }
    }
    chosen
}

/// A named volume belongs to the slots of one service.
fn check_volumes(services: &BTreeMap<ServiceName, Converted>, findings: &mut Findings) {
    let mut owners: BTreeMap<&str, &ServiceName> = BTreeMap::new();
    for service in services.values() {
        for (volume, line) in &service.volumes {
            if let Some(other) = owners.insert(volume, &service.name)
                && *other != service.name
            {
                let message = format!(
                    "the volume {volume} is also one of {other}: a volume belongs to one service; keep the files in one of them, and let the other ask it"
                );
                findings.refuse(
                    *line,
                    &format!("services.{}.volumes", service.name),
                    message,
                );
            }
        }
    }
}

/// Services of one network need each other, as far as they have ports.
fn connect(services: &mut BTreeMap<ServiceName, Converted>, findings: &mut Findings) {
    let names: BTreeSet<ServiceName> = services.keys().cloned().collect();
    for service in services.values_mut() {
        let key = format!("services.{}.depends_on", service.name);
        service.after.retain(|it| {
            let is_known = names.contains(&it.name);
            if !is_known && it.is_required {
                let message = format!(
                    "there is no service {} among those that are deployed",
                    it.name
                );
                findings.refuse(it.line, &key, message);
            }
            is_known
        });
    }
    let known: Vec<(ServiceName, BTreeSet<String>, bool)> = services
        .values()
        .map(|it| (it.name.clone(), it.networks.clone(), it.has_ports()))
        .collect();
    for service in services.values_mut() {
        let others = known.iter().filter(|(name, networks, has_ports)| {
            let is_near = !networks.is_disjoint(&service.networks);
            *name != service.name && *has_ports && is_near
        });
        let needs: Vec<String> = others.map(|(name, ..)| name.to_string()).collect();
        let key = format!("services.{}", service.name);
        if !needs.is_empty() && service.config.remove("dns").is_some() {
            let message = "has no effect beside other services: the worker's agent answers for their names, and asks the node's servers for all else";
            findings.note(service.line, &format!("{key}.dns"), message);
        }
        if !needs.is_empty() && !service.config.contains_key("needs") {
            service.config.insert("needs".to_owned(), needs.into());
        }
        if service.is_job {
            let message = "is a job: the deploy runs it, once for each of its revisions, before it deploys what waits for its end";
            findings.note(service.line, &key, message);
            continue;
        }
        if !service.has_ports() && known.len() > 1 {
            let message = "names no port: other services cannot reach it. `expose` names one";
            findings.note(service.line, &key, message);
        }
        let after = service.after.iter().filter(|it| !it.is_completed);
        let after: BTreeSet<String> = after.map(|it| it.name.to_string()).collect();
        if !after.is_empty() && !service.config.contains_key("start_after") {
            let after: Vec<String> = after.into_iter().collect();
            service
                .config
                .insert("start_after".to_owned(), after.into());
        }
    }
}

/// Each service after those that it depends on.
fn ordered(mut left: BTreeMap<ServiceName, Converted>, findings: &mut Findings) -> Vec<Service> {
    let mut stages: BTreeMap<ServiceName, usize> = BTreeMap::new();
    let mut ordered = Vec::new();
    while !left.is_empty() {
        let ready = left.values().find(|service| {
            let mut after = service.after.iter();
            after.all(|it| stages.contains_key(&it.name))
        });
        let Some(name) = ready.map(|service| service.name.clone()) else {
            let cycle: Vec<&str> = left.keys().map(ServiceName::as_str).collect();
            let line = left.values().map(|it| it.line).min().unwrap_or(1);
            let message = format!("{} depend on each other", cycle.join(", "));
            findings.refuse(line, "services", message);
            break;
        };
        if let Some(service) = left.remove(&name) {
            let stage = stage(&service, &stages);
            stages.insert(name, stage);
            ordered.push(Service {
                name: service.name,
                stage,
                after: service.after.into_iter().map(|it| it.name).collect(),
                config: service.config,
            });
        }
    }
    ordered.sort_by_key(|it| it.stage);
    for service in &mut ordered {
        without_later_needs(service, &stages);
    }
    ordered
}

/// A job has ended before a later stage begins, so that it needs nothing of it.
fn without_later_needs(service: &mut Service, stages: &BTreeMap<ServiceName, usize>) {
    let is_job = service.config.contains_key("kind");
    let needs = service.config.get_mut("needs");
    let Some(needs) = needs.filter(|_| is_job).and_then(|it| it.as_array_mut()) else {
        return;
    };
    let is_later = |name: &str| {
        stages
            .iter()
            .any(|(it, at)| it.as_str() == name && *at > service.stage)
    };
    needs.retain(|name| !name.as_str().is_some_and(is_later));
}

/// The stage of the deploy that a service belongs to: the next one after the jobs that it waits for.
fn stage(service: &Converted, stages: &BTreeMap<ServiceName, usize>) -> usize {
    let after = service.after.iter();
    let earliest =
        after.filter_map(|it| Some(stages.get(&it.name)? + usize::from(it.is_completed)));
    earliest.max().unwrap_or(0)
}
