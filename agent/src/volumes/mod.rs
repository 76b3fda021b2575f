//! Volumes: file systems on this node that outlive the processes which use them.
//!
//! - [`Volumes`]: all of them, and which process has which;
//! - `place`: the directory that holds them, and the identities by which they are recognised;
//! - `room`: what they may take on the disk;
//! - `record`: what is remembered of them apart from that directory;
//! - `fills`: volumes that get their content from elsewhere; `exports`: those that other workers read; `tree`: what is copied;
//!   `helper`: the confined process that copies;
//! - `create`: creation with the image's content; `growth`; `removal`;
//! - `backing`: what holds them and keeps them to their sizes: a file system in a file, or a directory with a project quota;
//! - `held`: those that a backup reads; `load`: what was loaded into them;
//! - `filesystem`: file systems in files; `device` and `health` of those that are mounted;
//! - [`host`]: directories of the node that services may have.
//!
//! A volume has at most one process. [`Volumes::claim`] enforces that after the runner's plan has arranged it.

mod backing;
mod claims;
mod create;
mod device;
mod error;
mod exports;
mod filesystem;
mod fills;
mod growth;
mod health;
mod held;
pub mod helper;
pub mod host;
mod load;
mod place;
pub(crate) mod points;
mod programs;
mod record;
mod removal;
mod report;
mod room;
mod stored;
#[cfg(test)]
mod tests;
pub mod tree;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tucano_api::{
    agent::{DesiredSet, Enforcement, VolumeInstance},
    ids::{Digest, VolumeId},
    units::Bytes,
    volumes::VolumeExport,
};

use self::{
    backing::{Backing, Backings},
    claims::Claims,
    create::Content,
    error::Attempt,
    load::Load,
    place::{Identity, Place},
    record::{Known, Record},
    room::Room,
};
pub use self::{
    error::Error,
    exports::Transfer,
    fills::{FillFiles, Stage},
    held::Held,
};
use crate::{clock::timestamp, files::set_aside};

/// An unused volume stays mounted for this long: the next process of its slot usually follows soon.
pub const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// A volume that a process needs.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which one.
    pub volume: VolumeInstance,
    /// Whether it is created where it was never before.
    pub may_create: bool,
    /// Its size.
    pub size: Bytes,
    /// Its path in the container, whose content in the image it gets when it is created.
    pub path: String,
    /// The image.
    pub image: Digest,
    /// The directories of the image's layers, lowest first.
    pub layers: Vec<PathBuf>,
}

/// The volumes of this node. Every operation but the report may take long: none is for a task of tokio.
#[derive(Debug)]
pub struct Volumes {
    place: Place,
    room: Room,
    record_file: PathBuf,
    backings: Backings,
    /// Why no volume can have a file system of its own here.
    obstacle: Option<String>,
    state: Mutex<State>,
    /// Each is locked while its volume is created, mounted, grown, unmounted or removed.
    locks: Mutex<BTreeMap<VolumeId, Arc<Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct State {
    record: Record,
    claims: Claims,
    /// Those that may be created right now: they are reported, and not removed.
    creating: BTreeMap<VolumeId, Known>,
    /// Why volumes could not be used when their processes needed them.
    problems: BTreeMap<VolumeId, String>,
    /// What other workers may read.
    exports: Vec<VolumeExport>,
    /// What is loaded into volumes, or was.
    loads: BTreeMap<VolumeId, Load>,
}

impl Volumes {
    /// Finds the volumes in their directory, which is created unless it was there before, and finishes what an earlier agent did not.
    /// Volumes leave `reserve` free (absent: a share of the file system) where the record is on the same file system. Whatever fails
    /// is described in `notes`, and by the error of the volumes that it concerns. Without `user_namespaces` of containers, sizes are not
    /// enforced by project quotas.
    pub fn open(
        place: PathBuf,
        record_file: PathBuf,
        reserve: Option<Bytes>,
        user_namespaces: bool,
        notes: &mut Vec<String>,
    ) -> Self {
        let record = Record::read(&record_file).unwrap_or_else(|error| {
            notes.push(format!("ignoring what was known of volumes: {error}"));
            set_aside(&record_file);
            Record::default()
        });
        let data_dir = record_file.parent().unwrap_or(Path::new("/")).to_owned();
        let place = Place(place);
        let volumes = Self {
            room: Room::new(place.clone(), data_dir, reserve),
            place,
            record_file,
            backings: Backings { user_namespaces },
            obstacle: filesystem::obstacle(),
            state: Mutex::new(State {
                record,
                ..State::default()
            }),
            locks: Mutex::default(),
        };
        if let Err(error) = volumes.recover() {
            notes.push(error.to_string());
        }
        if volumes.backings.of_new(&volumes.place) == Enforcement::ProjectQuota {
            let place = volumes.place.0.display();
            tracing::info!(%place, "project quotas enforce the sizes of new volumes");
        }
        volumes
    }

    /// Why no volume can be created on this node.
    pub fn obstacle(&self) -> Option<&str> {
        match self.backings.of_new(&self.place) {
            Enforcement::ProjectQuota => None,
            Enforcement::LoopFile => self.obstacle.as_deref(),
        }
    }

