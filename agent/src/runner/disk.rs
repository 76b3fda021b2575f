//! Disk usage of a process. Not every file system has quotas, so usage is measured periodically, and a process that exceeds its
//! limit is killed.
//!
//! Not counted: an unlinked file whose only descriptor is in flight in a socket (SCM_RIGHTS), since the kernel does not list those.
//! Their number is limited by the process's RLIMIT_NOFILE (unix(7), ETOOMANYREFS).

mod unlinked;

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::events::{Event, EventSender};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat},
    io::Errno,
};

/// The pause after a measurement is this many times its duration: a process with a million files is measured less often.
const PAUSE_FACTOR: u32 = 20;
/// Longest pause that a slow measurement causes.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Charged for each file beside its content: otherwise a million empty ones would be free.
const ENTRY_BYTES: u64 = 4096;
/// Deepest nesting of directories; anything deeper counts as exceeding the limit.
const MAX_DEPTH: usize = 256;
/// Unit of `st_blocks`, stat(2).
const BLOCK_BYTES: u64 = 512;

/// Measures the container with this home directory, at most every `interval`, and sends each change.
pub(super) async fn measure(home: PathBuf, interval: Duration, events: EventSender) {
    let mut last = None;
    let mut round = 0;
    loop {
        let (started, home) = (Instant::now(), home.clone());
        let measured = tokio::task::spawn_blocking(move || {
            let linked = linked_bytes(&home.join("upper"))?;
            Ok::<_, Errno>(linked.saturating_add(unlinked::bytes(&home, round)))
        });
        match measured.await {
            Ok(Ok(bytes)) if last != Some(bytes) => {
                last = Some(bytes);
                events.send(Event::DiskUsed(bytes)).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(id = %events.id, %error, "cannot measure the disk usage");
            }
            Ok(Ok(_)) | Err(_) => {}
        }
        round += 1;
        tokio::time::sleep(pause(interval, started.elapsed())).await;
    }
}

/// The pause after a measurement that took `elapsed`. It is capped: a process that makes measurements slow must not gain time to
/// fill the disk.
fn pause(interval: Duration, elapsed: Duration) -> Duration {
    interval.max((elapsed * PAUSE_FACTOR).min(MAX_PAUSE))
}

/// Disk usage of a directory tree in bytes. A hostile process may rename files meanwhile, so every name is resolved relative to
/// its directory's descriptor, and no link is followed.
fn linked_bytes(upper: &Path) -> Result<u64, Errno> {
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
        // Removed meanwhile.
        let Ok(stat) = statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        bytes = bytes.saturating_add(disk_usage(&stat));
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            continue;
        }
        match open_directory(&*directory, name) {
            Ok(_) if open.len() == MAX_DEPTH => return Ok(u64::MAX),
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

/// Disk usage of one name of a file: a file with several names counts once in sum.
fn disk_usage(stat: &Stat) -> u64 {
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    let names = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1,
        _ => stat.st_nlink.max(1),
    };
    blocks.saturating_mul(BLOCK_BYTES) / names + ENTRY_BYTES
}

#[cfg(test)]
mod tests;
