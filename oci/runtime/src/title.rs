//! What lists of processes show of a supervisor: whose it is. It learns that when its arguments are long given, so one of them is
//! room to write it over (`/proc/<pid>/cmdline`, proc_pid_cmdline(5)).

use std::{
    fs::File,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
};

use procfs::{FromRead, process::Stat};

/// The longest that is shown. Of what is longer, the end is.
const ROOM_BYTES: usize = 256;

/// The last argument of a program that finds its [`Title`]. Blank, as long as there is none.
pub(crate) fn room() -> String {
    " ".repeat(ROOM_BYTES)
}

/// This process's room.
pub(crate) struct Title {
    memory: File,
    position: u64,
}

impl Title {
    /// None where there is none, or where it cannot be written.
    pub(crate) fn find() -> Option<Self> {
        let is_room = std::env::args_os().next_back()? == *room();
        let stat = Stat::from_file("/proc/self/stat").ok()?;
        // Behind it is the zero that ends it.
        let position = stat.arg_end?.checked_sub(ROOM_BYTES as u64 + 1)?;
        let memory = File::options().write(true).open("/proc/self/mem").ok()?;
        is_room.then_some(Self { memory, position })
    }

    /// Shows this from now on.
    pub(crate) fn set(self, path: &Path) {
        // Lists of processes alone would miss it.
        self.memory.write_all_at(&shown(path), self.position).ok();
    }
}

fn shown(path: &Path) -> [u8; ROOM_BYTES] {
    let path = path.as_os_str().as_bytes();
    let end = &path[path.len().saturating_sub(ROOM_BYTES)..];
    let mut text = [0; ROOM_BYTES];
    text[..end.len()].copy_from_slice(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_filled_and_never_left() {
        let text = shown(Path::new("/a/hello-1"));
        assert!(text.starts_with(b"/a/hello-1\0") && text.ends_with(b"\0"));
        let long = "x".repeat(ROOM_BYTES) + "/hello-1";
        assert_eq!(shown(Path::new(&long)), long.as_bytes()[8..]);
        assert_eq!(room().len(), ROOM_BYTES);
    }

    #[test]
    fn a_program_that_was_given_no_room_writes_nowhere() {
        assert!(Title::find().is_none());
    }
}
