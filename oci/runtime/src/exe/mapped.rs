//! Where this program is in memory, and how it comes to be there by another mount, without being executed again.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use procfs::{
    FromRead,
    process::{MMPermissions, MemoryMap, MemoryMaps, Stat},
};

use crate::sys::{self, MemoryLayout};

/// Has this process be one that was executed by `mount`, a descriptor of its own program's file by another mount: what is
/// mapped of the file is mapped by that mount, and `/proc/<pid>/exe` leads there. A failure leaves it able to go on, as it was
/// in all that matters. Linux 3.18, and CAP_SYS_ADMIN (since 5.9; CAP_SYS_RESOURCE before).
pub(super) fn run_from(mount: &OwnedFd) -> io::Result<()> {
    // A descriptor of a mount alone can be neither mapped nor executed from.
    let file = File::open(format!("/proc/self/fd/{}", mount.as_raw_fd()))?;
    let layout = layout(&Stat::from_file("/proc/self/stat").map_err(io::Error::other)?)?;
    let maps = own_maps()?;
    let own = of_this_program(&maps)?;
    let in_file: BTreeSet<_> = as_in_file(&own).into_iter().collect();
    for map in &own {
        let is_executable = map.perms.contains(MMPermissions::EXECUTE);
        let is_writable = map.perms.contains(MMPermissions::WRITE);
        if in_file.contains(&map.address) {
            sys::map_from(&file, map.offset, map.address, is_executable)?;
        } else {
            sys::map_from_nowhere(map.address, is_writable)?;
        }
    }
    sys::set_program(&file, &layout)
}

/// This process's mappings.
pub(crate) fn own_maps() -> io::Result<Vec<MemoryMap>> {
    let maps = MemoryMaps::from_file("/proc/self/maps").map_err(io::Error::other)?;
    Ok(maps.0)
}

/// The mappings of the file that this code is from. (Its device and inode are not always what `stat` says.)
fn of_this_program(maps: &[MemoryMap]) -> io::Result<Vec<MemoryMap>> {
    let here = run_from as *const () as u64;
    let is_here = |map: &&MemoryMap| (map.address.0..map.address.1).contains(&here);
    let code = maps.iter().find(is_here).filter(|map| map.inode != 0);
    let code = code.ok_or_else(|| io::Error::other("this program's code is not mapped"))?;
    let own = |map: &&MemoryMap| (map.dev, map.inode) == (code.dev, code.inode);
    Ok(maps.iter().filter(own).cloned().collect())
}

/// Where memory is as in a program's file: its code, and what lies before it. What lies behind may have been changed when the
/// program was loaded, read-only as it is now.
pub(crate) fn as_in_file(maps: &[MemoryMap]) -> Vec<(u64, u64)> {
    let mut executed = BTreeSet::new();
    let mut found = Vec::new();
    for map in maps.iter().filter(|map| map.inode != 0) {
        let file = (map.dev, map.inode);
        if map.perms.contains(MMPermissions::WRITE) {
            executed.insert(file);
        } else if map.perms.contains(MMPermissions::EXECUTE) {
            executed.insert(file);
            found.push(map.address);
        } else if !executed.contains(&file) {
            found.push(map.address);
        }
    }
    found
}

/// What the kernel knows of this process's memory, and is told again.
fn layout(stat: &Stat) -> io::Result<MemoryLayout> {
    let known = |value: Option<u64>| value.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
    Ok(MemoryLayout {
        start_code: stat.startcode,
        end_code: stat.endcode,
        start_data: known(stat.start_data)?,
        end_data: known(stat.end_data)?,
        start_brk: known(stat.start_brk)?,
        brk: sys::program_break(),
        start_stack: stat.startstack,
        arg_start: known(stat.arg_start)?,
        arg_end: known(stat.arg_end)?,
        env_start: known(stat.env_start)?,
        env_end: known(stat.env_end)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-3000 r--p 00000000 fe:00 7 /usr/bin/tucano_oci
3000-5000 r-xp 00002000 fe:00 7 /usr/bin/tucano_oci
5000-6000 r--p 00004000 fe:00 7 /usr/bin/tucano_oci
6000-7000 rw-p 00005000 fe:00 7 /usr/bin/tucano_oci
7000-8000 rw-p 00000000 00:00 0 [heap]
8000-9000 r-xp 00000000 00:00 0 [vdso]
";

    #[test]
    fn only_what_is_as_in_the_file_is_given_back() {
        let maps = MemoryMaps::from_read(MAPS.as_bytes()).unwrap();
        assert_eq!(as_in_file(&maps.0), [(0x1000, 0x3000), (0x3000, 0x5000)]);
    }
}
