//! How much a process has written to its own file system. No quota that every file system has could refuse it more, so it
//! is measured again and again, and killed when it has exceeded its limit.
//!
//! What is not seen: a file that has no name any more and is open nowhere but under way in a socket.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::Arc,
    time::Instant,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat},
    io::Errno,
};
use tucano_oci_runtime::cgroup::Cgroup;

use super::{
    events::{Event, Teller},
    execute::Executor,
};

/// Measuring takes no more than this part of the time: a process with a million files is measured more rarely.
const PAUSE_FACTOR: u32 = 20;
/// What each file costs beside its content: otherwise a million empty ones would be free.
const ENTRY_BYTES: u64 = 4096;
/// Directories beneath each other; what is nested deeper counts as too much.
const MOST_DEPTH: usize = 256;
/// Bytes of a block in `st_blocks`, stat(2).
const BLOCK_BYTES: u64 = 512;
/// `statfs(2)` of a file in an overlay.
const OVERLAYFS: i64 = 0x794c_7630;

/// Measures until the task is ended, and tells what it finds.
pub(super) async fn watch(executor: Arc<Executor>, tell: Teller) {
    let home = executor.data.process(&tell.id).home();
    let mut last = None;
    loop {
        let (started, home) = (Instant::now(), home.clone());
        let measured = tokio::task::spawn_blocking(move || {
            let named = named(&home.join("upper"))?;
            Ok::<_, Errno>(named.saturating_add(nameless(&home)))
        });
        match measured.await {
            Ok(Ok(bytes)) if last != Some(bytes) => {
                last = Some(bytes);
                tell.tell(Event::Wrote(bytes)).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(id = %tell.id, %error, "cannot measure what it wrote");
            }
            Ok(Ok(_)) | Err(_) => {}
        }
        let pause = executor.disk_interval.max(started.elapsed() * PAUSE_FACTOR);
        tokio::time::sleep(pause).await;
    }
}

/// Bytes that everything below a directory takes. A hostile process renames in it meanwhile, so no name is resolved but
/// from its directory's descriptor, and no link is followed.
fn named(upper: &Path) -> Result<u64, Errno> {
    let mut open = vec![open_directory(CWD, upper.as_os_str())?];
    let mut bytes = 0_u64;
    while let Some((directory, entries)) = open.last_mut() {
        let Some(entry) = entries.next() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        // What is gone by now takes nothing.
        let Ok(stat) = statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        bytes = bytes.saturating_add(taken(&stat));
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            continue;
        }
        match open_directory(&*directory, name) {
            Ok(_) if open.len() == MOST_DEPTH => return Ok(u64::MAX),
            Ok(below) => open.push(below),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn open_directory(at: impl AsFd, name: &OsStr) -> Result<(OwnedFd, Dir), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(at, name, flags, Mode::empty())?;
    let entries = Dir::read_from(&directory)?;
    Ok((directory, entries))
}

/// A file of several names counts once, spread over them.
fn taken(stat: &Stat) -> u64 {
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    let names = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1,
        _ => stat.st_nlink.max(1),
    };
    blocks.saturating_mul(BLOCK_BYTES) / names + ENTRY_BYTES
}

/// Bytes of the container's files that have no name any more, and that its processes still have open.
fn nameless(home: &Path) -> u64 {
    let processes = match Cgroup::of(home) {
        Ok(Some(cgroup)) => cgroup.processes(),
        _ => return 0,
    };
    let mut seen = BTreeSet::new();
    let mut bytes = 0_u64;
    for pid in processes {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let Some(stat) = nameless_file(&descriptor.path()) else {
                continue;
            };
            if seen.insert((stat.st_dev, stat.st_ino)) {
                bytes = bytes.saturating_add(taken(&stat));
            }
        }
    }
    bytes
}

/// What is behind a descriptor, where it is a file of an overlay without a name. Nothing is read or written by looking.
fn nameless_file(descriptor: &Path) -> Option<Stat> {
    let file = openat(
        CWD,
        descriptor,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let is_ours = || rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type == OVERLAYFS);
    (is_file && stat.st_nlink == 0 && is_ours()).then_some(stat)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn files_count_by_what_they_take_and_by_being_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(named(directory.path()).unwrap(), 0);
        fs::create_dir(path("below")).unwrap();
        fs::write(path("below/file"), vec![1; 100_000]).unwrap();
        let first = named(directory.path()).unwrap();
        assert!((100_000..200_000).contains(&first), "{first}");

        fs::hard_link(path("below/file"), path("again")).unwrap();
        fs::File::create(path("sparse"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        symlink("/usr", path("link")).unwrap();
        let second = named(directory.path()).unwrap();
        assert!(second < first + 30_000, "{second} after {first}");

        for index in 0..100 {
            fs::write(path(&format!("empty-{index}")), "").unwrap();
        }
        assert!(named(directory.path()).unwrap() >= second + 100 * ENTRY_BYTES);
    }

    #[test]
    fn what_is_nested_too_deep_is_too_much() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d/".repeat(MOST_DEPTH + 1));
        fs::create_dir_all(deep).unwrap();
        assert_eq!(named(directory.path()).unwrap(), u64::MAX);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(named(&directory.path().join("gone")).is_err());
    }
}
