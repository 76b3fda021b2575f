//! Applications: several services that are deployed together, from a Compose file or from a directory of configurations.

mod stages;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use tucano_api::{
    ids::{AppName, ServiceName},
    service::ServiceConfig,
    state::ServiceView,
};

use self::stages::Stages;
use super::deploy;
use crate::{
    Error,
    args::{self, Global},
    client::Client,
    compose,
    image::Source,
    output,
};

/// Services to deploy together.
pub(super) struct Application {
    name: AppName,
    /// Stage by stage, each after those that it starts after.
    members: Vec<Member>,
    /// Whether short names of images are also looked for in Docker's registry.
    is_compose: bool,
    notes: Vec<String>,
}

/// A service of an application.
pub(super) struct Member {
    source: Source,
    /// The stage of the deploy that it belongs to, from 0.
    stage: usize,
    /// The services that it comes after; none are known of a configuration of its own.
    after: Option<Vec<ServiceName>>,
}

impl Application {
    /// Its services, in order, and what is done differently.
    pub(super) fn into_parts(self) -> (Vec<Source>, Vec<String>) {
        let sources = self.members.into_iter().map(|it| it.source);
        (sources.collect(), self.notes)
    }
}

impl Member {
    fn name(&self) -> &ServiceName {
        &self.source.config.name
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
    let existing: Vec<ServiceView> = client.get("/v1/services").await?;
    check_owners(&existing, &application)?;
    let wait = arguments.wait;
    let stages = Stages::new((client, wait), &application, &existing);
    let mut all = stages.run(&application.members).await?;
    let is_job = |name: &ServiceName| {
        let mut members = application.members.iter();
        members.any(|it| it.name() == name && it.source.config.is_job())
    };
    let mut first_error = None;
    // Nothing of a job is kept alive.
    for job in all.extract_if(.., |it| is_job(&it.name)) {
        deploy::report(global, job, Ok(()))?;
    }
    for deployed in all {
        let (deployed, result) = deploy::settle(client, deployed, wait).await;
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
        let source = Source::of_text(&file.with_file_name(label_name(&label)), text, None)?;
        services.push(Member {
            source,
            stage: service.stage,
            after: Some(service.after),
        });
    }
    Ok(Application {
        name: application.name,
        members: services,
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
    let members = sources.into_iter().map(|source| Member {
        source,
        stage: 0,
        after: None,
    });
    Ok(Some(Application {
        name,
        members: members.collect(),
        is_compose: false,
        notes: Vec::new(),
    }))
}

/// No service of another application is replaced because it has the same name.
fn check_owners(services: &[ServiceView], application: &Application) -> Result<(), Error> {
    let mut taken = Vec::new();
    for member in &application.members {
        let config = &member.source.config;
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

#[cfg(test)]
mod tests;
