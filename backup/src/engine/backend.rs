//! The storage as rustic_core wants it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};

use super::{control::lock, storage::Storage};
use crate::Failure;

/// The storage, and what is held back on its way there.
#[derive(Debug)]
pub(super) struct Backend {
    storage: Arc<Storage>,
    held: Mutex<Held>,
    saved: Mutex<Option<String>>,
}

/// What is not written as it comes.
#[derive(Debug, Default)]
enum Held {
    /// Everything is written.
    #[default]
    Nothing,
    /// Snapshots vanish: the engine saves one as soon as the data is stored, before anybody could look at what was stored.
    Snapshots,
    /// The key waits for the configuration, which is written only if there is none. Of two programs that create the
    /// repository at the same time, the second would otherwise leave a key that opens another repository.
    Key(Option<(String, Bytes)>),
}

impl Backend {
    pub(super) fn new(storage: Arc<Storage>) -> Self {
        Self {
            storage,
            held: Mutex::default(),
            saved: Mutex::default(),
        }
    }

    /// For the creation of a repository.
    pub(super) fn for_creation(storage: Arc<Storage>) -> Self {
        Self {
            storage,
            held: Mutex::new(Held::Key(None)),
            saved: Mutex::default(),
        }
    }

    /// From now on snapshots vanish, or are written.
    pub(super) fn hold_snapshots(&self, hold: bool) {
        *lock(&self.held) = match hold {
            true => Held::Snapshots,
            false => Held::Nothing,
        };
    }

    /// The id of the last snapshot that was saved.
    pub(super) fn saved(&self) -> Option<String> {
        lock(&self.saved).clone()
    }

    fn write(&self, kind: FileType, name: &str, content: Vec<Bytes>) -> Result<(), Failure> {
        let mut held = lock(&self.held);
        match (&mut *held, kind) {
            (Held::Snapshots, FileType::Snapshot) => Ok(()),
            (Held::Key(key), FileType::Key) => {
                *key = Some((name.to_owned(), content.concat().into()));
                Ok(())
            }
            (Held::Key(key), FileType::Config) => {
                let Some((key_name, key)) = key.take() else {
                    return Err(Failure::internal("a configuration without a key"));
                };
                if !self.storage.create(name, content.concat().into())? {
                    let location = self.storage.location();
                    return Err(Failure::new(
                        crate::Class::Occupied,
                        format!(
                            "another program is creating a repository in {location}: try again"
                        ),
                    ));
                }
                self.storage.put(&key_name, vec![key])
            }
            _ => {
                drop(held);
                self.storage.put(name, content)
            }
        }
    }
}

/// Name of a file in the repository.
pub(super) fn name(kind: FileType, id: &Id) -> String {
    let hex = id.to_hex();
    match kind {
        FileType::Config => "config".to_owned(),
        FileType::Pack => format!("data/{}/{}", &hex[..2], &hex[..]),
        _ => format!("{}/{}", kind.dirname(), &hex[..]),
    }
}

fn rustic(failure: Failure) -> Box<RusticError> {
    RusticError::with_source(ErrorKind::Backend, "the storage failed", failure)
}

impl ReadBackend for Backend {
    fn location(&self) -> String {
        self.storage.location().to_owned()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        if kind == FileType::Config {
            let config = self.storage.get("config").map_err(rustic)?;
            let size = |content: Bytes| (Id::default(), u32::try_from(content.len()).unwrap_or(0));
            return Ok(config.map(size).into_iter().collect());
        }
        let files = self.storage.list(kind.dirname()).map_err(rustic)?;
        let known = files.into_iter().filter_map(|(name, size)| {
            // Other files are none of the repository.
            let id: Id = name.parse().ok()?;
            Some((id, u32::try_from(size).ok()?))
        });
        Ok(known.collect())
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        let name = name(kind, id);
        match self.storage.get(&name).map_err(rustic)? {
            Some(content) => Ok(content),
            None => {
                let location = self.storage.location();
                Err(rustic(Failure::new(
                    crate::Class::Damaged,
                    format!("{name:?} is missing in the repository {location}"),
                )))
            }
        }
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        let name = name(kind, id);
        self.storage
            .get_range(&name, offset, length)
            .map_err(rustic)
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        name(kind, id)
    }
}

impl WriteBackend for Backend {
    fn create(&self) -> RusticResult<()> {
        self.storage.prepare().map_err(rustic)
    }

    fn write_bytes(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        let name = name(kind, id);
        self.write(kind, &name, content.into_vec())
            .map_err(rustic)?;
        if kind == FileType::Snapshot {
            *lock(&self.saved) = Some(id.to_hex().to_string());
        }
        Ok(())
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        self.storage.remove(&name(kind, id)).map_err(rustic)
    }
}
