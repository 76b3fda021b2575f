//! Atomic files: complete or absent, and synced before they are used.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    string::FromUtf8Error,
};

use crate::Error;

/// Longest certificate or key file.
const MAX_BYTES: u64 = 1 << 20;

/// Mode of files for their owner only.
pub const PRIVATE: u32 = 0o600;
/// Mode of world-readable files.
pub(crate) const PUBLIC: u32 = 0o644;

/// Creates the directory if it is missing, for its owner only.
pub(crate) fn directory(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| failed("create", path, source))?;
    sync(path.parent().unwrap_or(path)).map_err(|source| failed("write", path, source))
}

/// The file's text; `None` if it does not exist. At most 1 MiB is read.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    let text = |bytes| String::from_utf8(bytes).map_err(|error| invalid(path, error));
    read_bytes(path)?.map(text).transpose()
}

/// As [`read`], of a file that may be damaged: what is not UTF-8 is replaced.
pub(crate) fn read_lossy(path: &Path) -> Result<Option<String>, Error> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(read_bytes(path)?.map(text))
}

fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read", path, source)),
    };
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES).read_to_end(&mut bytes);
    read.map_err(|source| failed("read", path, source))?;
    Ok(Some(bytes))
}

fn invalid(path: &Path, error: FromUtf8Error) -> Error {
    failed(
        "read",
        path,
        io::Error::new(io::ErrorKind::InvalidData, error),
    )
}

/// Renames a damaged file to `<name>.damaged`, which is replaced.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    let aside = path.with_file_name(name);
    fs::rename(path, &aside).map_err(|source| failed("rename", path, source))?;
    Ok(aside)
}

/// Replaces the file atomically: after a power loss it has the old or the new text.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    replace(path, text, mode).map_err(|source| failed("write", path, source))
}

fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let unfinished = directory.join(name);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(&unfinished)?;
    // Independent of the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync(directory)
}

/// Makes the directory's entries durable.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_atomically_with_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        // Left over by a killed process.
        fs::write(directory.path().join("key.pem.new"), "half").unwrap();
        for (text, mode) in [("one", PRIVATE), ("two", PUBLIC)] {
            write(&path, text, mode).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), text);
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                mode
            );
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(read(&directory.path().join("absent")).unwrap(), None);
    }
}
