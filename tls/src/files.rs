//! Files that are whole or not there, on the disk before anybody relies on them.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::Error;

/// No certificate or key is longer.
const MOST_BYTES: u64 = 1 << 20;

/// For its owner alone.
pub(crate) const PRIVATE: u32 = 0o600;
/// For everybody to read.
pub(crate) const PUBLIC: u32 = 0o644;

/// The directory, for its owner alone; made where it is not there.
pub(crate) fn directory(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| failed("create", path, source))?;
    sync(path.parent().unwrap_or(path)).map_err(|source| failed("write", path, source))
}

/// The file's text; nothing where it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read", path, source)),
    };
    let mut text = String::new();
    let read = file.take(MOST_BYTES).read_to_string(&mut text);
    read.map_err(|source| failed("read", path, source))?;
    Ok(Some(text))
}

/// Puts a text in place of the file: also after a loss of power there is the old or the new one.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
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
    // Whatever the umask says.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync(directory)
}

/// Makes the names in a directory survive the loss of power.
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
    fn a_file_is_replaced_whole_with_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        // What a killed one left.
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
