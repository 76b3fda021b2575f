//! Files that nobody but root can have written: what a description says is done with root's privileges.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The file or directory without symbolic links, if only root can change it or put another one in its place.
///
/// # Errors
/// It cannot be examined, or somebody else can change it.
pub(super) fn check(path: &Path) -> io::Result<PathBuf> {
    let resolved = path.canonicalize()?;
    for part in resolved.ancestors() {
        let found = fs::symlink_metadata(part)?;
        // In a directory with this bit, what is root's stays as it is.
        let is_sticky = part != resolved && found.is_dir() && found.mode() & STICKY != 0;
        let is_open = found.mode() & OTHERS_WRITE != 0 && !is_sticky;
        if found.uid() != 0 || is_open {
            let problem = format!(
                "others than root can write to {}: make it root's, with the mode 755 or 644",
                part.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
    }
    Ok(resolved)
}

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;
