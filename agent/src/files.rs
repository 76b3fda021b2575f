//! Atomic writes, bounded reads, modes and removals.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// Mode of files that may hold secrets.
const SECRET: u32 = 0o600;

/// Whether a file must survive the loss of power once it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Content and name are on the disk when the call returns.
    Synced,
    /// The file survives the agent, but not a power failure.
    Cached,
}

/// Replaces the file `path`: readers see the old or the new content, never a part. Only its owner can read it.
///
/// # Errors
/// The first file operation that failed; the old content stays.
pub fn write_atomically(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let unfinished = directory.join(name);
    remove_if_exists(&unfinished)?;
    let file = write_new(&unfinished, content)?;
    if durability == Durability::Synced {
        file.sync_all()?;
    }
    fs::rename(&unfinished, path)?;
    if durability == Durability::Synced {
        sync_directory(directory)?;
    }
    Ok(())
}

/// Writes a file that must not exist. Only its owner can read it.
///
/// # Errors
/// It exists, or cannot be written.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(SECRET)
        .open(path)?;
    file.write_all(content)?;
    Ok(file)
}

/// Writes a file for a container, which must not exist, with its mode and its owner and group on the node.
///
/// # Errors
/// It exists, or cannot be written.
pub fn write_owned(path: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<()> {
    let file = write_new(path, content)?;
    std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Moves a damaged file to `<name>.damaged`, in place of an earlier one. A failure is logged.
pub fn set_aside(path: &Path) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let moved = remove_if_exists(Path::new(&aside)).and_then(|()| fs::rename(path, &aside));
    if let Err(error) = moved {
        tracing::warn!(path = %path.display(), %error, "cannot set the damaged file aside");
    }
}

/// Reads a regular file of at most `limit_bytes`. Links are not followed, and FIFOs and devices are not read.
///
/// # Errors
/// The file is missing, too large, not a regular file, or cannot be read.
pub fn read_bounded(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    if file.metadata()?.len() > limit_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut content = Vec::new();
    file.take(limit_bytes).read_to_end(&mut content)?;
    Ok(content)
}

/// Makes a regular file readable by its owner only. A missing one, and anything but a regular file, is left alone.
///
/// # Errors
/// The file cannot be opened or its mode not be changed.
pub fn protect_file(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let file = open_regular(path)?;
    if file.metadata()?.permissions().mode() & 0o777 == SECRET {
        return Ok(());
    }
    file.set_permissions(fs::Permissions::from_mode(SECRET))
}

/// Sets the mode of a file or directory.
///
/// # Errors
/// It is missing, or its mode cannot be changed.
pub fn protect(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes a directory tree or a file; a missing one is no error.
///
/// # Errors
/// Something of it cannot be removed.
pub fn remove_if_exists(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_without_leftovers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        write_atomically(&path, b"one", Durability::Synced).unwrap();
        write_atomically(&path, b"two", Durability::Cached).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn trees_files_and_missing_paths_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("deep")).unwrap();
        fs::write(tree.join("deep/file"), "x").unwrap();
        remove_if_exists(&tree).unwrap();
        remove_if_exists(&tree).unwrap();
        assert!(!tree.exists());
    }
}
