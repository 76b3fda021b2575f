//! The directory of unpacked layers, one directory or one EROFS image each (see `paths`), and `.tmp-*/` for unfinished ones.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{Cursor, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use oci_spec::image::{Descriptor, Digest, MediaType};
use serde::{Deserialize, Serialize};

use super::{
    chain::{self, Chain},
    helper::Helper,
    make::{IMAGE, Source, unpack_into},
    paths::{self, LayerPaths},
};
use crate::{
    content::store::{Store, create_private},
    digest::digest_of,
    erofs,
    error::Error,
    layer::{
        LayerSpec, STREAM,
        path::clean,
        stream::{Encoding, MAGIC_BYTES},
    },
    limits::Limits,
    mount::MountMethod,
    parallel,
    scratch::{self, Scratch},
    seal::Seal,
    writeback,
};

/// How layers are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// Into directories, which work on every file system.
    Directories,
    /// Into EROFS images, one file each, that the kernel mounts: much faster, since no file is created for each entry.
    /// Layers with too many entries become directories instead.
    Erofs,
}

/// An unpacked layer that is not visible yet.
#[derive(Debug)]
struct Unpublished {
    scratch: Scratch,
    form: Form,
    seal: Seal,
}

/// Directories of unpacked layers, one per diff-id, for use as overlayfs lower directories.
#[derive(Debug, Clone)]
pub struct Layers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    limits: Limits,
    form: Form,
    mount_method: MountMethod,
    /// Held while something is mounted.
    mounting: Mutex<()>,
    /// Held by the thread that flushes the file system.
    flushing: Mutex<()>,
    /// A lock for each layer that is being unpacked, so that a second caller waits instead of unpacking it again.
    locks: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
    /// Unpacks layers in a process of its own.
    helper: OnceLock<Helper>,
    /// Layers whose unpacking process has died: how often, the last time, and how.
    deaths: Mutex<HashMap<Digest, (u32, Instant, String)>>,
}

/// Deaths of the unpacking process after which a layer is refused.
const TRIES: u32 = 3;
/// How long a layer stays refused. Afterwards the machine may have more memory to spare.
const REFUSED: Duration = Duration::from_secs(3600);

