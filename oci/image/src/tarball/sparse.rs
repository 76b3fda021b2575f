//! Sparse files in every format of GNU tar (GNU tar manual, "Storing Sparse Files"): its old format, and those of PAX,
//! 0.0, 0.1 and 1.0. Holes between a file's extents take no data in the archive and no blocks on the disk.

use tar::{EntryType, Header};

use crate::tarball::header::{BLOCK_BYTES, decimal, number};

/// A number's position in a header or extension block.
type Field = std::ops::Range<usize>;
/// The old format: extents in the header, and a flag for further blocks.
const IN_HEADER: Field = 386..482;
const HEADER_CONTINUES: usize = 482;
const REAL_SIZE: Field = 483..495;
const IN_BLOCK: Field = 0..504;
const BLOCK_CONTINUES: usize = 504;
/// Size of an extent's two numbers: its offset and its length.
const EXTENT_BYTES: usize = 24;

/// A part of a file with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Its offset in the file.
    pub(crate) offset: u64,
    /// Its length.
    pub(crate) bytes: u64,
}

/// The layout of a sparse file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// The file's size, holes included.
    pub(crate) bytes: u64,
    /// Ordered by offset; the rest of the file is holes.
    pub(crate) extents: Vec<Extent>,
}

/// The PAX records of a sparse file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Records {
    major: Option<u64>,
    /// The file's name; the member's own name is for programs without support for sparse files.
    pub(crate) name: Option<Vec<u8>>,
    bytes: Option<u64>,
    numbers: Vec<u64>,
}

/// The location of a sparse file's extent list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Map {
    /// The headers contain all extents.
    Known(Sparse),
    /// The old format: further blocks before the data contain more.
    InBlocks(Sparse),
    /// PAX 1.0: the data begins with them; the file has this size in bytes.
    InData(u64),
}

impl Records {
    /// Adds a record; `None` if it is malformed. `key` follows the prefix `GNU.sparse.`.
    pub(crate) fn add(&mut self, key: &str, value: &[u8]) -> Option<()> {
        match key {
            "major" => self.major = Some(decimal(value)?),
            "name" => self.name = Some(value.to_vec()),
            "size" | "realsize" => self.bytes = Some(decimal(value)?),
            "offset" | "numbytes" => self.numbers.push(decimal(value)?),
            "map" if !value.is_empty() => {
                self.numbers = value
                    .split(|byte| *byte == b',')
                    .map(decimal)
                    .collect::<Option<_>>()?;
            }
            // `minor` and `numblocks` are redundant.
            _ => {}
        }
        Some(())
    }

    fn map(self) -> Result<Map, String> {
        let bytes = self.bytes.ok_or("a sparse file has no size")?;
        match self.major {
            None | Some(0) => Ok(Map::Known(Sparse {
                bytes,
                extents: pairs(&self.numbers)?,
            })),
            Some(1) => Ok(Map::InData(bytes)),
            Some(other) => Err(format!("sparse files of version {other} are not supported")),
        }
    }
}

/// Locates a member's extent list; `None` if the member is not sparse.
pub(crate) fn map_of(header: &Header, records: Option<Records>) -> Result<Option<Map>, String> {
    if let Some(records) = records {
        return records.map().map(Some);
    }
    if header.entry_type() != EntryType::GNUSparse {
        return Ok(None);
    }
    let block = header.as_bytes();
    let mut sparse = Sparse {
        bytes: unsigned(&block[REAL_SIZE])?,
        extents: Vec::new(),
    };
    add_extents(&mut sparse, &block[IN_HEADER])?;
    Ok(Some(match block[HEADER_CONTINUES] {
        0 => Map::Known(sparse),
        _ => Map::InBlocks(sparse),
    }))
}

impl Sparse {
    /// Adds the extents of an old-format block; returns whether another block follows.
    pub(crate) fn add_block(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<bool, String> {
        add_extents(self, &block[IN_BLOCK])?;
        Ok(block[BLOCK_CONTINUES] != 0)
    }

    /// From the numbers of PAX 1.0.
    pub(crate) fn from_numbers(bytes: u64, numbers: &[u64]) -> Result<Self, String> {
        let extents = pairs(numbers)?;
        Ok(Self { bytes, extents })
    }

    /// Checks that the extents are ordered, within the file, and as long as the stored data.
    pub(crate) fn check(&self, stored_bytes: u64) -> Result<(), String> {
        let mut end = 0;
        let mut sum = 0;
        for extent in &self.extents {
            let next = extent.offset.checked_add(extent.bytes);
            let Some(next) = next.filter(|next| extent.offset >= end && *next <= self.bytes) else {
                return Err(
                    "a sparse file's extents are not in order, or beyond its size".to_owned(),
                );
            };
            end = next;
            sum += extent.bytes;
        }
        if sum == stored_bytes {
            Ok(())
        } else {
            Err(format!(
                "a sparse file's extents have {sum} bytes, and its data {stored_bytes}"
            ))
        }
    }
}

fn add_extents(sparse: &mut Sparse, fields: &[u8]) -> Result<(), String> {
    for field in fields.chunks_exact(EXTENT_BYTES) {
        // Unused slots are zero.
        if field[0] == 0 && field[12] == 0 {
            break;
        }
        sparse.extents.push(Extent {
            offset: unsigned(&field[..12])?,
            bytes: unsigned(&field[12..])?,
        });
    }
    Ok(())
}

fn unsigned(field: &[u8]) -> Result<u64, String> {
    u64::try_from(number(field, "a sparse file's extent")?)
        .map_err(|_| "a sparse file's extent is negative".to_owned())
}

fn pairs(numbers: &[u64]) -> Result<Vec<Extent>, String> {
    if !numbers.len().is_multiple_of(2) {
        return Err("a sparse file's last extent has no length".to_owned());
    }
    let extents = numbers.chunks_exact(2).map(|pair| Extent {
        offset: pair[0],
        bytes: pair[1],
    });
    Ok(extents.collect())
}

#[cfg(test)]
mod tests;