    /// The directory that holds them.
    pub fn place(&self) -> &Path {
        &self.place.0
    }

    /// Notes the cluster of an accepted desired set, and the one whose processes it adopts: their volumes are used.
    ///
    /// # Errors
    /// It cannot be stored.
    pub fn note_cluster(&self, set: &DesiredSet) -> Result<(), Error> {
        let clusters = set.adopts.iter().chain(&set.identity.cluster);
        self.change_record(|record| {
            for cluster in clusters {
                record.clusters.retain(|known| known != cluster);
                record.clusters.push(cluster.clone());
            }
        })
    }

    /// Makes a volume usable, creates it if it is new, and grows it if it is smaller than wanted. Returns the directory that the
    /// container gets. Its process has claimed it before.
    ///
    /// # Errors
    /// The volume cannot be used; nothing of it has changed.
    pub fn prepare(&self, wanted: &Wanted) -> Result<PathBuf, Error> {
        let id = &wanted.volume.id;
        let lock = self.lock_of(id);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.begin_creation(wanted);
        let prepared = self.prepare_locked(wanted);
        self.state().creating.remove(id);
        let problem = prepared.as_ref().err().map(ToString::to_string);
        let problems = &mut self.state().problems;
        match problem {
            Some(problem) => problems.insert(id.clone(), problem),
            None => problems.remove(id),
        };
        prepared
    }

    /// Restores what keeps volumes to their sizes: the kernel makes holes in their files, such as by `fstrim`, and limits of quotas can
    /// be taken away.
    pub fn maintain(&self) {
        let known: Vec<VolumeId> = self.state().record.volumes.keys().cloned().collect();
        for id in known {
            let lock = self.lock_of(&id);
            // What is created, mounted, grown or removed now is maintained by that.
            let Ok(_locked) = lock.try_lock() else {
                continue;
            };
            let Ok(Some(identity)) = self.place.volume(&id).identity() else {
                continue;
            };
            if let Err(error) = self.backing(&identity).maintain(&identity) {
                tracing::warn!(%id, %error, "a volume may hold less than its size, or more");
            }
        }
    }

    /// Unmounts volumes that no process has had for a while.
    pub fn unmount_idle(&self, idle_limit: Duration) {
        let idle = {
            let state = self.state();
            let known = state.record.volumes.keys();
            let idle = known.filter(|id| state.claims.is_idle(id, idle_limit));
            idle.cloned().collect::<Vec<_>>()
        };
        for id in idle {
            let lock = self.lock_of(&id);
            let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.state().claims.is_idle(&id, idle_limit) {
                continue;
            }
            // Somebody may look at it from the node.
            if let Err(error) = filesystem::unmount(&self.place.volume(&id).mount_point()) {
                tracing::debug!(%id, %error, "an unused volume stays mounted");
            }
        }
    }

    /// Which process has which volume.
    pub fn claims(&self) -> impl std::ops::DerefMut<Target = Claims> {
        ClaimsGuard(self.state())
    }

    /// Creates the directory if it was never there, remembers the volumes in it, and removes what was not finished.
    fn recover(&self) -> Result<(), Error> {
        self.check_place()?;
        let (removed, unfinished) = self.place.unfinished()?;
        let removed = removed.iter().map(|it| self.resume_removal(it));
        let discarded = unfinished.iter().map(create::discard);
        for error in removed.chain(discarded).filter_map(Result::err) {
            tracing::warn!(%error, "cannot remove what is left of a volume");
        }
        let mut found = Vec::new();
        for id in self.place.volumes()? {
            match self.place.volume(&id).identity() {
                Ok(Some(identity)) if identity.volume.id == id => found.push(identity),
                Ok(_) => tracing::warn!(%id, "a directory among the volumes has no identity"),
                Err(error) => tracing::warn!(%id, %error, "cannot identify a volume"),
            }
        }
        for identity in &found {
            self.recall_load(&identity.volume);
        }
        self.change_record(|record| {
            for identity in found {
                let known = Known {
                    instance: identity.volume.instance,
                    size: identity.size,
                };
                record.volumes.entry(identity.volume.id).or_insert(known);
            }
        })
    }

    /// Whether the directory of the volumes is the one that it was. One that was never used is created.
    fn check_place(&self) -> Result<(), Error> {
        let known = self.state().record.place.clone();
        let known = known.filter(|(path, _)| *path == self.place.0);
        match known {
            Some((_, known)) if self.place.id()? == Some(known.clone()) => Ok(()),
            Some(_) => Err(Error::PlaceMissing(self.place.0.clone())),
            None => {
                let id = self.place.create()?;
                let path = self.place.0.clone();
                self.change_record(|record| record.place = Some((path, id)))
            }
        }
    }

    fn begin_creation(&self, wanted: &Wanted) {
        let VolumeInstance { id, instance } = &wanted.volume;
        let mut state = self.state();
        if wanted.may_create && !state.record.volumes.contains_key(id) {
            let (instance, size) = (*instance, wanted.size);
            state.creating.insert(id.clone(), Known { instance, size });
        }
    }

