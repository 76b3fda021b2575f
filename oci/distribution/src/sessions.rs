//! Uploads under way. What has come of one is in a scratch file, and a second name of that file below `uploads/`, in a
//! directory named after its repository, keeps it over a crash. The next program reads it into a new scratch file when the
//! upload goes on: what a digest is made of is not on disk.

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

/// Before an identifier in a file's name; no part of a repository's name begins so.
const LEAF: char = '_';
/// Bytes of an upload that was left that are read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Uploads by their identifiers.
#[derive(Debug)]
pub(crate) struct Sessions {
    all: Mutex<HashMap<Uuid, Arc<Session>>>,
    /// Where second names are.
    directory: PathBuf,
}

/// A blob on its way in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    name: Name,
    upload: Arc<tokio::sync::Mutex<Option<Progress>>>,
    bytes: AtomicU64,
    used_at: Mutex<Instant>,
    /// The second name of its file.
    kept: PathBuf,
}

#[derive(Debug)]
enum Progress {
    Live(Upload),
    /// Of an earlier program.
    Left,
}

/// The right to write to an upload; nobody else does meanwhile.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) session: Arc<Session>,
    upload: OwnedMutexGuard<Option<Progress>>,
}

impl Sessions {
    /// Finds what an earlier program left in `directory`, at most `limit` uploads.
    pub(crate) fn open(directory: PathBuf, limit: usize) -> Self {
        let sessions = Self {
            all: Mutex::default(),
            directory: directory.clone(),
        };
        if let Err(error) = sessions.find_left(&directory, limit) {
            // They would only save their senders some time.
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
                // One that is not empty stays.
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

    /// Begins one, unless there are `limit` already.
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

    /// Ends one. Its file vanishes with whoever still writes to it.
    pub(crate) fn end(&self, session: &Session) {
        self.all().remove(&session.id);
        session.forget();
    }

    /// Gives up those that nobody has used for `idle`.
    pub(crate) fn give_up(&self, idle: Duration) -> usize {
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
        // Every change of the map is a single step: what a panic left is whole.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// The right to write to it, unless somebody else has it.
    pub(crate) fn turn(self: &Arc<Self>) -> Result<Turn, Error> {
        self.touch();
        let busy = |_| Error::UploadBusy(self.id.to_string());
        let upload = self.upload.clone().try_lock_owned().map_err(busy)?;
        match upload.is_some() {
            true => Ok(Turn {
                session: self.clone(),
                upload,
            }),
            false => Err(Error::UploadUnknown(self.id.to_string())),
        }
    }

    /// Nobody is to find it after a crash.
    fn forget(&self) {
        match fs::remove_file(&self.kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.kept.display();
                tracing::warn!(%error, %path, "cannot remove an upload's second name");
            }
            _ => {}
        }
    }

    /// What is left of it in a new file.
    fn take_up(&self, store: &Store) -> Result<Upload, Error> {
        let failed = |error: io::Error| Error::Failed(format!("cannot take up an upload: {error}"));
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

impl Turn {
    /// Adds bytes to its end. Blocking. After an error it is of no use any more.
    pub(crate) fn write(&mut self, store: &Store, bytes: &[u8]) -> Result<(), Error> {
        let mut upload = self.take(store)?;
        upload.write(bytes)?;
        self.session.bytes.store(upload.bytes(), Relaxed);
        *self.upload = Some(Progress::Live(upload));
        self.session.touch();
        Ok(())
    }

    /// The upload itself: it ends. Blocking.
    pub(crate) fn take(&mut self, store: &Store) -> Result<Upload, Error> {
        match self.upload.take() {
            Some(Progress::Live(upload)) => Ok(upload),
            Some(Progress::Left) => self.session.take_up(store),
            None => Err(Error::UploadUnknown(self.session.id.to_string())),
        }
    }
}

/// Gives its file a second name, which a crash leaves there.
fn keep(upload: &Upload, kept: &Path) {
    let directory = kept.parent().unwrap_or(kept);
    let linked = fs::create_dir_all(directory).and_then(|()| fs::hard_link(upload.path(), kept));
    if let Err(error) = linked {
        // It only has to be sent again if the program ends before it.
        tracing::warn!(%error, path = %kept.display(), "an upload will not survive a restart");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tucano_oci_image::{Limits, Store};

    #[test]
    fn uploads_are_bounded_found_and_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Limits::default()).unwrap();
        let (name, other): (Name, Name) = ("a".parse().unwrap(), "b".parse().unwrap());
        let kept = directory.path().join("uploads");
        let sessions = Sessions::open(kept, 1);
        let begin = || sessions.begin(&name, 1, || Ok(store.begin_upload()?));
        let session = begin().unwrap();
        assert_eq!(begin().unwrap_err().code(), "TOOMANYREQUESTS");
        let id = session.id.to_string();
        assert!(sessions.find(&name, &id).is_ok());
        for (name, id) in [(&other, id.as_str()), (&name, "x")] {
            assert_eq!(
                sessions.find(name, id).unwrap_err().code(),
                "BLOB_UPLOAD_UNKNOWN"
            );
        }

        let mut turn = session.turn().unwrap();
        assert_eq!(session.turn().unwrap_err().status().as_u16(), 409);
        turn.write(&store, b"abc").unwrap();
        assert_eq!(session.bytes(), 3);
        assert_eq!(sessions.give_up(Duration::ZERO), 0, "somebody writes to it");
        drop(turn);
        assert_eq!(sessions.give_up(Duration::from_secs(60)), 0);
        assert_eq!(sessions.give_up(Duration::ZERO), 1);
        assert!(sessions.find(&name, &id).is_err());
        drop(session);
        let scratch = std::fs::read_dir(directory.path().join("ingest")).unwrap();
        assert_eq!(scratch.count(), 0, "its file is gone");
        let kept = std::fs::read_dir(directory.path().join("uploads/a")).unwrap();
        assert_eq!(kept.count(), 0, "and its second name");
    }

    #[test]
    fn what_was_left_is_found_as_far_as_it_is_an_upload() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("uploads");
        let id = Uuid::new_v4();
        std::fs::create_dir_all(kept.join("a/b/empty")).unwrap();
        std::fs::write(kept.join(format!("a/b/_{id}")), "half").unwrap();
        for stray in ["a/b/_x", "a/notes", "_y"] {
            std::fs::write(kept.join(stray), "?").unwrap();
        }
        let sessions = Sessions::open(kept.clone(), 1);
        let session = sessions.find(&"a/b".parse().unwrap(), &id.to_string());
        assert_eq!(session.unwrap().bytes(), 4);
        assert!(
            sessions
                .find(&"a".parse().unwrap(), &id.to_string())
                .is_err()
        );
        let left = |path: &str| std::fs::read_dir(kept.join(path)).unwrap().count();
        assert_eq!((left(""), left("a"), left("a/b")), (1, 1, 1));
        drop(sessions);
        assert_eq!(Sessions::open(kept.clone(), 0).all().len(), 0);
        assert_eq!(left(""), 0, "more than there may be are given up");
    }
}
