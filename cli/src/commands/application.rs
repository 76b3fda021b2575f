//! Applications: several services that are deployed together, from a Compose file or from a directory of configurations.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use tucano_api::{
    ids::{AppName, ServiceName},
    service::ServiceConfig,
    state::{Deployed, ServiceView},
};

use super::deploy;
use crate::{
    Error,
    args::{self, Global, Wait},
    client::Client,
    compose,
    image::Source,
    output,
};

/// The registry that short names of images belong to in Compose files.
const DOCKER: &str = "docker.io";

/// Services to deploy together.
pub(super) struct Application {
    name: AppName,
    /// Each after those that it starts after.
    services: Vec<Source>,
    /// Whether short names of images are also looked for in Docker's registry.
    is_compose: bool,
    notes: Vec<String>,
}

impl Application {
    /// Its services, in order, and what is done differently.
    pub(super) fn into_parts(self) -> (Vec<Source>, Vec<String>) {
        (self.services, self.notes)
    }
}

/// The application that the arguments name; `None` where it is one service.
pub(super) fn find(arguments: &args::Deploy) -> Result<Option<Application>, Error> {
    let path = &arguments.file;
    let is_service =
        path.is_dir() && (path.join("service.toml").is_file() || path.join("oci-layout").is_file());
    let compose = match path.is_dir() {
        _ if is_service => None,
        true => compose::in_directory(path),
        false => compose::is_compose(path).then(|| path.clone()),
    };
    let application = match compose {
        Some(file) => of_compose(&file, arguments)?,
        None if path.is_dir() && !is_service => match of_directory(path)? {
            Some(application) => application,
            None => return Ok(None),
        },
        None => return Ok(None),
    };
    if arguments.image.is_some() {
        let message = format!(
            "--image is for one service, and {} has several",
            path.display()
        );
        return Err(Error::Usage(message));
    }
    Ok(Some(application))
}

