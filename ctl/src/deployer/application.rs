//! Services that are deployed together: all of them become visible in one step of the planner, so that they may need each other, or
//! none does.

use serde_json::Value;
use tucano_api::{application::ApplicationDeploy, service::ServiceConfig};

use super::{
    DeployError, Deployer, Outcome, Prepared,
    change::{check_count, twice},
    patch::parse_sent,
};

impl Deployer {
    /// Configures all services of an application, or none.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn deploy_together(
        &self,
        asked: ApplicationDeploy,
    ) -> Result<Vec<Outcome>, DeployError> {
        let limits = self.config.current().limits.clone();
        let count = asked.services.len();
        if count as u64 > limits.application_services {
            let most = limits.application_services;
            return Err(DeployError::TooManyTogether(count, most));
        }
        let configs = asked.services.iter().map(parsed);
        let configs = configs.collect::<Result<Vec<ServiceConfig>, DeployError>>()?;
        if let Some(name) = twice(configs.iter().map(|it| &it.name)) {
            return Err(DeployError::Twice(name.clone()));
        }
        let _guard = self.images.guard().await;
        let (mut services, mut warnings) = (Vec::new(), Vec::new());
        for config in configs {
            let name = config.name.clone();
            let registry = asked.default_registry.as_deref();
            let prepared = self.prepare(name.as_str(), config, None, registry).await;
            let prepared: Prepared = prepared.map_err(|error| error.of_service(&name))?;
            services.push(prepared.configured);
            warnings.push(prepared.warnings);
        }
        let outcomes = self.change_all(None, move |cluster| {
            check_count(cluster, &services, limits.services)?;
            Ok(services)
        });
        let mut outcomes = outcomes.await?;
        for (outcome, warnings) in outcomes.iter_mut().zip(warnings) {
            outcome.deployed.warnings = warnings;
        }
        Ok(outcomes)
    }
}

/// A configuration; errors name its service.
fn parsed(config: &Value) -> Result<ServiceConfig, DeployError> {
    let name = config.get("name").and_then(Value::as_str);
    let name: String = name.unwrap_or("a service").chars().take(80).collect();
    Ok(parse_sent(&name, &config.to_string())?)
}
