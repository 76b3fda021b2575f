//! Where a repository's files are: a directory, or a prefix of a bucket.
//!
//! The one distinction that everything rests on: a file is absent only if the storage says so. Every other answer is an error.

mod bucket;
mod directory;

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::control::{Caller, lock};
use crate::{Class, Failure, Limits, Repository};

use bucket::Bucket;
use directory::Directory;

/// The storage of one repository. Names are relative to it, such as `data/00/00ff…`.
#[derive(Debug)]
pub(super) struct Storage {
    location: String,
    store: Store,
    caller: Arc<Caller>,
    faults: Mutex<Faults>,
}

#[derive(Debug)]
enum Store {
    Directory(Directory),
    Bucket(Bucket),
}

/// What went wrong so far. The engine of the repository tells only that something did.
#[derive(Debug, Default)]
struct Faults {
    last: Option<Failure>,
    written: Option<Failure>,
}

/// Why a file cannot be written, read or listed.
pub(super) type Fault = Failure;

impl Storage {
    /// # Errors
    /// The location is invalid, or its certificates cannot be read.
    pub(super) fn new(
        repository: &Repository,
        limits: &Limits,
        caller: Arc<Caller>,
    ) -> Result<Self, Failure> {
        let location = repository.location.clone();
        let (scheme, rest) = location.split_once("://").unwrap_or_default();
        let store = match scheme {
            "file" => Store::Directory(Directory::new(rest)?),
            "s3" => Store::Bucket(Bucket::new(rest, repository.s3.as_ref(), limits)?),
            _ => {
                return Err(Failure::bad_request(format!(
                    "the location {location:?} is neither file:///… nor s3://…"
                )));
            }
        };
        Ok(Self {
            location,
            store,
            caller,
            faults: Mutex::default(),
        })
    }

    /// For messages.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// The content of a file; none if there is certainly none.
    pub(super) fn get(&self, name: &str) -> Result<Option<Bytes>, Fault> {
        self.caller.still_there()?;
        let result = match &self.store {
            Store::Directory(directory) => directory.get(name),
            Store::Bucket(bucket) => bucket.get(name),
        };
        self.remembered("read", name, result)
    }

    /// Some bytes of a file.
    pub(super) fn get_range(&self, name: &str, offset: u32, length: u32) -> Result<Bytes, Fault> {
        self.caller.still_there()?;
        let result = match &self.store {
            Store::Directory(directory) => directory.get_range(name, offset, length),
            Store::Bucket(bucket) => bucket.get_range(name, offset, length),
        };
        self.remembered("read", name, result)
    }

    /// Writes a file, which appears with all of its content.
    pub(super) fn put(&self, name: &str, content: Vec<Bytes>) -> Result<(), Fault> {
        self.written(name, |store| match store {
            Store::Directory(directory) => directory.put(name, &content),
            Store::Bucket(bucket) => bucket.put(name, &content),
        })
    }

    /// Writes a file if there is none of the name; says whether it did.
    pub(super) fn create(&self, name: &str, content: Bytes) -> Result<bool, Fault> {
        self.written(name, |store| match store {
            Store::Directory(directory) => directory.create(name, &content),
            Store::Bucket(bucket) => bucket.create(name, &content),
        })
    }

    /// Removes a file. It may be gone already.
    pub(super) fn remove(&self, name: &str) -> Result<(), Fault> {
        // Without asking for the caller: locks are removed also after an abort.
        let result = match &self.store {
            Store::Directory(directory) => directory.remove(name),
            Store::Bucket(bucket) => bucket.remove(name),
        };
        self.remembered("remove", name, result)
    }

    /// The files below a directory, by their last component, with their sizes. Empty: everything at the location.
    pub(super) fn list(&self, directory: &str) -> Result<Vec<(String, u64)>, Fault> {
        self.caller.still_there()?;
        let result = match &self.store {
            Store::Directory(store) => store.list(directory),
            Store::Bucket(bucket) => bucket.list(directory),
        };
        self.remembered("list", directory, result)
    }

    /// Makes what a new repository needs beside its files.
    pub(super) fn prepare(&self) -> Result<(), Fault> {
        let result = match &self.store {
            Store::Directory(directory) => directory.prepare(),
            Store::Bucket(_) => Ok(()),
        };
        self.remembered("create", "", result)
    }

    /// Removes files that a killed program left half-written.
    pub(super) fn tidy(&self) -> Result<(), Fault> {
        let result = match &self.store {
            Store::Directory(directory) => directory.tidy(),
            Store::Bucket(_) => Ok(()),
        };
        self.remembered("tidy", "", result)
    }

    /// The fault behind an error that the engine reports.
    pub(super) fn last_fault(&self) -> Option<Failure> {
        lock(&self.faults).last.clone()
    }

    /// The first write that failed.
    pub(super) fn write_fault(&self) -> Option<Failure> {
        lock(&self.faults).written.clone()
    }

    fn written<T>(
        &self,
        name: &str,
        write: impl FnOnce(&Store) -> Result<T, String>,
    ) -> Result<T, Fault> {
        self.caller.still_there()?;
        let result = self.remembered("write", name, write(&self.store));
        if let Err(failure) = &result {
            let mut faults = lock(&self.faults);
            faults.written.get_or_insert_with(|| failure.clone());
        }
        result
    }

    fn remembered<T>(&self, what: &str, name: &str, result: Result<T, String>) -> Result<T, Fault> {
        result.map_err(|detail| {
            let location = &self.location;
            let message = format!("cannot {what} {name:?} in the repository {location}: {detail}");
            let failure = Failure::new(Class::Unreachable, message);
            lock(&self.faults).last = Some(failure.clone());
            failure
        })
    }
}