/// Deploys all services of an application, then waits until all of them are healthy.
pub(super) async fn run(
    client: &Client,
    global: &Global,
    arguments: &args::Deploy,
    application: Application,
) -> Result<(), Error> {
    for note in &application.notes {
        output::status(note);
    }
    check_owners(client, &application).await?;
    let no_wait = Wait {
        no_wait: true,
        ..arguments.wait
    };
    let mut all: Vec<Deployed> = Vec::new();
    for source in &application.services {
        let deployed = deploy_one(client, source, no_wait, application.is_compose).await;
        let deployed = deployed.inspect_err(|_| {
            let done: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
            if !done.is_empty() {
                output::status(&format!("deployed before this one: {}", done.join(", ")));
            }
        })?;
        all.push(deployed);
    }
    let mut first_error = None;
    for deployed in all {
        let (deployed, result) = deploy::settle(client, deployed, arguments.wait).await;
        if let Err(error) = deploy::report(global, deployed, result) {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// The names of services, each after those that it starts after and, as far as possible, after those that it needs.
pub(super) fn ordered(services: &[ServiceConfig]) -> Vec<ServiceName> {
    let mut left: Vec<&ServiceConfig> = services.iter().collect();
    left.sort_by(|a, b| a.name.cmp(&b.name));
    let mut done: Vec<ServiceName> = Vec::new();
    while !left.is_empty() {
        let is_left = |name: &ServiceName| left.iter().any(|it| it.name == *name);
        let waits = |names: &[ServiceName], own: &ServiceName| {
            names.iter().any(|name| name != own && is_left(name))
        };
        let needs = |it: &ServiceConfig| [&it.needs[..], &it.placement.with].concat();
        let is_free = |it: &&&ServiceConfig| {
            !waits(&it.start_after, &it.name) && !waits(&needs(it), &it.name)
        };
        let free = left.iter().find(is_free);
        let next = free.or_else(|| left.iter().find(|it| !waits(&it.start_after, &it.name)));
        let next = next.or(left.first()).map(|it| it.name.clone());
        let Some(next) = next else {
            break;
        };
        left.retain(|it| it.name != next);
        done.push(next);
    }
    done
}

fn of_compose(file: &Path, arguments: &args::Deploy) -> Result<Application, Error> {
    let variables = |name: &str| env::var(name).ok();
    let mut profiles = arguments.profile.clone();
    if profiles.is_empty() {
        let usual = env::var("COMPOSE_PROFILES").unwrap_or_default();
        let usual = usual.split(',').filter(|name| !name.is_empty());
        profiles.extend(usual.map(str::to_owned));
    }
    let options = compose::Options {
        profiles: &profiles,
        variables: &variables,
    };
    let application = compose::read(file, &options)?;
    let mut services = Vec::new();
    for service in application.services {
        let text = serde_json::to_string(&service.config).unwrap_or_default();
        let label = format!("{} ({})", file.display(), service.name);
        services.push(Source::of_text(
            &file.with_file_name(label_name(&label)),
            text,
            None,
        )?);
    }
    Ok(Application {
        name: application.name,
        services,
        is_compose: true,
        notes: application.notes,
    })
}

/// The part of a label that takes the place of a file's name: errors show it after the directory.
fn label_name(label: &str) -> String {
    let name = label.rsplit('/').next().unwrap_or(label);
    name.to_owned()
}

/// The configurations of a directory. Services without an `app` belong to the one that is named after it.
fn of_directory(directory: &Path) -> Result<Option<Application>, Error> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::input("read", directory))? {
        let path = entry.map_err(Error::input("read", directory))?.path();
        if path.extension().is_some_and(|it| it == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Ok(None);
    }
    let full = directory
        .canonicalize()
        .map_err(Error::input("read", directory))?;
    let own = full
        .file_name()
        .map(|it| compose::name(&it.to_string_lossy()));
    let own = own.and_then(|name| name.parse().ok());
    let name: AppName = match own {
        Some(name) => name,
        None => "app"
            .parse()
            .map_err(|error| Error::Usage(format!("{error}")))?,
    };
    let mut sources = Vec::new();
    for file in files {
        let mut source = Source::of_service(&file, None)?;
        if source.config.app.is_none() {
            source.config.app = Some(name.clone());
            source.text = serde_json::to_string(&source.config).unwrap_or_default();
        }
        sources.push(source);
    }
    let configs: Vec<ServiceConfig> = sources.iter().map(|it| it.config.clone()).collect();
    let mut seen = BTreeSet::new();
    if let Some(twice) = configs.iter().find(|it| !seen.insert(&it.name)) {
        let message = format!(
            "{} has two services named {}",
            directory.display(),
            twice.name
        );
        return Err(Error::Refused(message.into()));
    }
    let order = ordered(&configs);
    sources.sort_by_key(|it| order.iter().position(|name| *name == it.config.name));
    Ok(Some(Application {
        name,
        services: sources,
        is_compose: false,
        notes: Vec::new(),
    }))
}

/// No service of another application is replaced because it has the same name.
async fn check_owners(client: &Client, application: &Application) -> Result<(), Error> {
    let services: Vec<ServiceView> = client.get("/v1/services").await?;
    let mut taken = Vec::new();
    for source in &application.services {
        let config = &source.config;
        let other = services.iter().find(|it| it.configured.name == config.name);
        let Some(other) = other.filter(|it| it.configured.config.app != config.app) else {
            continue;
        };
        taken.push(match &other.configured.config.app {
            Some(app) => format!("{} belongs to the application {app}", config.name),
            None => format!("{} belongs to no application", config.name),
        });
    }
    match taken.is_empty() {
        true => Ok(()),
        false => Err(Error::Refused(
            format!(
                "{} cannot have services of these names: {}. Rename them, or remove the others",
                application.name,
                taken.join("; ")
            )
            .into(),
        )),
    }
}

/// Deploys a service. An image that the controller does not have is looked for in Docker's registry, for a Compose file.
async fn deploy_one(
    client: &Client,
    source: &Source,
    wait: Wait,
    is_compose: bool,
) -> Result<Deployed, Error> {
    let result = deploy::deploy(client, source, wait).await;
    let error = match result {
        Ok((deployed, _)) => return Ok(deployed),
        Err(error) => error,
    };
    let name = source.config.image.as_deref().filter(|_| is_compose);
    let Some(full) = name
        .and_then(full_name)
        .filter(|_| error.is_no_such_image())
    else {
        return Err(error);
    };
    output::status(&format!(
        "the controller has no such image: {full} is tried"
    ));
    let mut source = source.clone();
    source.config.image = Some(full);
    source.text = serde_json::to_string(&source.config).unwrap_or_default();
    let (deployed, _) = deploy::deploy(client, &source, wait).await?;
    Ok(deployed)
}

/// The name of an image in Docker's registry; `None` where it names a registry, or is a digest.
fn full_name(image: &str) -> Option<String> {
    if image.starts_with("sha256:") {
        return None;
    }
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => None,
        Some(_) => Some(format!("{DOCKER}/{image}")),
        None => Some(format!("{DOCKER}/library/{image}")),
    }
}

#[cfg(test)]
mod tests;
