//! Replaces the processes of a service by new ones of the same revision.

use tucano_api::ids::ServiceName;
use tucano_planner::{Cluster, Event};

use super::{DeployError, Deployer, Outcome};
use crate::state_loop::{Refused, TransactError};

impl Deployer {
    /// Has all processes of a service replaced as a rollout does it: new ones first, where there is room.
    ///
    /// # Errors
    /// There is no such service, or it is a job.
    pub async fn restart(&self, name: ServiceName) -> Result<Outcome, DeployError> {
        let decide = move |cluster: &Cluster| match cluster.service(&name) {
            None => Err(DeployError::NotFound(name)),
            Some(view) if view.configured.config.is_job() => Err(DeployError::NoProcesses(name)),
            Some(_) => Ok((Event::ServiceRestarted { name: name.clone() }, name)),
        };
        let read = |cluster: &Cluster, name: ServiceName| {
            let configured = cluster.newest(&name)?;
            Some(Outcome::of(configured, false, true))
        };
        let outcome = self.state.transact(decide, read).await;
        let outcome = outcome.map_err(TransactError::into_inner)?;
        outcome.ok_or_else(|| Refused::Store("the planner refused the restart".to_owned()).into())
    }
}
