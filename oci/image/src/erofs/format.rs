//! EROFS's on-disk format (Linux, `fs/erofs/erofs_fs.h`): superblock, extended inodes, extended attributes and directory
//! blocks. All numbers are little-endian.
//!
//! Blocks have 512 bytes, the minimum, so that small files waste little. Files, links and directories are flat: one run
//! of blocks each.

use crate::tarball::header::Time;

/// The block size as a power of two.
const BLOCK_BITS: u8 = 9;
/// The block size. The kernel supports blocks this small since 6.4.
pub(super) const BLOCK_BYTES: u64 = 1 << BLOCK_BITS;
/// Inodes begin at multiples of this; their numbers count these slots.
pub(super) const SLOT_BYTES: u64 = 32;
/// Size of an extended inode.
const INODE_BYTES: u64 = 64;
/// Size of the head with the superblock; data begins after it.
pub(super) const HEAD_BYTES: usize = 4096;
const SUPERBLOCK_AT: usize = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;
/// An inode's format: bit 0 means extended, layout 0 means flat.
const EXTENDED_FLAT: u16 = 1;
const XATTR_HEADER_BYTES: usize = 12;
const XATTR_ENTRY_BYTES: usize = 4;
const DIRENT_BYTES: usize = 12;

/// File types in modes (inode(7)).
pub(super) const S_IFIFO: u16 = 0o010_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;

/// An inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inode {
    /// File type and permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) links: u32,
    /// Bytes of its data.
    pub(super) bytes: u64,
    /// The first block of its data, or its device number.
    pub(super) start_or_device: u32,
    /// A 32-bit inode number for old programs.
    pub(super) serial: u32,
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dirent<'a> {
    pub(super) name: &'a [u8],
    /// Its inode number.
    pub(super) inode: u64,
    /// Its inode's mode.
    pub(super) mode: u16,
}

/// The head of a file system of `blocks` blocks; the root's inode is within the first 2 MiB of the inodes.
pub(super) fn head(
    inodes: u64,
    root: u16,
    blocks: u32,
    first_inode_block: u32,
) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        let at = SUPERBLOCK_AT + at;
        head[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &MAGIC.to_le_bytes());
    put(12, &[BLOCK_BITS]);
    put(14, &root.to_le_bytes());
    put(16, &inodes.to_le_bytes());
    put(36, &blocks.to_le_bytes());
    put(40, &first_inode_block.to_le_bytes());
    head
}

/// Bytes of an inode with attributes of this size, up to the next slot.
pub(super) fn inode_bytes(xattrs_bytes: usize) -> u64 {
    (INODE_BYTES + xattrs_bytes as u64).next_multiple_of(SLOT_BYTES)
}

/// Encodes an inode with its attributes, which [`xattrs`] has encoded.
pub(super) fn inode(inode: &Inode, xattrs: &[u8], into: &mut Vec<u8>) {
    let begin = into.len();
    let count = match xattrs.len().checked_sub(XATTR_HEADER_BYTES) {
        // One stands for the header.
        Some(bytes) => (bytes / 4 + 1) as u16,
        None => 0,
    };
    for field in [EXTENDED_FLAT, count, inode.mode, 0] {
        into.extend(field.to_le_bytes());
    }
    into.extend(inode.bytes.to_le_bytes());
    for field in [inode.start_or_device, inode.serial, inode.uid, inode.gid] {
        into.extend(field.to_le_bytes());
    }
    into.extend(inode.mtime.seconds.to_le_bytes());
    into.extend(inode.mtime.nanoseconds.to_le_bytes());
    into.extend(inode.links.to_le_bytes());
    into.extend([0; 16]);
    into.extend_from_slice(xattrs);
    into.resize(begin + inode_bytes(xattrs.len()) as usize, 0);
}

/// Encodes the attributes of an inode; empty if there are none. `None` if a name has an unknown prefix, or if they are
/// too large together.
pub(super) fn xattrs<'a>(attributes: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, value) in attributes {
        if bytes.is_empty() {
            bytes.resize(XATTR_HEADER_BYTES, 0);
        }
        let (index, suffix) = xattr_index(name)?;
        bytes.push(u8::try_from(suffix.len()).ok()?);
        bytes.push(index);
        bytes.extend(u16::try_from(value.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(suffix.as_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(XATTR_ENTRY_BYTES), 0);
    }
    (bytes.len() / 4 < usize::from(u16::MAX)).then_some(bytes)
}

/// The number of a name's prefix, and the rest of the name.
fn xattr_index(name: &str) -> Option<(u8, &str)> {
    [(1, "user."), (4, "trusted."), (6, "security.")]
        .into_iter()
        .find_map(|(index, prefix)| Some((index, name.strip_prefix(prefix)?)))
}

/// Splits a directory's entries, sorted by name and including `.` and `..`, into blocks, each with its size in bytes.
pub(super) fn split_directory<'a, 'e>(
    entries: &'e [Dirent<'a>],
) -> impl Iterator<Item = (&'e [Dirent<'a>], usize)> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|entry| {
            bytes += DIRENT_BYTES + entry.name.len();
            bytes as u64 <= BLOCK_BYTES
        });
        let (block, after) = rest.split_at(fitting.count());
        rest = after;
        let names: usize = block.iter().map(|entry| entry.name.len()).sum();
        (!block.is_empty()).then_some((block, DIRENT_BYTES * block.len() + names))
    })
}

/// A directory's size: all blocks but the last are full.
pub(super) fn directory_bytes(entries: &[Dirent<'_>]) -> u64 {
    let (blocks, last) =
        split_directory(entries).fold((0, 0), |(blocks, _), (_, bytes)| (blocks + 1, bytes));
    (blocks as u64).saturating_sub(1) * BLOCK_BYTES + last as u64
}

/// Encodes one block of a directory, without padding.
pub(super) fn directory_block(entries: &[Dirent<'_>], into: &mut Vec<u8>) {
    let mut name_at = DIRENT_BYTES * entries.len();
    for entry in entries {
        into.extend(entry.inode.to_le_bytes());
        into.extend((name_at as u16).to_le_bytes());
        into.extend([kind_number(entry.mode), 0]);
        name_at += entry.name.len();
    }
    for entry in entries {
        into.extend_from_slice(entry.name);
    }
}

/// The file type in directory entries (`linux/fs_types.h`).
fn kind_number(mode: u16) -> u8 {
    match mode & 0o170_000 {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFLNK => 7,
        _ => 0,
    }
}

/// A device number in the kernel's on-disk encoding (`new_encode_dev`).
pub(super) fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

#[cfg(test)]
mod tests;
