//! Removal of a tree whose content is hostile: as deep as its owner likes, with links to anywhere.
//!
//! Directories are opened one at a time, below the root of the tree. What is in one goes to the root before it is removed, so neither
//! the stack nor the number of descriptors grows with the depth. No link is followed, and nothing that is mounted is touched.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags, openat2, renameat_with, unlinkat},
    io::Errno,
};

/// Removes a directory with all that is in it, also what is added meanwhile. One that is not there, or that somebody else removes
/// meanwhile, is no error.
///
/// # Errors
/// Something in it cannot be removed, such as what something is mounted on.
pub(super) fn remove(parent: &Path, name: &CStr) -> io::Result<()> {
    let parent = match File::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        parent => parent?,
    };
    let root = match open(&parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        root => root?,
    };
    let mut moved = 0;
    while empty(&root, &root, &mut moved)? {}
    gone(unlinkat(&parent, name, AtFlags::REMOVEDIR))
}

/// Removes all that is in a directory, which stays.
///
/// # Errors
/// Something in it cannot be removed, such as what something is mounted on.
pub(in crate::volumes) fn clear(directory: &Path) -> io::Result<()> {
    let root = OwnedFd::from(File::open(directory)?);
    let mut moved = 0;
    while empty(&root, &root, &mut moved)? {}
    Ok(())
}

/// Removes the files in a directory, and its directories if they are in the root; others go there. Whether it had any entries.
fn empty(root: &OwnedFd, directory: &OwnedFd, moved: &mut u64) -> io::Result<bool> {
    let mut had_entries = false;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        had_entries = true;
        let removed = match unlinkat(directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_directory(root, directory, name, moved),
            removed => gone(removed),
        };
        removed.map_err(|error| {
            let name = name.to_string_lossy();
            io::Error::new(error.kind(), format!("{name}: {error}"))
        })?;
    }
    Ok(had_entries)
}

fn remove_directory(
    root: &OwnedFd,
    parent: &OwnedFd,
    name: &CStr,
    moved: &mut u64,
) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        removed => return gone(removed),
    }
    if !std::ptr::eq(root, parent) {
        return move_to(root, parent, name, moved);
    }
    let directory = match open(parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        directory => directory?,
    };
    while empty(root, &directory, moved)? {}
    gone(unlinkat(parent, name, AtFlags::REMOVEDIR))
}

/// Moves a directory to the root, with a name that nothing there has.
fn move_to(root: &OwnedFd, parent: &OwnedFd, name: &CStr, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let to = moved.to_string();
        match renameat_with(parent, name, root, to.as_str(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            moved => return gone(moved),
        }
    }
}

/// Opens a directory of another one, on the same mount.
fn open(parent: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(parent, name, flags, Mode::empty(), resolve)
}

fn gone(removed: rustix::io::Result<()>) -> io::Result<()> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        removed => Ok(removed?),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_deep_tree_with_links_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let outside = parent.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        let tree = parent.path().join("tree");
        fs::create_dir(&tree).unwrap();
        // Deeper than there are descriptors, and than a path may be long.
        let mut deepest = OwnedFd::from(File::open(&tree).unwrap());
        for _ in 0..5000 {
            rustix::fs::mkdirat(&deepest, "1", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(&outside, &deepest, "link").unwrap();
            deepest = open(&deepest, c"1").unwrap();
        }
        for number in 0..100 {
            fs::create_dir_all(tree.join(format!("wide/{number}/x"))).unwrap();
            fs::write(tree.join(format!("wide/{number}/x/file")), "").unwrap();
        }
        symlink(&outside, tree.join("link-0")).unwrap();
        remove(parent.path(), c"tree").unwrap();
        remove(parent.path(), c"tree").unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let outside = parent.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        symlink(&outside, parent.path().join("tree")).unwrap();
        assert!(remove(parent.path(), c"tree").is_err());
        assert!(outside.join("kept").exists());
    }
}
