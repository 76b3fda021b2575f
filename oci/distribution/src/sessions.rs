//! Unfinished uploads. The received part of one is in a scratch file; a hard link below `uploads/`, in a directory named
//! after the repository, preserves it over a crash. After a restart it is read into a new scratch file when the upload
//! continues, since the hash state is not on disk.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::OwnedMutexGuard;
use tucano_oci_image::{Store, Upload};
use uuid::Uuid;

use crate::{error::Error, name::Name};

/// Prefix of an identifier in a file name; no part of a repository's name begins with it.
const LEAF: char = '_';
/// Buffer size for reading an upload of an earlier run.
const CHUNK_BYTES: usize = 1 << 20;

/// Uploads by their identifiers.
#[derive(Debug)]
pub(crate) struct Sessions {
    all: Mutex<HashMap<Uuid, Arc<Session>>>,
    /// The directory of hard links.
    directory: PathBuf,
}

/// An unfinished upload.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    name: Name,
    upload: Arc<tokio::sync::Mutex<Option<Progress>>>,
    bytes: AtomicU64,
    used_at: Mutex<Instant>,
    /// The hard link to its file.
    kept: PathBuf,
}

#[derive(Debug)]
enum Progress {
    Live(Upload),
    /// Left by an earlier run.
    Left,
}

/// Exclusive access to an upload.
#[derive(Debug)]
pub(crate) struct SessionGuard {
    pub(crate) session: Arc<Session>,
    upload: OwnedMutexGuard<Option<Progress>>,
}

impl Sessions {
    /// Finds unfinished uploads of an earlier run in `directory`, at most `limit`.
    pub(crate) fn open(directory: PathBuf, limit: usize) -> Self {
        let sessions = Self {
            all: Mutex::default(),
            directory: directory.clone(),
        };
        if let Err(error) = sessions.find_left(&directory, limit) {
            // Without them the clients upload again from the start.
            tracing::warn!(%error, directory = %directory.display(), "cannot look for unfinished uploads");
        }
        sessions
    }

