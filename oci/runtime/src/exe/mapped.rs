//! Remaps this program's memory from another mount of its file, without executing it again.

use std::{fs::File, io};

use procfs::{FromRead, process::Stat};

use crate::sys::{self, Loaded, MemoryLayout, Segment};

/// A memory region that is mapped from this program's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    /// Page-aligned start and end.
    address: (u64, u64),
    content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// The content of the file from `offset` on.
    File { offset: u64, is_executable: bool },
    /// Modified by relocation or since.
    Changed { is_writable: bool },
}

/// How the kernel lets a process change its `exe` link.
pub(super) enum ExeChange {
    ExeFile,
    WholeMap(MemoryLayout),
}

impl ExeChange {
    /// Finds the variant that the kernel supports and permits to this process and its children.
    pub(super) fn find(program: &File) -> Option<Self> {
        // EBUSY means that only the last check failed: parts of the file are still mapped.
        let is_allowed = |result: io::Result<()>| {
            result.err().and_then(|error| error.raw_os_error()) == Some(libc::EBUSY)
        };
        if is_allowed(sys::set_exe_file(program)) {
            return Some(Self::ExeFile);
        }
        let layout = layout(&Stat::from_file("/proc/self/stat").ok()?)?;
        is_allowed(sys::set_memory_map(program, &layout)).then_some(Self::WholeMap(layout))
    }

    fn apply(&self, program: &File) -> io::Result<()> {
        match self {
            Self::ExeFile => sys::set_exe_file(program),
            Self::WholeMap(layout) => sys::set_memory_map(program, layout),
        }
    }
}

/// Makes this process look as if it had been executed from `program`, another mount of its own file: remaps the file
/// and changes `/proc/<pid>/exe`. After a failure the process still works.
pub(super) fn run_from(program: &File, change: &ExeChange) -> io::Result<()> {
    for region in own_regions() {
        match region.content {
            Content::File {
                offset,
                is_executable,
            } => sys::remap_file(program, offset, region.address, is_executable)?,
            Content::Changed { is_writable } => {
                sys::map_anonymous_copy(region.address, is_writable)?;
            }
        }
    }
    change.apply(program)
}

/// The memory layout that the kernel reports, to be set again unchanged.
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

/// Makes relocated data read-only.
pub(super) fn seal() -> io::Result<()> {
    let regions = own_regions();
    let is_sealed = |region: &&Region| region.content == Content::Changed { is_writable: false };
    let mut sealed = regions.iter().filter(is_sealed);
    sealed.try_for_each(|region| sys::make_read_only(region.address))
}

/// Regions of code and constants.
pub(crate) fn file_regions() -> Vec<(u64, u64)> {
    let mut regions = own_regions();
    regions.retain(|region| matches!(region.content, Content::File { .. }));
    regions.iter().map(|region| region.address).collect()
}

/// This program's regions.
fn own_regions() -> Vec<Region> {
    regions(&sys::loaded(), rustix::param::page_size() as u64)
}

/// Relocated read-only data (`PT_GNU_RELRO`) ends at a page boundary.
fn regions(loaded: &Loaded, page: u64) -> Vec<Region> {
    let read_only_end = loaded.relocated.1 / page * page;
    let mut regions = Vec::new();
    for segment in &loaded.segments {
        let begin = segment.address.0 / page * page;
        let end = segment.address.1.next_multiple_of(page);
        if !segment.is_writable {
            regions.push(Region {
                address: (begin, end),
                content: file_content(segment, page),
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
                regions.push(Region { address, content });
            }
        }
    }
    regions
}

fn file_content(segment: &Segment, page: u64) -> Content {
    Content::File {
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

    fn file_regions(address: (u64, u64), offset: u64, is_executable: bool) -> Region {
        let content = Content::File {
            offset,
            is_executable,
        };
        Region { address, content }
    }

    fn changed(address: (u64, u64), is_writable: bool) -> Region {
        let content = Content::Changed { is_writable };
        Region { address, content }
    }

    #[test]
    fn relro_ends_at_a_page_boundary() {
        // Layout of GNU ld: one writable segment, and constants behind the code.
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
            file_regions((0x1000, 0x2000), 0, false),
            file_regions((0x2000, 0x5000), 0x1000, true),
            file_regions((0x5000, 0x7000), 0x4000, false),
            changed((0x8000, 0xa000), false),
            changed((0xa000, 0xc000), true),
        ];
        assert_eq!(regions(&loaded, 0x1000), expected);
    }

    #[test]
    fn relro_may_be_a_segment_of_its_own() {
        // Layout of LLVM's lld.
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
            file_regions((0x1000, 0x3000), 0, false),
            file_regions((0x3000, 0x4000), 0x1000, true),
            changed((0x5000, 0x7000), false),
            changed((0x7000, 0x9000), true),
        ];
        assert_eq!(regions(&loaded, 0x1000), expected);
    }

    #[test]
    fn loaded_segments_are_mapped() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let begins: Vec<_> = maps
            .lines()
            .filter_map(|map| map.split('-').next())
            .collect();
        let regions = own_regions();
        assert!(regions.len() >= 3, "{regions:x?}");
        for region in regions {
            let begin = format!("{:x}", region.address.0);
            assert!(
                begins.iter().any(|it| it.trim_start_matches('0') == begin),
                "{region:x?}\n{maps}"
            );
        }
    }
}
