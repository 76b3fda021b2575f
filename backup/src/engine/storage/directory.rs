//! A repository in a directory.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::Failure;

/// The directories of a repository.
const DIRECTORIES: [&str; 5] = ["keys", "locks", "snapshots", "index", "data"];

/// What the names of half-written files have; nobody takes them for a file of the repository.
const HALF_WRITTEN: &str = "-tmp-";

/// Age from which a half-written file is nobody's.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn new(path: &str) -> Result<Self, Failure> {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            let path = path.display();
            return Err(Failure::bad_request(format!(
                "the location file://{path} is not absolute: it begins with file:///"
            )));
        }
        Ok(Self { path })
    }

    pub(super) fn get(&self, name: &str) -> Result<Option<Bytes>, String> {
        match fs::read(self.path.join(name)) {
            Ok(content) => Ok(Some(content.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn get_range(&self, name: &str, offset: u32, length: u32) -> Result<Bytes, String> {
        let read = || {
            let mut content = vec![0; length as usize];
            let file = File::open(self.path.join(name))?;
            file.read_exact_at(&mut content, offset.into())?;
            io::Result::Ok(content.into())
        };
        read().map_err(|error| error.to_string())
    }

    pub(super) fn put(&self, name: &str, content: &[Bytes]) -> Result<(), String> {
        let put = || {
            let (written, parent) = self.written(name, content)?;
            written.persist(self.path.join(name))?;
            synchronised(&parent)
        };
        put().map_err(|error: io::Error| error.to_string())
    }

    pub(super) fn create(&self, name: &str, content: &Bytes) -> Result<bool, String> {
        let create = || {
            let (written, parent) = self.written(name, std::slice::from_ref(content))?;
            match written.persist_noclobber(self.path.join(name)) {
                Err(error) if error.error.kind() == ErrorKind::AlreadyExists => return Ok(false),
                result => result?,
            };
            synchronised(&parent)?;
            Ok(true)
        };
        create().map_err(|error: io::Error| error.to_string())
    }

    /// Writes a temporary file beside the one that it becomes.
    fn written(
        &self,
        name: &str,
        content: &[Bytes],
    ) -> io::Result<(tempfile::NamedTempFile, PathBuf)> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path).to_owned();
        // Only below the repository's directory: where that is missing, its file system may not be mounted.
        if !parent.is_dir() && name.contains('/') && self.path.is_dir() {
            fs::create_dir_all(&parent)?;
            synchronised(parent.parent().unwrap_or(&self.path))?;
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let mut written = tempfile::Builder::new()
            .prefix(&format!("{file}{HALF_WRITTEN}"))
            .tempfile_in(&parent)?;
        for piece in content {
            written.write_all(piece)?;
        }
        written.as_file().sync_all()?;
        Ok((written, parent))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), String> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    pub(super) fn list(&self, directory: &str) -> Result<Vec<(String, u64)>, String> {
        let mut found = Vec::new();
        let listed = walk(&self.path.join(directory), &mut |path, metadata| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.contains(HALF_WRITTEN) {
                found.push((name.into_owned(), metadata.len()));
            }
        });
        match listed {
            Ok(()) => Ok(found),
            // A repository without the directory has none of its files.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(found),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn prepare(&self) -> Result<(), String> {
        let prepare = || {
            // The parent has to be there: a file system that is not mounted is not replaced by a directory.
            match fs::create_dir(&self.path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            for name in DIRECTORIES {
                match fs::create_dir(self.path.join(name)) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
            }
            synchronised(&self.path)
        };
        prepare().map_err(|error| error.to_string())
    }

    pub(super) fn tidy(&self) -> Result<(), String> {
        let now = SystemTime::now();
        let tidy = walk(&self.path, &mut |path, metadata| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let age = metadata
                .modified()
                .ok()
                .and_then(|at| now.duration_since(at).ok());
            if name.contains(HALF_WRITTEN) && age.is_some_and(|age| age > LEFT_BEHIND) {
                fs::remove_file(path).ok();
            }
        });
        tidy.map_err(|error| error.to_string())
    }
}

/// Visits the files below a directory. What vanishes meanwhile is left out; every other error ends the walk, since a list
/// that lacks files would have data deleted that they need.
fn walk(directory: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata)) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => walk(&path, visit)?,
            Ok(metadata) if metadata.is_file() => visit(&path, &metadata),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn synchronised(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some network file systems have no such operation on directories.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}