    fn find_left(&self, directory: &Path, limit: usize) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                self.find_left(&path, limit)?;
                // Only an empty directory is removed.
                fs::remove_dir(&path).ok();
                continue;
            }
            match self.left(&path) {
                Some(session) if self.all().len() < limit => {
                    self.all().insert(session.id, Arc::new(session));
                }
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(())
    }

    fn left(&self, path: &Path) -> Option<Session> {
        let id = path.file_name()?.to_str()?.strip_prefix(LEAF)?;
        let name = path.parent()?.strip_prefix(&self.directory).ok()?;
        let session = Session {
            id: Uuid::parse_str(id).ok()?,
            name: name.to_str()?.parse().ok()?,
            upload: Arc::new(tokio::sync::Mutex::new(Some(Progress::Left))),
            bytes: AtomicU64::new(fs::metadata(path).ok()?.len()),
            used_at: Mutex::new(Instant::now()),
            kept: path.to_owned(),
        };
        Some(session)
    }

    /// Starts an upload, unless there are `limit` already.
    pub(crate) fn begin(
        &self,
        name: &Name,
        limit: usize,
        upload: impl FnOnce() -> Result<Upload, Error>,
    ) -> Result<Arc<Session>, Error> {
        let mut all = self.all();
        if all.len() >= limit {
            let limit = limit as u64;
            return Err(Error::TooMany {
                what: "uploads",
                limit,
            });
        }
        let (id, upload) = (Uuid::new_v4(), upload()?);
        let kept = self.directory.join(name.as_str());
        let kept = kept.join(format!("{LEAF}{id}"));
        keep(&upload, &kept);
        let session = Arc::new(Session {
            id,
            name: name.clone(),
            upload: Arc::new(tokio::sync::Mutex::new(Some(Progress::Live(upload)))),
            bytes: AtomicU64::new(0),
            used_at: Mutex::new(Instant::now()),
            kept,
        });
        all.insert(session.id, session.clone());
        Ok(session)
    }

    /// The repository's upload of this identifier.
    pub(crate) fn find(&self, name: &Name, id: &str) -> Result<Arc<Session>, Error> {
        let found = Uuid::parse_str(id)
            .ok()
            .and_then(|id| self.all().get(&id).cloned());
        found
            .filter(|session| session.name == *name)
            .ok_or_else(|| Error::UploadUnknown(id.chars().take(80).collect()))
    }

    /// Removes an upload. Its file vanishes when the last request that uses it ends.
    pub(crate) fn end(&self, session: &Session) {
        self.all().remove(&session.id);
        session.forget();
    }

    /// Removes uploads that were not used for `idle`; returns their number.
    pub(crate) fn expire(&self, idle: Duration) -> usize {
        let mut all = self.all();
        let before = all.len();
        all.retain(|_, session| {
            let rests = session.rests_for(idle);
            if rests {
                session.forget();
            }
            !rests
        });
        before - all.len()
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Arc<Session>>> {
        // Each change of the map is a single step, so a panic leaves a consistent map.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// The number of received bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Exclusive access, unless another request has it.
    pub(crate) fn lock(self: &Arc<Self>) -> Result<SessionGuard, Error> {
        self.touch();
        let busy = |_| Error::UploadBusy(self.id.to_string());
        let upload = self.upload.clone().try_lock_owned().map_err(busy)?;
        match upload.is_some() {
            true => Ok(SessionGuard {
                session: self.clone(),
                upload,
            }),
            false => Err(Error::UploadUnknown(self.id.to_string())),
        }
    }

    /// Removes the hard link, so that a restart does not find the upload.
    fn forget(&self) {
        match fs::remove_file(&self.kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.kept.display();
                tracing::warn!(%error, %path, "cannot remove the hard link of an upload");
            }
            _ => {}
        }
    }

    /// Copies the upload of an earlier run into a new file.
    fn take_up(&self, store: &Store) -> Result<Upload, Error> {
        let failed = |error: io::Error| Error::Failed(format!("cannot resume an upload: {error}"));
        let mut left = File::open(&self.kept).map_err(failed)?;
        let mut upload = store.begin_upload()?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match left.read(&mut chunk).map_err(failed)? {
                0 => break,
                read => upload.write(&chunk[..read])?,
            }
        }
        self.forget();
        keep(&upload, &self.kept);
        Ok(upload)
    }

    fn touch(&self) {
        *self.used_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn rests_for(&self, idle: Duration) -> bool {
        let used_at = *self.used_at.lock().unwrap_or_else(PoisonError::into_inner);
        used_at.elapsed() >= idle && self.upload.try_lock().is_ok()
    }
}

impl SessionGuard {
    /// Appends bytes. Blocks. The upload cannot be continued after an error.
    pub(crate) fn write(&mut self, store: &Store, bytes: &[u8]) -> Result<(), Error> {
        let mut upload = self.take(store)?;
        upload.write(bytes)?;
        self.session.bytes.store(upload.bytes(), Relaxed);
        *self.upload = Some(Progress::Live(upload));
        self.session.touch();
        Ok(())
    }

    /// Takes the upload out of the session, which ends it. Blocks.
    pub(crate) fn take(&mut self, store: &Store) -> Result<Upload, Error> {
        match self.upload.take() {
            Some(Progress::Live(upload)) => Ok(upload),
            Some(Progress::Left) => self.session.take_up(store),
            None => Err(Error::UploadUnknown(self.session.id.to_string())),
        }
    }
}

/// Creates the hard link that survives a crash.
fn keep(upload: &Upload, kept: &Path) {
    let directory = kept.parent().unwrap_or(kept);
    let linked = fs::create_dir_all(directory).and_then(|()| fs::hard_link(upload.path(), kept));
    if let Err(error) = linked {
        // The upload starts again only if the program ends first.
        tracing::warn!(%error, path = %kept.display(), "an upload will not survive a restart");
    }
}

#[cfg(test)]
mod tests;
