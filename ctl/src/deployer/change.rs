//! Makes revisions of configurations that fit beside each other, in one step of the planner.

use std::collections::BTreeSet;

use tucano_api::{
    ids::{Revision, ServiceName},
    service::ServiceConfig,
    state::ConfiguredService,
};
use tucano_planner::{Cluster, Configured, Event};

use super::{DeployError, Deployer, Outcome, capacity};
use crate::{
    secrets::Checker,
    state_loop::{Refused, TransactError},
};

/// Revision and concurrency of a service before a change; none of a new service.
type Before = Option<(Revision, u32)>;

impl Deployer {
    /// Makes a revision of the configuration that `decide` derives from the cluster, if `expected`, where given, is the newest one.
    pub(super) async fn change(
        &self,
        expected: Option<Revision>,
        decide: impl FnOnce(&Cluster) -> Result<Configured, DeployError> + Send + 'static,
    ) -> Result<Outcome, DeployError> {
        let outcomes = self.change_all(expected, move |cluster| Ok(vec![decide(cluster)?]));
        let outcome = outcomes.await?.pop();
        outcome.ok_or_else(|| refused().into())
    }

    /// Makes revisions of the configurations that `decide` derives from the cluster: of all of them or of none.
    pub(super) async fn change_all(
        &self,
        expected: Option<Revision>,
        decide: impl FnOnce(&Cluster) -> Result<Vec<Configured>, DeployError> + Send + 'static,
    ) -> Result<Vec<Outcome>, DeployError> {
        let checker = self.secrets.clone();
        let decide = move |cluster: &Cluster| {
            let mut services = decide(cluster)?;
            for service in &mut services {
                complete(cluster, service)?;
                check_revision(cluster, service, expected)?;
            }
            let together = (services.len() > 1).then(|| cluster.with_configured(&services));
            let beside = together.as_ref().unwrap_or(cluster);
            for service in &services {
                let checked = check(cluster, beside, checker.as_ref(), service);
                checked.map_err(|error| match &together {
                    Some(_) => error.of_one(&service.config.name),
                    None => error,
                })?;
            }
            let before = services.iter().map(|it| before(cluster, &it.config.name));
            let before: Vec<_> = before.collect();
            Ok::<_, DeployError>((Event::ServicesConfigured { services }, before))
        };
        let read = |cluster: &Cluster, before: Vec<(ServiceName, Before)>| -> Option<Vec<_>> {
            let outcomes = before.into_iter();
            outcomes
                .map(|(name, before)| Some(outcome(before, cluster.newest(&name)?)))
                .collect()
        };
        let outcomes = self.state.transact(decide, read).await;
        let outcomes = outcomes.map_err(TransactError::into_inner)?;
        outcomes.ok_or_else(|| refused().into())
    }
}

/// Refuses more services than the limit allows.
pub(super) fn check_count<'a>(
    cluster: &Cluster,
    services: impl IntoIterator<Item = &'a Configured>,
    most: u64,
) -> Result<(), DeployError> {
    let new = services.into_iter();
    let new = new.filter(|it| cluster.service(&it.config.name).is_none());
    let (count, new) = (
        cluster.state().configured_services.len() as u64,
        new.count() as u64,
    );
    match new > 0 && count.saturating_add(new) > most {
        true => Err(DeployError::TooManyServices(count, most)),
        false => Ok(()),
    }
}

/// Refuses a change that was thought out for another revision than the newest one. What is configured already is no change, so that a
/// request whose answer was lost can be sent again.
fn check_revision(
    cluster: &Cluster,
    service: &Configured,
    expected: Option<Revision>,
) -> Result<(), DeployError> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let newest = cluster.newest(&service.config.name);
    let found = newest.as_ref().map_or(Revision(0), |it| it.revision);
    let is_same =
        |it: &ConfiguredService| it.config == *service.config && it.image == service.image;
    match found == expected || newest.as_ref().is_some_and(is_same) {
        true => Ok(()),
        false => Err(DeployError::RevisionChanged {
            name: service.config.name.clone(),
            expected,
            found,
        }),
    }
}

fn before(cluster: &Cluster, name: &ServiceName) -> (ServiceName, Before) {
    let newest = cluster.newest(name);
    let before = newest.map(|it| (it.revision, it.config.concurrency));
    (name.clone(), before)
}

fn outcome(before: Before, configured: ConfiguredService) -> Outcome {
    let now = (configured.revision, configured.config.concurrency);
    Outcome::of(configured, before.is_none(), before != Some(now))
}

fn refused() -> Refused {
    Refused::Store("the planner refused the service".to_owned())
}

/// Gives a service what only the cluster knows. Without platforms it has those of an earlier revision with the same image.
fn complete(cluster: &Cluster, service: &mut Configured) -> Result<(), DeployError> {
    resolve_secrets(cluster, &mut service.config)?;
    if service.platforms.is_empty() {
        service.platforms = cluster.platforms(&service.config.name, &service.image);
    }
    Ok(())
}

/// Whether a configuration can be accepted in the cluster. `beside` has the services that are configured with it.
fn check(
    cluster: &Cluster,
    beside: &Cluster,
    checker: Option<&Checker>,
    service: &Configured,
) -> Result<(), DeployError> {
    let Configured {
        config,
        image,
        platforms,
    } = service;
    if let Some(unknown) = beside.unknown_services(config) {
        return Err(DeployError::UnknownService(unknown));
    }
    if let Some(obstacle) = beside.names_obstacle(config) {
        return Err(DeployError::Names(obstacle));
    }
    // A job of this name is one before the change only: afterwards it is what it was.
    let conflict = cluster.conflict(config).or_else(|| beside.conflict(config));
    if let Some(conflict) = conflict {
        return Err(DeployError::HostTaken(conflict));
    }
    if let Some(obstacle) = cluster.resize_obstacle(config, image) {
        return Err(DeployError::InUse(obstacle));
    }
    let before = cluster.newest(&config.name);
    if let Some(checker) = checker {
        let before = before.as_ref().map(|it| &it.config);
        checker.check(cluster, config, before)?;
    }
    // A change of other keys is possible in any case.
    let needs = |config: &ServiceConfig| (config.memory, config.cpus, config.cpus_reserved);
    let is_new_need = before.as_ref().map(|it| needs(&it.config)) != Some(needs(config));
    if is_new_need {
        capacity::check(config, &cluster.nodes())?;
    }
    let rules = |config: &ServiceConfig| (config.placement.clone(), config.volume.len());
    let is_new_rule =
        before.as_ref().map(|it| (rules(&it.config), &it.image)) != Some((rules(config), image));
    if is_new_rule && let Some(obstacle) = beside.placement_obstacle(config, platforms) {
        return Err(DeployError::CannotBePlaced(obstacle));
    }
    Ok(())
}

/// The first name that several services have.
pub(super) fn twice<'a>(
    names: impl IntoIterator<Item = &'a ServiceName>,
) -> Option<&'a ServiceName> {
    let mut seen = BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// Gives each secret of a configuration its version.
fn resolve_secrets(cluster: &Cluster, config: &mut ServiceConfig) -> Result<(), DeployError> {
    let names = cluster.resolve_secrets(config);
    if names.is_empty() {
        return Ok(());
    }
    let service = config.name.clone();
    // Of one that exists, the version is gone.
    Err(
        match names.iter().find(|name| cluster.secret(name).is_some()) {
            Some(name) => DeployError::SecretRemoved {
                service,
                name: name.clone(),
            },
            None => DeployError::NoSuchSecret { service, names },
        },
    )
}
