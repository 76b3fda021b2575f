//! Which process has which volume: at most one. A process has its volumes until everything of it is removed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tucano_api::ids::{ProcessId, VolumeId};

use super::Error;

/// The claims of all processes.
#[derive(Debug, Default)]
pub struct Claims {
    all: BTreeMap<VolumeId, Claim>,
    /// When volumes were given up.
    released: BTreeMap<VolumeId, Instant>,
    /// Volumes that other workers read, each with what ends that.
    transfers: Vec<(VolumeId, Arc<AtomicBool>)>,
    /// How often volumes were claimed: each start of a process counts.
    counts: BTreeMap<VolumeId, u64>,
    /// How many backups read volumes: these stay mounted, and are not removed.
    held: BTreeMap<VolumeId, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Claim {
    Process(ProcessId),
    Removal,
}

impl Claims {
    /// Gives a process its volumes: all or none.
    ///
    /// # Errors
    /// Another process has one of them, or it is being removed.
    pub fn claim<'a>(
        &mut self,
        process: &ProcessId,
        volumes: impl Iterator<Item = &'a VolumeId> + Clone,
    ) -> Result<(), Error> {
        for id in volumes.clone() {
            match self.all.get(id) {
                Some(Claim::Process(other)) if other != process => {
                    return Err(Error::InUse {
                        id: id.clone(),
                        process: other.clone(),
                    });
                }
                Some(Claim::Removal) => return Err(Error::BeingRemoved(id.clone())),
                Some(Claim::Process(_)) | None => {}
            }
        }
        for id in volumes {
            self.end_transfers(|other| other == id);
            self.released.remove(id);
            *self.counts.entry(id.clone()).or_default() += 1;
            self.all.insert(id.clone(), Claim::Process(process.clone()));
        }
        Ok(())
    }

    /// Gives up all volumes of a process, of which nothing is left.
    pub fn release(&mut self, process: &ProcessId) {
        let own = Claim::Process(process.clone());
        let now = Instant::now();
        let released = self.all.extract_if(.., |_, claim| *claim == own);
        self.released.extend(released.map(|(id, _)| (id, now)));
    }

    /// The process that has a volume.
    pub fn holder(&self, id: &VolumeId) -> Option<&ProcessId> {
        match self.all.get(id)? {
            Claim::Process(process) => Some(process),
            Claim::Removal => None,
        }
    }

    /// Begins a transfer to another worker. Returns what is set when it is to end.
    ///
    /// # Errors
    /// A process has the volume, or it is being removed.
    pub(super) fn begin_transfer(&mut self, id: &VolumeId) -> Result<Arc<AtomicBool>, Error> {
        self.check_unclaimed(id)?;
        let is_ended = Arc::new(AtomicBool::new(false));
        self.transfers.push((id.clone(), Arc::clone(&is_ended)));
        Ok(is_ended)
    }

    fn check_unclaimed(&self, id: &VolumeId) -> Result<(), Error> {
        match self.all.get(id) {
            Some(Claim::Process(process)) => Err(Error::InUse {
                id: id.clone(),
                process: process.clone(),
            }),
            Some(Claim::Removal) => Err(Error::BeingRemoved(id.clone())),
            None => Ok(()),
        }
    }

    /// How often a volume was claimed. While that stays the same, no process was started with it.
    pub fn count(&self, id: &VolumeId) -> u64 {
        self.counts.get(id).copied().unwrap_or_default()
    }

    pub(super) fn hold(&mut self, id: &VolumeId) -> Result<(), Error> {
        if self.all.get(id) == Some(&Claim::Removal) {
            return Err(Error::BeingRemoved(id.clone()));
        }
        *self.held.entry(id.clone()).or_default() += 1;
        Ok(())
    }

    pub(super) fn release_hold(&mut self, id: &VolumeId) {
        if let Some(count) = self.held.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(id);
                self.released.insert(id.clone(), Instant::now());
            }
        }
    }

    /// Forgets a transfer that has ended.
    pub(super) fn end_transfer(&mut self, id: &VolumeId, ended: &Arc<AtomicBool>) {
        self.transfers.retain(|(_, it)| !Arc::ptr_eq(it, ended));
        self.released.insert(id.clone(), Instant::now());
    }

    /// Tells the transfers of some volumes to end. Nobody waits for that: they only read.
    pub(super) fn end_transfers(&self, mut of: impl FnMut(&VolumeId) -> bool) {
        for (_, is_ended) in self.transfers.iter().filter(|(id, _)| of(id)) {
            is_ended.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn begin_removal(&mut self, id: &VolumeId) -> Result<(), Error> {
        if self.held.contains_key(id) {
            return Err(Error::BeingRead(id.clone()));
        }
        self.check_unclaimed(id)?;
        self.end_transfers(|other| other == id);
        self.all.insert(id.clone(), Claim::Removal);
        Ok(())
    }

    pub(super) fn end_removal(&mut self, id: &VolumeId) {
        self.all.remove(id);
        self.released.remove(id);
        self.counts.remove(id);
    }

    /// Whether no process has had a volume for this long.
    pub(super) fn is_idle(&self, id: &VolumeId, limit: Duration) -> bool {
        let recent = self.released.get(id).map(Instant::elapsed);
        let is_read = self.transfers.iter().any(|(other, _)| other == id);
        !is_read
            && !self.all.contains_key(id)
            && !self.held.contains_key(id)
            && recent.is_none_or(|since| since >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_one_process_at_a_time() {
        let mut claims = Claims::default();
        let ids: Vec<VolumeId> = ["db/a/1", "db/b/1"].map(|id| id.parse().unwrap()).into();
        let [one, two]: [ProcessId; 2] = ["db-1", "db-2"].map(|id| id.parse().unwrap());
        claims.claim(&one, ids[..1].iter()).unwrap();
        claims.claim(&one, ids[..1].iter()).unwrap();
        let refused = claims.claim(&two, ids.iter()).unwrap_err();
        assert_eq!(refused.to_string(), "volume db/a/1 is in use by db-1");
        assert_eq!(claims.holder(&ids[1]), None, "all or none");
        assert!(claims.begin_removal(&ids[0]).is_err());

        claims.release(&one);
        assert!(!claims.is_idle(&ids[0], Duration::from_secs(60)));
        assert!(claims.is_idle(&ids[0], Duration::ZERO));
        claims.begin_removal(&ids[0]).unwrap();
        assert!(claims.claim(&two, ids.iter()).is_err());
        claims.end_removal(&ids[0]);
        claims.claim(&two, ids.iter()).unwrap();
        assert_eq!(claims.holder(&ids[0]), Some(&two));
    }

    #[test]
    fn a_volume_that_is_read_is_not_idle_and_not_removed_yet_a_process_may_have_it() {
        let mut claims = Claims::default();
        let id: VolumeId = "db/a/1".parse().unwrap();
        let process: ProcessId = "db-1".parse().unwrap();
        claims.hold(&id).unwrap();
        claims.hold(&id).unwrap();
        assert!(!claims.is_idle(&id, Duration::ZERO));
        let count = claims.count(&id);
        claims.claim(&process, [&id].into_iter()).unwrap();
        assert_ne!(claims.count(&id), count);
        claims.release(&process);
        claims.release_hold(&id);
        let refused = claims.begin_removal(&id).unwrap_err();
        assert_eq!(refused.to_string(), "volume db/a/1 is being backed up");
        claims.release_hold(&id);
        assert!(claims.is_idle(&id, Duration::ZERO));
        claims.begin_removal(&id).unwrap();
        assert!(claims.hold(&id).is_err());
    }
}
