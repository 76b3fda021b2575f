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
    regions(&sys::loaded(), sys::page_size() as u64)
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
mod tests;
