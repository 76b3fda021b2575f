//! Waits for deploys and removals. [`tucano_api::rollout`] judges how far a deploy has come.

use std::time::Duration;

use tucano_api::{
    ids::ServiceName,
    rollout::{Progress, progress},
    state::Deployed,
};

use super::Outcome;
use crate::state_loop::{Refused, StateHandle};

/// Waits until a deploy is complete, at most `max_wait`, and records the result in it.
///
/// # Errors
/// The controller shuts down.
pub async fn until_healthy(
    state: &StateHandle,
    mut outcome: Outcome,
    max_wait: Duration,
) -> Result<Outcome, Refused> {
    let deadline = tokio::time::Instant::now() + max_wait;
    let mut changes = state.changes();
    loop {
        changes.borrow_and_update();
        let (name, revision) = (outcome.deployed.name.clone(), outcome.deployed.revision);
        let view = state.query({
            let name = name.clone();
            move |cluster| cluster.service(&name)
        });
        let why = match progress(&name, view.await?.as_ref(), revision) {
            Progress::Healthy => {
                outcome.deployed.healthy = Some(true);
                return Ok(outcome);
            }
            Progress::Failed(why) => {
                fail(&mut outcome.deployed, why, "and keep failing");
                return Ok(outcome);
            }
            Progress::Superseded(by) => {
                supersede(&mut outcome.deployed, by);
                return Ok(outcome);
            }
            Progress::Waiting(why) => why,
        };
        let changed = tokio::time::timeout_at(deadline, changes.changed()).await;
        match changed {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Refused::Stopping),
            Err(_) => {
                let after = humantime::format_duration(max_wait).to_string();
                fail(&mut outcome.deployed, why, &format!("after {after}"));
                return Ok(outcome);
            }
        }
    }
}

/// Waits until no node reports a process of a removed service. False if `max_wait` elapses first.
///
/// # Errors
/// The controller shuts down.
pub async fn until_gone(
    state: &StateHandle,
    name: &ServiceName,
    max_wait: Duration,
) -> Result<bool, Refused> {
    let deadline = tokio::time::Instant::now() + max_wait;
    let mut changes = state.changes();
    loop {
        changes.borrow_and_update();
        let name = name.clone();
        if state
            .query(move |cluster| cluster.existing(&name).is_empty())
            .await?
        {
            return Ok(true);
        }
        match tokio::time::timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Refused::Stopping),
            Err(_) => return Ok(false),
        }
    }
}

fn fail(deployed: &mut Deployed, why: Vec<String>, when: &str) {
    deployed.healthy = Some(false);
    deployed.error = Some(format!(
        "{} revision {} is deployed, but not all of its processes are healthy {when}: {}",
        deployed.name,
        deployed.revision,
        why.join("; ")
    ));
    deployed.unhealthy = why;
    deployed.code = Some("not_healthy".to_owned());
}

fn supersede(deployed: &mut Deployed, by: String) {
    deployed.healthy = Some(false);
    let (name, revision) = (&deployed.name, deployed.revision);
    deployed.error = Some(format!(
        "{name} revision {revision} was deployed, but before it was healthy {by}"
    ));
    deployed.unhealthy = vec![by];
    deployed.code = Some("not_healthy".to_owned());
}

#[cfg(test)]
mod tests {
    use tucano_api::ids::Revision;

    use super::*;

    #[test]
    fn a_superseded_deploy_is_not_healthy() {
        let mut deployed = Deployed {
            name: "hello".parse().unwrap(),
            changed: true,
            revision: Revision(1),
            image: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
            warnings: Vec::new(),
            healthy: None,
            unhealthy: Vec::new(),
            failures: Vec::new(),
            error: None,
            code: None,
        };
        supersede(&mut deployed, "hello was removed".into());
        assert_eq!(
            deployed.error.as_deref(),
            Some("hello revision 1 was deployed, but before it was healthy hello was removed")
        );
    }
}
