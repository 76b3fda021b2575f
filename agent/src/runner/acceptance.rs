//! Which desired sets are accepted. An agent follows one cluster, and only its newest controller: a controller that lost
//! its database, or has an older copy of it, must not end what runs here.

use tucano_api::{
    agent::{DesiredSet, SetIdentity},
    ids::Generation,
};

use super::handle::DesiredSetError;

/// What identifies the set that is held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HeldVersion {
    pub(super) generation: Generation,
    pub(super) identity: SetIdentity,
}

impl HeldVersion {
    pub(super) fn of(set: &DesiredSet) -> Self {
        Self {
            generation: set.generation,
            identity: set.identity.clone(),
        }
    }

    /// Whether this set may take the place of the one held.
    pub(super) fn accepts(&self, set: &DesiredSet) -> Result<(), DesiredSetError> {
        self.check_cluster(set)?;
        self.check_step(set)?;
        let (held, given) = (self.order(set), (set.identity.epoch, set.generation));
        if given < held {
            return Err(DesiredSetError::Stale {
                given: describe(&set.identity, set.generation),
                held: describe(&self.identity, self.generation),
                older_epoch: given.0 < held.0,
            });
        }
        let digests = self
            .identity
            .digest
            .as_ref()
            .zip(set.identity.digest.as_ref());
        if given == held && digests.is_some_and(|(held, given)| held != given) {
            return Err(DesiredSetError::Conflicting {
                generation: set.generation,
            });
        }
        Ok(())
    }

    fn check_cluster(&self, set: &DesiredSet) -> Result<(), DesiredSetError> {
        let clusters = self
            .identity
            .cluster
            .as_ref()
            .zip(set.identity.cluster.as_ref());
        match clusters {
            Some((own, given)) if own != given && set.adopts.as_ref() != Some(own) => {
                Err(DesiredSetError::OtherCluster {
                    given: given.clone(),
                    own: own.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    fn check_step(&self, set: &DesiredSet) -> Result<(), DesiredSetError> {
        let absurd = set.generation.is_absurd_after(self.generation)
            || set.identity.epoch.is_absurd_after(self.identity.epoch);
        if absurd {
            return Err(DesiredSetError::Absurd {
                given: describe(&set.identity, set.generation),
                held: describe(&self.identity, self.generation),
            });
        }
        Ok(())
    }

    /// A controller without epochs, one version back, is compared by its generation alone.
    fn order(&self, set: &DesiredSet) -> (tucano_api::ids::Epoch, Generation) {
        if set.identity.is_legacy() {
            (set.identity.epoch, self.generation)
        } else {
            (self.identity.epoch, self.generation)
        }
    }
}

fn describe(identity: &SetIdentity, generation: Generation) -> String {
    match identity.epoch.0 {
        0 => generation.to_string(),
        epoch => format!("{generation} of epoch {epoch}"),
    }
}

#[cfg(test)]
mod tests;
