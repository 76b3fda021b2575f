//! Unpacked layers, one directory each: `<hex of diff-id>/`, and `.tmp-*/` for those in the making.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use oci_spec::image::{Descriptor, Digest};

use crate::{
    digest::{from_hex, hex},
    error::Error,
    limits::Limits,
    parallel,
    scratch::{self, Scratch, discard},
    store::{Store, create_private},
    unpack::Unpacker,
};

/// Directories of unpacked layers, one per diff-id, for use as overlayfs lower directories: `<root>/<hex of diff-id>`.
#[derive(Debug, Clone)]
pub struct Layers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    limits: Limits,
    /// A lock for each layer that somebody unpacks, so that others wait for it instead of doing it again.
    at_work: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

impl Layers {
    /// Opens or creates the directory and removes what an earlier run left unfinished. It is made with mode 0700:
    /// layers hold set-uid programs, which are no business of the node's users.
    ///
    /// # Errors
    /// If the directory cannot be made or cleaned.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, Error> {
        create_private(root)?;
        scratch::sweep(root)?;
        let inner = Inner {
            root: root.to_owned(),
            limits,
            at_work: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The directory of a layer that is unpacked.
    pub fn get(&self, diff_id: &Digest) -> Option<PathBuf> {
        self.path_of(diff_id).ok().filter(|path| path.is_dir())
    }

    /// Unpacks a stored layer unless it is there already; whiteouts become what overlayfs knows. The directory
    /// appears whole and synced, or not at all. Two calls for one layer at once are safe. Owners, devices and
    /// whiteouts need root.
    ///
    /// # Errors
    /// `not_found` if the store does not have the layer; otherwise see [`Error::code`].
    pub fn unpack(
        &self,
        store: &Store,
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<PathBuf, Error> {
        let path = self.path_of(diff_id)?;
        let turn = self.turn(diff_id);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !path.is_dir() {
            let made = self.make(store, layer, diff_id)?;
            self.keep(vec![(made, path.clone())])?;
        }
        Ok(path)
    }

    /// Unpacks all layers of an image, as [`Layers::unpack`] does with one, several at once; their directories in the
    /// image's order. A layer that is there twice is unpacked once.
    ///
    /// # Errors
    /// That of the lowest layer that failed; those that are whole by then are not kept.
    pub fn unpack_all(
        &self,
        store: &Store,
        layers: &[(Descriptor, Digest)],
    ) -> Result<Vec<PathBuf>, Error> {
        let unique: BTreeMap<String, &(Descriptor, Digest)> = layers
            .iter()
            .map(|layer| (layer.1.to_string(), layer))
            .collect();
        // In the order of their names: two callers can never wait for each other.
        let turns: Vec<_> = unique
            .values()
            .map(|(_, diff_id)| self.turn(diff_id))
            .collect();
        let _turns: Vec<_> = turns
            .iter()
            .map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let mut missing: Vec<&(Descriptor, Digest)> = Vec::new();
        for layer in layers {
            let is_first = !missing.iter().any(|(_, diff_id)| *diff_id == layer.1);
            if is_first && !self.path_of(&layer.1)?.is_dir() {
                missing.push(layer);
            }
        }
        let made = parallel::for_each(&missing, |(layer, diff_id)| {
            self.make(store, layer, diff_id)
        })?;
        let made: Result<Vec<_>, Error> = made
            .into_iter()
            .zip(missing)
            .map(|(scratch, (_, diff_id))| Ok((scratch, self.path_of(diff_id)?)))
            .collect();
        self.keep(made?)?;
        layers
            .iter()
            .map(|(_, diff_id)| self.path_of(diff_id))
            .collect()
    }

    /// Removes every layer that is not among these.
    ///
    /// # Errors
    /// If a layer cannot be removed.
    pub fn retain(&self, diff_ids: &[Digest]) -> Result<(), Error> {
        let root = &self.inner.root;
        let failed = |source| Error::io("list", root, source);
        for entry in fs::read_dir(root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let layer = entry.file_name().to_str().and_then(from_hex);
            if layer.is_some_and(|layer| !diff_ids.contains(&layer)) {
                discard(root, &entry.path())?;
            }
        }
        Ok(())
    }

    fn path_of(&self, diff_id: &Digest) -> Result<PathBuf, Error> {
        Ok(self.inner.root.join(hex(diff_id)?))
    }

    fn turn(&self, diff_id: &Digest) -> Arc<Mutex<()>> {
        let mut at_work = self
            .inner
            .at_work
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds any more are done with.
        at_work.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(at_work.entry(diff_id.clone()).or_default())
    }

    /// Unpacks a layer into a directory that nobody sees yet.
    fn make(&self, store: &Store, layer: &Descriptor, diff_id: &Digest) -> Result<Scratch, Error> {
        let blob = store.layer(layer, diff_id, &self.inner.limits)?;
        let scratch = Scratch::create(&self.inner.root)?;
        let mut unpacker = Unpacker::new(scratch.handle().as_fd(), diff_id)?;
        blob.read(&mut unpacker)?;
        unpacker.finish()?;
        Ok(scratch)
    }

    /// Gives finished layers their names, once all of them are on the disk.
    fn keep(&self, layers: Vec<(Scratch, PathBuf)>) -> Result<(), Error> {
        let root = &self.inner.root;
        let Some((first, _)) = layers.first() else {
            return Ok(());
        };
        // All are on one file system.
        rustix::fs::syncfs(first.handle()).map_err(|source| Error::io("sync", root, source))?;
        for (scratch, path) in layers {
            scratch.keep_as(&path)?;
        }
        let synced = File::open(root).and_then(|root| root.sync_all());
        synced.map_err(|source| Error::io("sync", root, source))
    }
}
