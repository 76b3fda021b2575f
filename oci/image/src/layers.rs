//! Unpacked layers, one directory or one image each (see `place`), and `.tmp-*/` for those in the making.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{Cursor, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use oci_spec::image::{Descriptor, Digest, MediaType};
use serde::{Deserialize, Serialize};

use crate::{
    digest::digest_of,
    erofs::{self, mount::Way},
    error::Error,
    helper::Helper,
    layer::LayerOf,
    limits::Limits,
    make::{COMING, IMAGE, Source, make},
    parallel,
    place::{self, Place},
    scratch::{self, Scratch},
    seal::Seal,
    store::{Store, create_private},
    stream::{Encoding, MAGIC_BYTES},
    writeback,
};

/// How layers are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// Into directories: what every file system can.
    Directories,
    /// Into images, one file each, that the kernel mounts: much faster, since no file is created for what a layer
    /// holds. Layers of very many entries become directories all the same.
    Erofs,
}

/// In which form a layer was made, and is not visible yet.
#[derive(Debug)]
struct Made {
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
    way: Way,
    /// Held while something is mounted.
    mounting: Mutex<()>,
    /// Held by who writes to the disk what is made.
    writing: Mutex<()>,
    /// A lock for each layer that somebody unpacks, so that others wait for it instead of doing it again.
    at_work: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
    /// Makes layers in place of this process.
    helper: OnceLock<Helper>,
}