    fn prepare_locked(&self, wanted: &Wanted) -> Result<PathBuf, Error> {
        self.check_place()?;
        let identity = match self.find(&wanted.volume)? {
            Some(identity) => identity,
            None => self.create(wanted)?,
        };
        let backing = self.backing(&identity);
        self.remember(&identity)?;
        backing.repair()?;
        if let Err(error) = self.grow_unused(&identity, wanted.size) {
            // Its process is better off with the present size than without the volume; the report has the size.
            tracing::warn!(id = %identity.volume.id, %error, "a volume has not grown");
        }
        self.attach(&identity)?;
        let data = backing.root().data();
        // The runtime follows no links on the way to it.
        data.canonicalize().attempt("examine", &data)
    }

    /// The volume of this instance; none if there never was one of its name.
    fn find(&self, volume: &VolumeInstance) -> Result<Option<Identity>, Error> {
        let id = &volume.id;
        let (known, clusters) = {
            let record = &self.state().record;
            (record.volumes.contains_key(id), record.clusters.clone())
        };
        let Some(identity) = self.place.volume(id).identity()? else {
            return if known {
                Err(self.missing(id))
            } else {
                Ok(None)
            };
        };
        if identity
            .cluster
            .as_ref()
            .is_some_and(|it| !clusters.contains(it))
        {
            return Err(Error::OtherCluster(id.clone()));
        }
        if identity.volume != *volume {
            return Err(Error::OtherInstance {
                id: id.clone(),
                found: identity.volume.instance,
                wanted: volume.instance,
            });
        }
        Ok(Some(identity))
    }

    fn missing(&self, id: &VolumeId) -> Error {
        Error::Missing {
            id: id.clone(),
            directory: self.place.volume(id).0,
        }
    }

    fn create(&self, wanted: &Wanted) -> Result<Identity, Error> {
        let id = &wanted.volume.id;
        if !wanted.may_create {
            return Err(Error::NeverHere(id.clone()));
        }
        let cluster = self.state().record.clusters.last().cloned();
        let identity = Identity {
            volume: wanted.volume.clone(),
            cluster,
            size: wanted.size,
            project: self.backings.new_project(&self.place)?,
            image: Some(wanted.image.clone()),
            created_at: timestamp(),
        };
        let content = Content {
            layers: wanted.layers.clone(),
            path: wanted.path.clone(),
        };
        let new = self.place.new_volume(id);
        let backing = self.backings.of(new, &identity);
        let finished = self.place.volume(id);
        create::create(
            &self.place,
            &self.room,
            &*backing,
            &identity,
            &content,
            &finished,
        )?;
        tracing::info!(%id, size = %wanted.size, enforcement = ?backing.enforcement(), "created a volume");
        self.remember(&identity)?;
        Ok(identity)
    }

    /// What holds a volume.
    fn backing(&self, identity: &Identity) -> Box<dyn Backing> {
        let directory = self.place.volume(&identity.volume.id);
        self.backings.of(directory, identity)
    }

    /// Makes a volume reachable, with its size enforced, and checks that it is this one.
    fn attach(&self, identity: &Identity) -> Result<(), Error> {
        attach(&*self.backing(identity), identity)
    }

    fn remember(&self, identity: &Identity) -> Result<(), Error> {
        let known = Known {
            instance: identity.volume.instance,
            size: identity.size,
        };
        let id = identity.volume.id.clone();
        self.change_record(|record| {
            record.volumes.insert(id, known);
        })
    }

    /// Changes the record, on the disk first.
    fn change_record(&self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let mut state = self.state();
        let mut next = state.record.clone();
        change(&mut next);
        if next != state.record {
            next.store(&self.record_file)?;
            state.record = next;
        }
        Ok(())
    }

    fn lock_of(&self, id: &VolumeId) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(id.clone()).or_default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claims, while the state is locked.
struct ClaimsGuard<'a>(MutexGuard<'a, State>);

impl std::ops::Deref for ClaimsGuard<'_> {
    type Target = Claims;
    fn deref(&self) -> &Claims {
        &self.0.claims
    }
}

impl std::ops::DerefMut for ClaimsGuard<'_> {
    fn deref_mut(&mut self) -> &mut Claims {
        &mut self.0.claims
    }
}

/// Makes a volume reachable, with its size enforced, and checks that it is this one.
fn attach(backing: &dyn Backing, identity: &Identity) -> Result<(), Error> {
    backing.attach(identity)?;
    let unidentified = |detail: String| Error::Unidentified {
        id: identity.volume.id.clone(),
        detail,
    };
    let detail = match backing.root().identity() {
        Ok(Some(inside)) if inside.volume == identity.volume => return Ok(()),
        Ok(Some(inside)) => {
            let VolumeInstance { id, instance } = inside.volume;
            format!("it is {id} of instance {instance}")
        }
        Ok(None) => "volume.json is missing".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(unidentified(detail))
}
