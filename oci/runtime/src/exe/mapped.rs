//! Where this program is in memory, and how it comes to be there by another mount, without being executed again.

use std::{fs::File, io};

use procfs::{FromRead, process::Stat};

use crate::sys::{self, Loaded, MemoryLayout, Segment};

/// A piece of memory that is mapped from this program's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// Its pages: the first byte, and the one behind the last.
    address: (u64, u64),
    content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// What the file has from `offset` on.
    AsInFile { offset: u64, is_executable: bool },
    /// Written to when the program was loaded, or since.
    Changed { is_writable: bool },
}

/// How the kernel lets a process exchange its program.
pub(super) enum Way {
    Alone,
    WithLayout(MemoryLayout),
}

impl Way {
    /// The one that the kernel has, and allows this process and its children.
    pub(super) fn find(program: &File) -> Option<Self> {
        // Whether anything of the file is still mapped is what the kernel looks at last.
        let is_allowed = |result: io::Result<()>| {
            result.err().and_then(|error| error.raw_os_error()) == Some(libc::EBUSY)
        };
        if is_allowed(sys::set_program(program)) {
            return Some(Self::Alone);
        }
        let layout = layout(&Stat::from_file("/proc/self/stat").ok()?)?;
        is_allowed(sys::set_program_and_layout(program, &layout))
            .then_some(Self::WithLayout(layout))
    }

    fn go(&self, program: &File) -> io::Result<()> {
        match self {
            Self::Alone => sys::set_program(program),
            Self::WithLayout(layout) => sys::set_program_and_layout(program, layout),
        }
    }
}

/// Has this process be one that was executed from `program`, its own program's file by another mount: what is mapped of the file is
/// mapped by that mount, and `/proc/<pid>/exe` leads there. A failure leaves it able to go on, as it was in all that matters.
pub(super) fn run_from(program: &File, way: &Way) -> io::Result<()> {
    for piece in own_pieces() {
        match piece.content {
            Content::AsInFile {
                offset,
                is_executable,
            } => sys::map_from(program, offset, piece.address, is_executable)?,
            Content::Changed { is_writable } => {
                sys::map_from_nowhere(piece.address, is_writable)?;
            }
        }
    }
    way.go(program)
}

/// What the kernel knows of this process's memory, and is told again.
fn layout(stat: &Stat) -> Option<MemoryLayout> {
    Some(MemoryLayout {
        start_code: stat.startcode,
        end_code: stat.endcode,
        start_data: stat.start_data?,
        end_data: stat.end_data?,
        start_brk: stat.start_brk?,
        brk: stat.start_brk?,
        start_stack: stat.startstack,
        arg_start: stat.arg_start?,
        arg_end: stat.arg_end?,
        env_start: stat.env_start?,
        env_end: stat.env_end?,
    })
}

/// Forbids writing to what is only read from now on.
pub(super) fn seal() -> io::Result<()> {
    let pieces = own_pieces();
    let is_sealed = |piece: &&Piece| piece.content == Content::Changed { is_writable: false };
    let mut sealed = pieces.iter().filter(is_sealed);
    sealed.try_for_each(|piece| sys::make_read_only(piece.address))
}

/// Where this program's code is, and what else is as in its file.
pub(crate) fn as_in_file() -> Vec<(u64, u64)> {
    let mut pieces = own_pieces();
    pieces.retain(|piece| matches!(piece.content, Content::AsInFile { .. }));
    pieces.iter().map(|piece| piece.address).collect()
}

/// This program's.
fn own_pieces() -> Vec<Piece> {
    pieces(&sys::loaded(), rustix::param::page_size() as u64)
}

/// What is relocated at the start and only read from then on (`PT_GNU_RELRO`) ends at a page's beginning.
fn pieces(loaded: &Loaded, page: u64) -> Vec<Piece> {
    let read_only_end = loaded.relocated.1 / page * page;
    let mut pieces = Vec::new();
    for segment in &loaded.segments {
        let begin = segment.address.0 / page * page;
        let end = segment.address.1.next_multiple_of(page);
        if !segment.is_writable {
            pieces.push(Piece {
                address: (begin, end),
                content: as_file_has(segment, page),
            });
            continue;
        }
        let writable = if begin >= loaded.relocated.0 / page * page {
            read_only_end.clamp(begin, end)
        } else {
            begin
        };
        for (address, is_writable) in [((begin, writable), false), ((writable, end), true)] {
            if address.0 < address.1 {
                let content = Content::Changed { is_writable };
                pieces.push(Piece { address, content });
            }
        }
    }
    pieces
}

fn as_file_has(segment: &Segment, page: u64) -> Content {
    Content::AsInFile {
        offset: segment.offset / page * page,
        is_executable: segment.is_executable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(address: (u64, u64), offset: u64, flags: &str) -> Segment {
        Segment {
            address,
            offset,
            is_executable: flags.contains('x'),
            is_writable: flags.contains('w'),
        }
    }

    fn as_in_file(address: (u64, u64), offset: u64, is_executable: bool) -> Piece {
        let content = Content::AsInFile {
            offset,
            is_executable,
        };
        Piece { address, content }
    }

    fn changed(address: (u64, u64), is_writable: bool) -> Piece {
        let content = Content::Changed { is_writable };
        Piece { address, content }
    }

    #[test]
    fn what_is_relocated_is_read_only_up_to_its_last_whole_page() {
        // As GNU's linker does it: one writable segment, with the other constants behind the code.
        let loaded = Loaded {
            segments: vec![
                segment((0x1000, 0x1800), 0, "r"),
                segment((0x2000, 0x4fbd), 0x1000, "rx"),
                segment((0x5000, 0x650c), 0x4000, "r"),
                segment((0x8a50, 0xb100), 0x6a50, "rw"),
            ],
            relocated: (0x8a50, 0xa800),
        };
        let expected = [
            as_in_file((0x1000, 0x2000), 0, false),
            as_in_file((0x2000, 0x5000), 0x1000, true),
            as_in_file((0x5000, 0x7000), 0x4000, false),
            changed((0x8000, 0xa000), false),
            changed((0xa000, 0xc000), true),
        ];
        assert_eq!(pieces(&loaded, 0x1000), expected);
    }

    #[test]
    fn what_is_relocated_may_be_a_segment_of_its_own() {
        // As LLVM's linker does it.
        let loaded = Loaded {
            segments: vec![
                segment((0x1000, 0x2100), 0, "r"),
                segment((0x30c0, 0x4000), 0x10c0, "rx"),
                segment((0x5ee0, 0x6af8), 0x2ee0, "rw"),
                segment((0x7af8, 0x8100), 0x3af8, "rw"),
            ],
            relocated: (0x5ee0, 0x7000),
        };
        let expected = [
            as_in_file((0x1000, 0x3000), 0, false),
            as_in_file((0x3000, 0x4000), 0x1000, true),
            changed((0x5000, 0x7000), false),
            changed((0x7000, 0x9000), true),
        ];
        assert_eq!(pieces(&loaded, 0x1000), expected);
    }

    #[test]
    fn what_is_loaded_is_mapped() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let begins: Vec<_> = maps
            .lines()
            .filter_map(|map| map.split('-').next())
            .collect();
        let pieces = own_pieces();
        assert!(pieces.len() >= 3, "{pieces:x?}");
        for piece in pieces {
            let begin = format!("{:x}", piece.address.0);
            assert!(
                begins.iter().any(|it| it.trim_start_matches('0') == begin),
                "{piece:x?}\n{maps}"
            );
        }
    }
}
