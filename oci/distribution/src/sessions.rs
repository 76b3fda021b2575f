//! Uploads under way. They live in memory and in scratch files: what a crash leaves of them is removed at the next start.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::OwnedMutexGuard;
use tucano_oci_image::Upload;
use uuid::Uuid;

use crate::{error::Error, name::Name};

/// Uploads by their identifiers.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    all: Mutex<HashMap<Uuid, Arc<Session>>>,
}

/// A blob on its way in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    name: Name,
    upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    bytes: AtomicU64,
    used_at: Mutex<Instant>,
}

/// The right to write to an upload; nobody else does meanwhile.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) session: Arc<Session>,
    upload: OwnedMutexGuard<Option<Upload>>,
}

impl Sessions {
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
        let session = Arc::new(Session {
            id: Uuid::new_v4(),
            name: name.clone(),
            upload: Arc::new(tokio::sync::Mutex::new(Some(upload()?))),
            bytes: AtomicU64::new(0),
            used_at: Mutex::new(Instant::now()),
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
    }

    /// Gives up those that nobody has used for `idle`.
    pub(crate) fn give_up(&self, idle: Duration) -> usize {
        let mut all = self.all();
        let before = all.len();
        all.retain(|_, session| !session.rests_for(idle));
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
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let upload = self.upload.as_mut();
        let upload = upload.ok_or_else(|| Error::UploadUnknown(self.session.id.to_string()))?;
        upload.write(bytes)?;
        self.session.bytes.store(upload.bytes(), Relaxed);
        self.session.touch();
        Ok(())
    }

    /// The upload itself: it ends.
    pub(crate) fn take(&mut self) -> Result<Upload, Error> {
        let upload = self.upload.take();
        upload.ok_or_else(|| Error::UploadUnknown(self.session.id.to_string()))
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
        let sessions = Sessions::default();
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
        turn.write(b"abc").unwrap();
        assert_eq!(session.bytes(), 3);
        assert_eq!(sessions.give_up(Duration::ZERO), 0, "somebody writes to it");
        drop(turn);
        assert_eq!(sessions.give_up(Duration::from_secs(60)), 0);
        assert_eq!(sessions.give_up(Duration::ZERO), 1);
        assert!(sessions.find(&name, &id).is_err());
        drop(session);
        let scratch = std::fs::read_dir(directory.path().join("ingest")).unwrap();
        assert_eq!(scratch.count(), 0, "its file is gone");
    }
}
