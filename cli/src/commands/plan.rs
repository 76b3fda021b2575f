//! `plan`: what a deploy would change.

use serde::Serialize;
use serde_json::{Map, Value};
use tucano_api::{
    ids::{Revision, ServiceName},
    service::{Effect, ServiceConfig, effect_of},
    state::ServiceView,
};

use super::application;
use crate::{
    Error,
    args::{self, Global},
    client::Client,
    image::Source,
    output,
};

/// What a deploy would do to one service.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Change {
    name: ServiceName,
    /// Its newest revision now; 0 if it is new.
    revision: Revision,
    /// In words, the first one as a whole.
    lines: Vec<String>,
    /// How many of its processes would be replaced.
    replaced: usize,
}

pub(super) async fn run(
    client: &Client,
    global: &Global,
    arguments: &args::Deploy,
) -> Result<(), Error> {
    if arguments.if_changed_from.is_some() {
        let message = "--if-changed-from is for `tucano deploy`: a plan changes nothing";
        return Err(Error::Usage(message.to_owned()));
    }
    let (sources, notes) = match application::find(arguments)? {
        Some(application) => application.into_parts(),
        None => {
            let source = Source::of_service(&arguments.file, arguments.image.as_deref())?;
            (vec![source], Vec::new())
        }
    };
    for note in notes {
        output::status(&note);
    }
    let services: Vec<ServiceView> = client.get("/v1/services").await?;
    let mut changes: Vec<Change> = Vec::new();
    for source in &sources {
        let current = services
            .iter()
            .find(|it| it.configured.name == source.config.name);
        changes.push(change(current, &source.config));
    }
    changes.extend(left_over(&services, &sources));
    if global.json {
        let json = serde_json::to_string(&changes);
        return output::data(&json.map_err(|error| Error::Controller(error.to_string().into()))?);
    }
    let lines = changes.iter().flat_map(|it| &it.lines);
    let lines: Vec<&str> = lines.map(String::as_str).collect();
    output::data(&lines.join("\n"))?;
    if let [only] = &changes[..]
        && sources.len() == 1
    {
        output::status(&format!(
            "`tucano deploy {} --if-changed-from {}` refuses if somebody else is faster",
            arguments.file.display(),
            only.revision
        ));
    }
    Ok(())
}

/// What becomes of a service.
fn change(current: Option<&ServiceView>, config: &ServiceConfig) -> Change {
    let name = config.name.clone();
    let Some(current) = current else {
        let mut lines = vec![format!("{name}: is new, with {}", processes(config))];
        lines.extend(
            config.volume.iter().map(|volume| {
                format!("  volume {}: {} for each process", volume.name, volume.size)
            }),
        );
        return Change {
            name,
            revision: Revision(0),
            lines,
            replaced: 0,
        };
    };
    let before = comparable(&current.configured.config);
    let after = comparable(config);
    let keys = before.keys().chain(after.keys());
    let mut keys: Vec<&String> = keys
        .filter(|key| before.get(*key) != after.get(*key))
        .collect();
    keys.sort();
    keys.dedup();
    let effect = current
        .configured
        .config
        .change_to(&with_image_of(config, current));
    let is_replaced = effect == Effect::Process;
    let replaced = current.active.processes.len() * usize::from(is_replaced);
    let mut lines = vec![match (keys.is_empty(), is_replaced) {
        (true, _) => format!(
            "{name}: has this configuration, revision {}",
            current.configured.revision
        ),
        (false, true) => format!("{name}: {replaced} processes are replaced"),
        (false, false) => format!("{name}: no process is replaced"),
    }];
    lines.extend(keys.into_iter().map(|key| {
        let effect = effect_of(key).map_or("", Effect::describe);
        format!(
            "  {key}: {} -> {}: {effect}",
            shown(before.get(key)),
            shown(after.get(key))
        )
    }));
    if let Some(image) = &config.image {
        lines.push(format!(
            "  image {image}: is looked up by the deploy; another one than {} replaces the processes",
            current.configured.image.short()
        ));
    }
    Change {
        name,
        revision: newest(current),
        lines,
        replaced,
    }
}

/// Services of the same applications that are not among those that are deployed.
fn left_over(services: &[ServiceView], sources: &[Source]) -> Vec<Change> {
    let is_of_one = |view: &&ServiceView| {
        let app = &view.configured.config.app;
        let mut apps = sources.iter().map(|it| &it.config.app);
        app.is_some() && apps.any(|it| it == app)
    };
    let is_missing = |view: &&ServiceView| {
        let mut names = sources.iter().map(|it| &it.config.name);
        names.all(|name| *name != view.configured.name)
    };
    let left = services.iter().filter(is_of_one).filter(is_missing);
    left.map(|view| {
        let name = view.configured.name.clone();
        Change {
            lines: vec![format!(
                "{name}: is not among the files and stays: `tucano rm {name}` removes it"
            )],
            revision: newest(view),
            name,
            replaced: 0,
        }
    })
    .collect()
}

/// The newest revision of a service, which may still wait for its `before`.
fn newest(view: &ServiceView) -> Revision {
    let held = view.hook.as_ref().map(|hook| hook.revision);
    held.unwrap_or_default().max(view.configured.revision)
}

/// A configuration without what the controller fills in.
fn comparable(config: &ServiceConfig) -> Map<String, Value> {
    let mut config = config.clone();
    config.image = None;
    config.health.of_image = None;
    for secret in &mut config.secret {
        secret.version = None;
    }
    for mount in &mut config.mount {
        mount.digest = None;
    }
    match serde_json::to_value(config) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The new configuration with what the controller would fill in, as far as it stays the same.
fn with_image_of(config: &ServiceConfig, current: &ServiceView) -> ServiceConfig {
    let before = &current.configured.config;
    let mut config = config.clone();
    config.image.clone_from(&before.image);
    config.health.of_image.clone_from(&before.health.of_image);
    for secret in &mut config.secret {
        let same = before.secret.iter().find(|it| it.name == secret.name);
        secret.version = same.and_then(|it| it.version);
    }
    for mount in &mut config.mount {
        let same = before.mount.iter().find(|it| it.path == mount.path);
        mount.digest = same.and_then(|it| it.digest.clone());
    }
    config
}

fn processes(config: &ServiceConfig) -> String {
    if config.is_job() {
        return "no process until it is run".to_owned();
    }
    match (config.placement.everywhere, config.concurrency) {
        (true, _) => "one process on each worker that fits".to_owned(),
        (false, 1) => "1 process".to_owned(),
        (false, count) => format!("{count} processes"),
    }
}

/// A value in short. Variables may be secrets: their names alone are shown.
fn shown(value: Option<&Value>) -> String {
    const MOST: usize = 60;
    let text = match value {
        None => return "none".to_owned(),
        Some(Value::Object(map)) if !map.is_empty() && map.values().all(Value::is_string) => {
            let names: Vec<&str> = map.keys().map(String::as_str).collect();
            format!("[{}]", names.join(", "))
        }
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    match text.chars().count() > MOST {
        true => format!("{}…", text.chars().take(MOST).collect::<String>()),
        false => text,
    }
}

#[cfg(test)]
mod tests;