impl Layers {
    /// Opens or creates the directory and removes unfinished layers of an earlier run. It is created with mode 0700, since
    /// layers hold set-uid programs. Layers become directories.
    ///
    /// # Errors
    /// If the directory cannot be created or cleaned.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, Error> {
        Self::open_in_form(root, limits, Form::Directories)
    }

    /// Like [`Layers::open`]; new layers are unpacked in this form, and existing ones stay as they are.
    ///
    /// # Errors
    /// If the directory cannot be created or cleaned.
    pub fn open_in_form(root: &Path, limits: Limits, form: Form) -> Result<Self, Error> {
        Self::open_with_mount_method(root, limits, form, MountMethod::Auto)
    }

    /// Like [`Layers::open_in_form`] with EROFS images, mounted by loop devices even where the kernel does not need them.
    ///
    /// # Errors
    /// If the directory cannot be created or cleaned.
    pub fn open_with_loop_devices(root: &Path, limits: Limits) -> Result<Self, Error> {
        Self::open_with_mount_method(root, limits, Form::Erofs, MountMethod::LoopDevice)
    }

    fn open_with_mount_method(
        root: &Path,
        limits: Limits,
        form: Form,
        mount_method: MountMethod,
    ) -> Result<Self, Error> {
        create_private(root)?;
        scratch::sweep(root)?;
        let inner = Inner {
            root: root.to_owned(),
            limits,
            form,
            mount_method,
            mounting: Mutex::default(),
            flushing: Mutex::default(),
            locks: Mutex::default(),
            helper: OnceLock::new(),
            deaths: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Tests whether EROFS images can be mounted.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn try_erofs(&self) -> Result<(), Error> {
        erofs::probe(&Scratch::create(&self.inner.root)?, self.inner.mount_method)
    }

    /// Unpacks layers in another process from now on, after a test with an empty layer. The first helper stays. Without a
    /// helper this process unpacks.
    ///
    /// # Errors
    /// Why the helper does not work: nothing changes then.
    pub fn use_helper(&self, helper: Helper) -> Result<(), Error> {
        let empty = digest_of(b"");
        let layer = LayerSpec {
            descriptor: &Descriptor::new(MediaType::ImageLayer, 0_u64, empty.clone()),
            diff_id: Some(&empty),
            limits: &self.inner.limits,
        };
        let scratch = Scratch::create(&self.inner.root)?;
        helper.unpack(
            scratch.path(),
            self.inner.form,
            layer,
            Source::Stream(&mut std::io::empty()),
        )?;
        // Of two concurrent calls the first wins, as with sequential ones.
        drop(self.inner.helper.set(helper));
        Ok(())
    }

    /// The directory of an unpacked layer, mounted if necessary.
    pub fn get(&self, diff_id: &Digest) -> Option<PathBuf> {
        self.find(diff_id).unwrap_or_else(|error| {
            tracing::warn!(%diff_id, %error, "an unpacked layer cannot be used");
            None
        })
    }

    /// Reads an unpacked layer and compares it with its seal. A damaged layer is moved away, so that [`Layers::unpack`]
    /// unpacks it again; containers that use it continue.
    ///
    /// # Errors
    /// `layer_damaged` if it is damaged; `not_found` if it is not unpacked; `io` if it cannot be read for other reasons.
    pub fn verify(&self, diff_id: &Digest) -> Result<(), Error> {
        let lock = self.lock_of(diff_id);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = self.paths(diff_id)?;
        if !paths.exist() {
            return Err(Error::NotFound(diff_id.clone()));
        }
        let Some(reason) = paths.damage()? else {
            return Ok(());
        };
        paths.quarantine()?;
        Err(Error::LayerDamaged {
            layer: diff_id.clone(),
            reason,
        })
    }

    /// Unpacks a stored layer unless it exists already; whiteouts become overlayfs's. The directory appears complete and
    /// synced, or not at all. Concurrent calls for one layer are safe. Owners, devices and whiteouts require root.
    ///
    /// # Errors
    /// `not_found` if the store does not have the layer; otherwise see [`Error::code`].
    pub fn unpack(
        &self,
        store: &Store,
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<PathBuf, Error> {
        self.get_or_unpack(diff_id, || self.unpack_stored(store, layer, diff_id))
    }

    /// Like [`Layers::unpack`], of a layer that is read from a stream: it is unpacked during the transfer and stored nowhere
    /// else. The stream is not read if the layer exists already.
    ///
    /// # Errors
    /// [`Error::TooManyToIndex`] if the layer must be transferred again, to become a directory: see
    /// [`Layers::unpack_stream_in_form`]; otherwise see [`Error::code`].
    pub fn unpack_stream(
        &self,
        blob: &mut (dyn Read + Send),
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<PathBuf, Error> {
        self.unpack_stream_in_form(self.inner.form, blob, layer, diff_id)
    }

    /// Like [`Layers::unpack_stream`], in this form.
    ///
    /// # Errors
    /// As [`Layers::unpack_stream`].
    pub fn unpack_stream_in_form(
        &self,
        form: Form,
        blob: &mut (dyn Read + Send),
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<PathBuf, Error> {
        let layer = LayerSpec {
            descriptor: layer,
            diff_id: Some(diff_id),
            limits: &self.inner.limits,
        };
        self.get_or_unpack(diff_id, || {
            let (made, _) = self.unpack_from(form, layer, Source::Stream(blob))?;
            Ok(made)
        })
    }

    /// Like [`Layers::unpack_stream`], of a blob whose manifest is unknown; returns its diff-id. Its first bytes identify
    /// the compression.
    ///
    /// # Errors
    /// See [`Error::code`]: `malformed` if the blob is not a layer.
    pub fn unpack_undescribed(
        &self,
        blob: &mut (dyn Read + Send),
        digest: &Digest,
        bytes: u64,
    ) -> Result<Digest, Error> {
        let mut magic = Vec::new();
        blob.take(MAGIC_BYTES as u64)
            .read_to_end(&mut magic)
            .map_err(|source| Error::io("read", Path::new(STREAM), source))?;
        let media_type = Encoding::of_magic(&magic).media_type();
        let layer = LayerSpec {
            descriptor: &Descriptor::new(media_type, bytes, digest.clone()),
            diff_id: None,
            limits: &self.inner.limits,
        };
        let mut blob = Cursor::new(magic).chain(blob);
        let (made, diff_id) = self.while_flushing(|| {
            self.unpack_from(self.inner.form, layer, Source::Stream(&mut blob))
        })??;
        let lock = self.lock_of(&diff_id);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.paths(&diff_id)?.exist() {
            self.publish(vec![(made, &diff_id)])?;
        }
        Ok(diff_id)
    }

    /// Unpacks all layers of an image as [`Layers::unpack`] does, several at once; returns their directories in the
    /// image's order. A repeated layer is unpacked once.
    ///
    /// # Errors
    /// The error of the lowest layer that failed; no layer is kept then.
    pub fn unpack_all(
        &self,
        store: &Store,
        layers: &[(Descriptor, Digest)],
    ) -> Result<Vec<PathBuf>, Error> {
        let unique: BTreeMap<String, &(Descriptor, Digest)> = layers
            .iter()
            .map(|layer| (layer.1.to_string(), layer))
            .collect();
        // Locked in the order of their names, so that two callers cannot deadlock.
        let locks: Vec<_> = unique
            .values()
            .map(|(_, diff_id)| self.lock_of(diff_id))
            .collect();
        let _locked: Vec<_> = locks
            .iter()
            .map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let mut missing: Vec<&(Descriptor, Digest)> = Vec::new();
        for layer in layers {
            let is_first = !missing.iter().any(|(_, diff_id)| *diff_id == layer.1);
            if is_first && !self.paths(&layer.1)?.exist() {
                missing.push(layer);
            }
        }
        let make = |(layer, diff_id): &&(_, _)| self.unpack_stored(store, layer, diff_id);
        let made = self.while_flushing(|| parallel::for_each(&missing, make))??;
        let diff_ids = missing.iter().map(|(_, diff_id)| diff_id);
        self.publish(made.into_iter().zip(diff_ids).collect())?;
        layers
            .iter()
            .map(|(_, diff_id)| self.directory(diff_id))
            .collect()
    }

    /// The directories that make up an image of these unpacked layers, lowest first, for use as overlayfs lower
    /// directories. Beside the layers' own ones there may be one on top, with the directories that look otherwise in the
    /// image than in their uppermost layer: those without an entry of their own there. Layers below an opaque root are left
    /// out.
    ///
    /// # Errors
    /// `not_found` if a layer is not unpacked; `io` if it cannot be read.
    pub fn stack(&self, diff_ids: &[Digest]) -> Result<Vec<PathBuf>, Error> {
        self.stack_with_volumes(diff_ids, &[])
    }

    /// Like [`Layers::stack`], with these directories of the image, which are its declared volumes: those that no layer has
    /// are created, with mode 0755 and owner root. Paths that are not clean, or lead out of the image, are ignored.
    ///
    /// # Errors
    /// As [`Layers::stack`].
    pub fn stack_with_volumes(
        &self,
        diff_ids: &[Digest],
        volumes: &[String],
    ) -> Result<Vec<PathBuf>, Error> {
        let volumes: Vec<Vec<u8>> = volumes
            .iter()
            .filter_map(|volume| clean(volume.as_bytes()).ok())
            .collect();
        let Some(top) = diff_ids.last() else {
            return Ok(Vec::new());
        };
        // An overlay takes no directory twice, and the lower one of two equal layers is hidden.
        let is_uppermost = |(at, id): &(usize, &Digest)| !diff_ids[at + 1..].contains(id);
        let directories: Vec<PathBuf> = diff_ids
            .iter()
            .enumerate()
            .filter(is_uppermost)
            .map(|(_, diff_id)| self.directory(diff_id))
            .collect::<Result<_, _>>()?;
        let failed = |source| Error::io("read the layers in", &self.inner.root, source);
        let chain = Chain::open(&directories).map_err(failed)?;
        let mut stack = chain.directories();
        let path = self.paths(top)?.chain(diff_ids, &volumes);
        if !path.is_dir() {
            let mut corrections = chain.corrections().map_err(failed)?;
            chain
                .add_missing(&volumes, &mut corrections)
                .map_err(failed)?;
            if corrections.is_empty() {
                return Ok(stack);
            }
            let scratch = Scratch::create(&self.inner.root)?;
            let written = chain::write(scratch.handle().as_fd(), &corrections);
            written
                .and_then(|()| rustix::fs::syncfs(scratch.handle()))
                .map_err(|source| Error::io("create", &path, source))?;
            scratch.persist(&path)?;
        }
        stack.push(path);
        Ok(stack)
    }

    /// Removes all other layers.
    ///
    /// # Errors
    /// If a layer cannot be removed.
    pub fn retain(&self, diff_ids: &[Digest]) -> Result<(), Error> {
        let root = &self.inner.root;
        let failed = |source| Error::io("list", root, source);
        for entry in fs::read_dir(root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let layer = paths::layer_of(name);
            if layer.is_some_and(|layer| !diff_ids.contains(&layer)) {
                paths::remove(root, name)?;
            }
        }
        Ok(())
    }

    fn paths<'a>(&'a self, diff_id: &'a Digest) -> Result<LayerPaths<'a>, Error> {
        LayerPaths::new(&self.inner.root, diff_id)
    }

    fn find(&self, diff_id: &Digest) -> Result<Option<PathBuf>, Error> {
        let _locked = self
            .inner
            .mounting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.paths(diff_id)?.open(self.inner.mount_method)
    }

    /// The directory of a layer that existed a moment ago.
    fn directory(&self, diff_id: &Digest) -> Result<PathBuf, Error> {
        self.find(diff_id)?
            .ok_or_else(|| Error::NotFound(diff_id.clone()))
    }

    /// A layer's directory. If it is missing, one caller at a time unpacks it by `unpack`.
    fn get_or_unpack(
        &self,
        diff_id: &Digest,
        make: impl FnOnce() -> Result<Unpublished, Error>,
    ) -> Result<PathBuf, Error> {
        let lock = self.lock_of(diff_id);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.paths(diff_id)?.exist() {
            let made = self.while_flushing(make)??;
            self.publish(vec![(made, diff_id)])?;
        }
        self.directory(diff_id)
    }

    fn lock_of(&self, diff_id: &Digest) -> Arc<Mutex<()>> {
        let mut locks = self
            .inner
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Drops the locks that nobody holds.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(diff_id.clone()).or_default())
    }

    /// Runs `work`, which unpacks layers, while the file system is flushed to disk.
    fn while_flushing<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        let root = &self.inner.root;
        let directory = File::open(root).map_err(|source| Error::io("open", root, source))?;
        Ok(writeback::while_flushing_tree(
            &directory,
            &self.inner.flushing,
            work,
        ))
    }

    /// Unpacks a stored layer without publishing it.
    fn unpack_stored(
        &self,
        store: &Store,
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<Unpublished, Error> {
        let blob = store.layer(layer, diff_id, &self.inner.limits)?;
        let make =
            |form| self.unpack_from(form, blob.layer, Source::File(blob.open()?, &blob.path));
        let made = match make(self.inner.form) {
            Err(Error::TooManyToIndex(_)) => {
                tracing::info!(%diff_id, "the layer has too many entries for an EROFS image: it becomes a directory");
                make(Form::Directories)
            }
            made => made,
        };
        made.map(|(made, _)| made)
    }

    /// Unpacks a blob without publishing it; returns its diff-id too.
    fn unpack_from(
        &self,
        form: Form,
        layer: LayerSpec<'_>,
        source: Source<'_>,
    ) -> Result<(Unpublished, Digest), Error> {
        let digest = layer.descriptor.digest();
        self.refuse_deadly(digest)?;
        let scratch = Scratch::create(&self.inner.root)?;
        let helper = self.inner.helper.get();
        let unpacked = unpack_into(&scratch, form, layer, source, helper);
        if let Err(Error::HelperDied(reason)) = &unpacked {
            self.note_death(digest, reason);
            self.refuse_deadly(digest)?;
        }
        let (seal, diff_id) = unpacked?;
        let made = Unpublished {
            scratch,
            form,
            seal,
        };
        Ok((made, diff_id))
    }

    /// Refuses a layer whose unpacking process has died too often.
    fn refuse_deadly(&self, layer: &Digest) -> Result<(), Error> {
        let mut deaths = self.deaths();
        deaths.retain(|_, (_, last, _)| last.elapsed() < REFUSED);
        match deaths.get(layer) {
            Some((tries, _, reason)) if *tries >= TRIES => Err(Error::UnpackerDied {
                layer: layer.clone(),
                tries: *tries,
                reason: reason.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn note_death(&self, layer: &Digest, reason: &str) {
        let mut deaths = self.deaths();
        let tries = deaths.get(layer).map_or(0, |(tries, ..)| *tries);
        deaths.insert(
            layer.clone(),
            (tries + 1, Instant::now(), reason.to_owned()),
        );
    }

    fn deaths(&self) -> MutexGuard<'_, HashMap<Digest, (u32, Instant, String)>> {
        self.inner
            .deaths
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Syncs unpacked layers and gives them their names.
    fn publish(&self, layers: Vec<(Unpublished, &Digest)>) -> Result<(), Error> {
        let root = &self.inner.root;
        let Some((first, _)) = layers.first() else {
            return Ok(());
        };
        for (made, diff_id) in &layers {
            self.paths(diff_id)?.put_seal(&made.seal)?;
        }
        // All are on one file system.
        rustix::fs::syncfs(first.scratch.handle())
            .map_err(|source| Error::io("sync", root, source))?;
        for (made, diff_id) in layers {
            let paths = self.paths(diff_id)?;
            match made.form {
                Form::Directories => drop(made.scratch.persist(&paths.directory)?),
                Form::Erofs => {
                    let image = made.scratch.path().join(IMAGE);
                    fs::rename(image, &paths.image)
                        .map_err(|source| Error::io("make", &paths.image, source))?;
                }
            }
        }
        let synced = File::open(root).and_then(|root| root.sync_all());
        synced.map_err(|source| Error::io("sync", root, source))
    }
}
