//! The stages of an application's deploy: what waits for the end of a job is deployed when that has succeeded.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    application::ApplicationDeploy,
    ids::ServiceName,
    jobs::{Outcome, Run, RunRequest},
    service::ServiceConfig,
    state::{Deployed, ServiceView},
};

use super::{Application, Member};
use crate::{
    Error,
    args::Wait,
    client::Client,
    commands::{DOCKER, deploy, run},
    output,
};

/// A deploy under way.
pub(super) struct Stages<'a> {
    client: &'a Client,
    wait: Wait,
    /// Whether short names of images are also looked for in Docker's registry.
    is_compose: bool,
    /// The services of later stages that do not exist yet.
    later: BTreeSet<ServiceName>,
    /// The newest result for each service, in the order of the deploy.
    done: Vec<Deployed>,
}

impl<'a> Stages<'a> {
    pub(super) fn new(
        (client, wait): (&'a Client, Wait),
        application: &Application,
        existing: &[ServiceView],
    ) -> Self {
        let names = application.members.iter().map(Member::name);
        let exists = |name: &&ServiceName| existing.iter().any(|it| it.configured.name == **name);
        Self {
            client,
            wait,
            is_compose: application.is_compose,
            later: names.filter(|name| !exists(name)).cloned().collect(),
            done: Vec::new(),
        }
    }

    /// Deploys all services, and runs the jobs that others wait for. A service that needs one of a later stage, which does not exist
    /// yet, gets that need once it does: that replaces no process.
    ///
    /// # Errors
    /// A service is refused, or a job has not succeeded: nothing of the later stages is deployed.
    pub(super) async fn run(mut self, members: &[Member]) -> Result<Vec<Deployed>, Error> {
        let configs = self.upload(members).await?;
        let mut incomplete = Vec::new();
        let last = members.iter().map(|it| it.stage).max().unwrap_or(0);
        for stage in 0..=last {
            let of_stage = || members.iter().filter(move |it| it.stage == stage);
            for member in of_stage() {
                self.later.remove(member.name());
            }
            let mut services = Vec::new();
            for member in of_stage() {
                let config = self.without_later_needs(&configs[member.name()]);
                if config.needs != configs[member.name()].needs {
                    incomplete.push(configs[member.name()].clone());
                }
                services.push(config);
            }
            self.deploy(services).await?;
            for job in of_stage().filter(|it| it.source.config.is_job()) {
                let Some(after) = &job.after else {
                    continue;
                };
                self.run_job(job.name(), after)
                    .await
                    .inspect_err(|_| say_left_out(members, stage))?;
            }
        }
        if !incomplete.is_empty() {
            self.deploy(incomplete).await?;
        }
        Ok(self.done)
    }

    /// The configurations by name, with images that the controller has or can find.
    async fn upload(
        &self,
        members: &[Member],
    ) -> Result<BTreeMap<ServiceName, ServiceConfig>, Error> {
        let mut configs = BTreeMap::new();
        for member in members {
            deploy::announce(&member.source.config);
            let config = member.source.uploaded(self.client).await?;
            configs.insert(config.name.clone(), config);
        }
        Ok(configs)
    }

    fn without_later_needs(&self, config: &ServiceConfig) -> ServiceConfig {
        let mut config = config.clone();
        config.needs.retain(|name| !self.later.contains(name));
        config
    }

    /// Deploys services in one request: all of them or none.
    async fn deploy(&mut self, services: Vec<ServiceConfig>) -> Result<(), Error> {
        let values = services.iter().map(serde_json::to_value);
        let values: Result<Vec<_>, _> = values.collect();
        let request = values.and_then(|services| {
            serde_json::to_string(&ApplicationDeploy {
                services,
                default_registry: self.is_compose.then(|| DOCKER.to_owned()),
            })
        });
        let request = request.map_err(|error| Error::Usage(error.to_string()))?;
        let answer = self.client.deploy("/v1/applications", request).await?;
        let all: Vec<Deployed> = self.client.parse(&answer)?;
        for deployed in all {
            deploy::say(&deployed);
            self.done.retain(|it| it.name != deployed.name);
            self.done.push(deployed);
        }
        Ok(())
    }

    /// Runs a job once for its revision, when the services that it comes after are healthy.
    async fn run_job(&self, name: &ServiceName, after: &[ServiceName]) -> Result<(), Error> {
        // The jobs that it comes after have succeeded.
        let services = self.done.iter().filter(|it| after.contains(&it.name));
        for deployed in services {
            let wait = Wait {
                no_wait: false,
                ..self.wait
            };
            deploy::settle(self.client, deployed.clone(), wait)
                .await
                .1?;
        }
        output::status(&format!(
            "{name} is run, unless it has succeeded with this revision"
        ));
        let request = RunRequest {
            command: None,
            once: true,
        };
        let body = serde_json::to_string(&request);
        let body = body.map_err(|error| Error::Usage(error.to_string()))?;
        let answer = self
            .client
            .post(&format!("/v1/jobs/{name}/runs"), body)
            .await?;
        let begun: Run = self.client.parse(&answer)?;
        let (run, interrupted) = run::follow(self.client, true, begun).await?;
        if interrupted {
            return Err(Error::Command(run::INTERRUPTED));
        }
        match run.outcome {
            Some(Outcome::Succeeded) => Ok(()),
            _ => Err(Error::JobFailed(format!(
                "run {} {}: the same deploy runs it again",
                run.id(),
                run.describe()
            ))),
        }
    }
}

fn say_left_out(members: &[Member], stage: usize) {
    let later = members.iter().filter(|it| it.stage > stage);
    let later: Vec<&str> = later.map(|it| it.name().as_str()).collect();
    if !later.is_empty() {
        output::status(&format!("not deployed: {}", later.join(", ")));
    }
}
