//! The process title of a supervisor, which names its container. The title is set after the start, by overwriting an
//! argument that reserves the space (`/proc/<pid>/cmdline`, proc_pid_cmdline(5)).

use std::{
    fs::File,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
    sync::OnceLock,
};

use procfs::{FromRead, process::Stat};

use crate::sys;

/// Maximum length. Of a longer path, the end is shown.
const TITLE_BYTES: usize = 256;

/// Where the arguments of a process that has a title are in its memory.
static ARGUMENTS: OnceLock<(u64, u64)> = OnceLock::new();

/// Replaces all arguments by a name, in a fork of the process that has a title.
pub(crate) fn replace(name: &str) {
    if let Some((start, end)) = ARGUMENTS.get() {
        sys::overwrite_arguments((*start, *end), name.as_bytes());
    }
}

/// The argument that reserves the space of a [`Title`]: blanks.
pub(crate) fn placeholder() -> String {
    " ".repeat(TITLE_BYTES)
}

/// The reserved space of this process.
pub(crate) struct Title {
    memory: File,
    position: u64,
}

impl Title {
    /// None if there is no space or it cannot be written.
    pub(crate) fn find() -> Option<Self> {
        let has_space = std::env::args_os().next_back()? == *placeholder();
        let stat = Stat::from_file("/proc/self/stat").ok()?;
        // A NUL byte follows it.
        let position = stat.arg_end?.checked_sub(TITLE_BYTES as u64 + 1)?;
        if has_space {
            ARGUMENTS.set((stat.arg_start?, stat.arg_end?)).ok();
        }
        let memory = File::options().write(true).open("/proc/self/mem").ok()?;
        has_space.then_some(Self { memory, position })
    }

    /// Sets the title.
    pub(crate) fn set(self, path: &Path) {
        // The title is cosmetic.
        self.memory.write_all_at(&shown(path), self.position).ok();
    }
}

fn shown(path: &Path) -> [u8; TITLE_BYTES] {
    let path = path.as_os_str().as_bytes();
    let end = &path[path.len().saturating_sub(TITLE_BYTES)..];
    let mut text = [0; TITLE_BYTES];
    text[..end.len()].copy_from_slice(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_title_fits_the_reserved_space() {
        let text = shown(Path::new("/a/hello-1"));
        assert!(text.starts_with(b"/a/hello-1\0") && text.ends_with(b"\0"));
        let long = "x".repeat(TITLE_BYTES) + "/hello-1";
        assert_eq!(shown(Path::new(&long)), long.as_bytes()[8..]);
        assert_eq!(placeholder().len(), TITLE_BYTES);
    }

    #[test]
    fn a_program_without_reserved_space_sets_no_title() {
        assert!(Title::find().is_none());
    }
}