impl Layers {
    /// Opens or creates the directory and removes what an earlier run left unfinished. It is made with mode 0700:
    /// layers hold set-uid programs, which are no business of the node's users. Layers become directories.
    ///
    /// # Errors
    /// If the directory cannot be made or cleaned.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, Error> {
        Self::open_in_form(root, limits, Form::Directories)
    }

    /// Like [`Layers::open`]; new layers are unpacked in this form, and those that are there stay as they are.
    ///
    /// # Errors
    /// If the directory cannot be made or cleaned.
    pub fn open_in_form(root: &Path, limits: Limits, form: Form) -> Result<Self, Error> {
        Self::open_in_way(root, limits, form, Way::Either)
    }

    /// Like [`Layers::open_in_form`] with images, which are mounted by loop devices even where the kernel needs none.
    ///
    /// # Errors
    /// If the directory cannot be made or cleaned.
    pub fn open_with_loop_devices(root: &Path, limits: Limits) -> Result<Self, Error> {
        Self::open_in_way(root, limits, Form::Erofs, Way::Loop)
    }

    fn open_in_way(root: &Path, limits: Limits, form: Form, way: Way) -> Result<Self, Error> {
        create_private(root)?;
        scratch::sweep(root)?;
        let inner = Inner {
            root: root.to_owned(),
            limits,
            form,
            way,
            mounting: Mutex::default(),
            writing: Mutex::default(),
            at_work: Mutex::default(),
            helper: OnceLock::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Tries whether images of layers can be mounted here.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn try_erofs(&self) -> Result<(), Error> {
        erofs::try_it(&Scratch::create(&self.inner.root)?, self.inner.way)
    }

    /// From now on lets another process make the layers, once that has been tried with an empty one: the first helper
    /// stays. Layers are read, and written, by this process otherwise.
    ///
    /// # Errors
    /// Why it does not work: everything is as before then.
    pub fn use_helper(&self, helper: Helper) -> Result<(), Error> {
        let empty = digest_of(b"");
        let layer = LayerOf {
            descriptor: &Descriptor::new(MediaType::ImageLayer, 0_u64, empty.clone()),
            diff_id: Some(&empty),
            limits: &self.inner.limits,
        };
        let scratch = Scratch::create(&self.inner.root)?;
        helper.make(
            scratch.path(),
            self.inner.form,
            layer,
            Source::Stream(&mut std::io::empty()),
        )?;
        // Two calls at once are no different from one after the other.
        drop(self.inner.helper.set(helper));
        Ok(())
    }

    /// The directory of a layer that is unpacked, mounted if it has to be.
    pub fn get(&self, diff_id: &Digest) -> Option<PathBuf> {
        self.find(diff_id).unwrap_or_else(|error| {
            tracing::warn!(%diff_id, %error, "an unpacked layer cannot be used");
            None
        })
    }

    /// Reads all of an unpacked layer and checks that it still is what it was when it was unpacked. One that is not is
    /// set aside, so that [`Layers::unpack`] makes it anew; containers that run from it go on.
    ///
    /// # Errors
    /// `layer_damaged` if it was damaged; `not_found` if it is not there; `io` if it cannot be read for other reasons.
    pub fn verify(&self, diff_id: &Digest) -> Result<(), Error> {
        let turn = self.turn(diff_id);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.place(diff_id)?;
        if !place.is_there() {
            return Err(Error::NotFound(diff_id.clone()));
        }
        let Some(reason) = place.damage()? else {
            return Ok(());
        };
        place.set_aside()?;
        Err(Error::LayerDamaged {
            layer: diff_id.clone(),
            reason,
        })
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
        self.once(diff_id, || self.make(store, layer, diff_id))
    }

    /// Like [`Layers::unpack`], of a layer that is only coming: it is decompressed and written while it still comes, and
    /// is stored nowhere else. What comes is not read if the layer is there already.
    ///
    /// # Errors
    /// [`Error::TooManyToIndex`] if it must come again, to become a directory: see [`Layers::unpack_coming_as`];
    /// otherwise see [`Error::code`].
    pub fn unpack_coming(
        &self,
        blob: &mut (dyn Read + Send),
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<PathBuf, Error> {
        self.unpack_coming_as(self.inner.form, blob, layer, diff_id)
    }

    /// Like [`Layers::unpack_coming`], in this form.
    ///
    /// # Errors
    /// As there.
    pub fn unpack_coming_as(
        &self,
        form: Form,
        blob: &mut (dyn Read + Send),
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<PathBuf, Error> {
        let layer = LayerOf {
            descriptor: layer,
            diff_id: Some(diff_id),
            limits: &self.inner.limits,
        };
        self.once(diff_id, || {
            let (made, _) = self.make_of(form, layer, Source::Stream(blob))?;
            Ok(made)
        })
    }

    /// Like [`Layers::unpack_coming`], of a layer whose diff-id nobody has told yet; its diff-id. How it is compressed
    /// is told by its first bytes.
    ///
    /// # Errors
    /// See [`Error::code`]: `malformed` if it is no layer.
    pub fn unpack_unknown(
        &self,
        blob: &mut (dyn Read + Send),
        digest: &Digest,
        bytes: u64,
    ) -> Result<Digest, Error> {
        let mut magic = Vec::new();
        blob.take(MAGIC_BYTES as u64)
            .read_to_end(&mut magic)
            .map_err(|source| Error::io("read", Path::new(COMING), source))?;
        let media_type = Encoding::of_magic(&magic).media_type();
        let layer = LayerOf {
            descriptor: &Descriptor::new(media_type, bytes, digest.clone()),
            diff_id: None,
            limits: &self.inner.limits,
        };
        let mut blob = Cursor::new(magic).chain(blob);
        let (made, diff_id) =
            self.writing(|| self.make_of(self.inner.form, layer, Source::Stream(&mut blob)))??;
        let turn = self.turn(&diff_id);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.place(&diff_id)?.is_there() {
            self.keep(vec![(made, &diff_id)])?;
        }
        Ok(diff_id)
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
            if is_first && !self.place(&layer.1)?.is_there() {
                missing.push(layer);
            }
        }
        let make = |(layer, diff_id): &&(_, _)| self.make(store, layer, diff_id);
        let made = self.writing(|| parallel::for_each(&missing, make))??;
        let diff_ids = missing.iter().map(|(_, diff_id)| diff_id);
        self.keep(made.into_iter().zip(diff_ids).collect())?;
        layers
            .iter()
            .map(|(_, diff_id)| self.directory(diff_id))
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
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let layer = place::layer_of(name);
            if layer.is_some_and(|layer| !diff_ids.contains(&layer)) {
                place::remove(root, name)?;
            }
        }
        Ok(())
    }

    fn place<'a>(&'a self, diff_id: &'a Digest) -> Result<Place<'a>, Error> {
        Place::new(&self.inner.root, diff_id)
    }

    fn find(&self, diff_id: &Digest) -> Result<Option<PathBuf>, Error> {
        let _alone = self
            .inner
            .mounting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.place(diff_id)?.open(self.inner.way)
    }

    /// Of a layer that was there a moment ago.
    fn directory(&self, diff_id: &Digest) -> Result<PathBuf, Error> {
        self.find(diff_id)?
            .ok_or_else(|| Error::NotFound(diff_id.clone()))
    }

    /// A layer's directory; it is made if it is not there, by one caller at a time.
    fn once(
        &self,
        diff_id: &Digest,
        make: impl FnOnce() -> Result<Made, Error>,
    ) -> Result<PathBuf, Error> {
        let turn = self.turn(diff_id);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.place(diff_id)?.is_there() {
            let made = self.writing(make)??;
            self.keep(vec![(made, diff_id)])?;
        }
        self.directory(diff_id)
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

    /// Does `work`, which makes layers, while they are written to the disk.
    fn writing<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        let root = &self.inner.root;
        let directory = File::open(root).map_err(|source| Error::io("open", root, source))?;
        Ok(writeback::tree_beside(
            &directory,
            &self.inner.writing,
            work,
        ))
    }

    /// Unpacks a stored layer where nobody sees it yet.
    fn make(&self, store: &Store, layer: &Descriptor, diff_id: &Digest) -> Result<Made, Error> {
        let blob = store.layer(layer, diff_id, &self.inner.limits)?;
        let make = |form| self.make_of(form, blob.layer, Source::File(blob.open()?, &blob.path));
        let made = match make(self.inner.form) {
            Err(Error::TooManyToIndex(_)) => {
                tracing::info!(%diff_id, "the layer has too many entries to be indexed: it becomes a directory");
                make(Form::Directories)
            }
            made => made,
        };
        made.map(|(made, _)| made)
    }

    /// Unpacks what comes where nobody sees it yet; with it its diff-id.
    fn make_of(
        &self,
        form: Form,
        layer: LayerOf<'_>,
        source: Source<'_>,
    ) -> Result<(Made, Digest), Error> {
        let scratch = Scratch::create(&self.inner.root)?;
        let helper = self.inner.helper.get();
        let (seal, diff_id) = make(&scratch, form, layer, source, helper)?;
        let made = Made {
            scratch,
            form,
            seal,
        };
        Ok((made, diff_id))
    }

    /// Gives finished layers their names, once all of them are on the disk.
    fn keep(&self, layers: Vec<(Made, &Digest)>) -> Result<(), Error> {
        let root = &self.inner.root;
        let Some((first, _)) = layers.first() else {
            return Ok(());
        };
        for (made, diff_id) in &layers {
            self.place(diff_id)?.put_seal(&made.seal)?;
        }
        // All are on one file system.
        rustix::fs::syncfs(first.scratch.handle())
            .map_err(|source| Error::io("sync", root, source))?;
        for (made, diff_id) in layers {
            let place = self.place(diff_id)?;
            match made.form {
                Form::Directories => drop(made.scratch.keep_as(&place.directory)?),
                Form::Erofs => {
                    let image = made.scratch.path().join(IMAGE);
                    fs::rename(image, &place.image)
                        .map_err(|source| Error::io("make", &place.image, source))?;
                }
            }
        }
        let synced = File::open(root).and_then(|root| root.sync_all());
        synced.map_err(|source| Error::io("sync", root, source))
    }
}
