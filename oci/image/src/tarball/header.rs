//! The headers of tar: POSIX ustar and PAX (pax(1p)), and GNU's long names (tar(5)).
//!
//! Parses bytes that the caller has read and limited.

use tar::{EntryType, Header};

use crate::tarball::sparse::{Records, Sparse};

/// The size of a tar block.
pub(crate) const BLOCK_BYTES: usize = 512;

/// A number's position in the header.
type Field = std::ops::Range<usize>;
const MODE: Field = 100..108;
const UID: Field = 108..116;
const GID: Field = 116..124;
const SIZE: Field = 124..136;
const MTIME: Field = 136..148;
const CHECKSUM: Field = 148..156;
const DEVICE_MAJOR: Field = 329..337;
const DEVICE_MINOR: Field = 337..345;

const XATTR_RECORD: &str = "SCHILY.xattr.";
const SPARSE_RECORD: &str = "GNU.sparse.";

/// A member of a tar: its header with all extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The raw path.
    pub(crate) path: Vec<u8>,
    /// A link's raw target.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryType,
    /// Permissions, with setuid, setgid and sticky bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Size of the data in the archive.
    pub(crate) size: u64,
    /// The extents of a sparse file.
    pub(crate) sparse: Option<Sparse>,
    pub(crate) mtime: Time,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
}

/// Seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// The extension headers of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(String, Vec<u8>)>,
    pub(crate) sparse: Option<Records>,
}

impl Extension {
    /// GNU's long name.
    pub(crate) fn set_path(&mut self, name: &[u8]) {
        self.path = Some(until_nul(name).to_vec());
    }

    /// GNU's long link target.
    pub(crate) fn set_link(&mut self, name: &[u8]) {
        self.link = Some(until_nul(name).to_vec());
    }

    /// PAX records of the form `length key=value\n`.
    pub(crate) fn add_records(&mut self, mut records: &[u8]) -> Result<(), String> {
        while !records.is_empty() {
            let (key, value, rest) = split_record(records)
                .ok_or("a PAX record is not of the form `length key=value`")?;
            self.add_record(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn add_record(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let bad = || format!("the PAX record {key} is not valid");
        match key {
            _ if key.starts_with(SPARSE_RECORD) => self
                .sparse
                .get_or_insert_default()
                .add(&key[SPARSE_RECORD.len()..], value)
                .ok_or_else(bad)?,
            // An empty value removes an earlier record.
            _ if value.is_empty() && !key.starts_with(XATTR_RECORD) => {}
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(decimal(value).ok_or_else(bad)?),
            "uid" => self.uid = Some(decimal(value).ok_or_else(bad)?),
            "gid" => self.gid = Some(decimal(value).ok_or_else(bad)?),
            "mtime" => self.mtime = Some(Time::parse(value).ok_or_else(bad)?),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_RECORD) {
                    self.xattrs.push((name.to_owned(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

impl Member {
    /// The member of a header and its extensions.
    pub(crate) fn new(header: &Header, extension: Extension) -> Result<Self, String> {
        let bytes = header.as_bytes();
        let path = extension
            .sparse
            .and_then(|sparse| sparse.name)
            .or(extension.path)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let shown = || String::from_utf8_lossy(&path).into_owned();
        let in_entry = |problem: String| format!("entry {:?}: {problem}", shown());
        let number = |field: Field, name: &str| number(&bytes[field], name).map_err(in_entry);
        let kind = kind_of(header.entry_type(), &path).map_err(in_entry)?;
        let id = |set: Option<u64>, field: Field, name: &str| {
            let value = set.map_or_else(|| number(field, name), |set| Ok(set.cast_signed()))?;
            // The kernel interprets the highest id as "unchanged".
            u32::try_from(value)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| in_entry(format!("{name} {value} is out of range")))
        };
        let device = if matches!(kind, EntryType::Char | EntryType::Block) {
            let part = |field: Field, name: &str, most: u32| {
                u32::try_from(number(field, name)?)
                    .ok()
                    .filter(|part| *part <= most)
                    .ok_or_else(|| in_entry(format!("{name} is out of range")))
            };
            // Linux has 12 and 20 bits for them.
            (
                part(DEVICE_MAJOR, "device major", 0xfff)?,
                part(DEVICE_MINOR, "device minor", 0xf_ffff)?,
            )
        } else {
            (0, 0)
        };
        Ok(Self {
            mode: (number(MODE, "mode")? & 0o7777) as u32,
            uid: id(extension.uid, UID, "uid")?,
            gid: id(extension.gid, GID, "gid")?,
            size: if kind == EntryType::Regular {
                data_bytes(header, extension.size)?
            } else {
                0
            },
            mtime: match extension.mtime {
                Some(time) => time,
                None => Time {
                    seconds: number(MTIME, "mtime")?,
                    nanoseconds: 0,
                },
            },
            link: extension
                .link
                .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
                .unwrap_or_default(),
            xattrs: extension.xattrs,
            device,
            kind,
            path,
            sparse: None,
        })
    }

    /// A regular file of root.
    pub(crate) fn file(bytes: u64) -> Self {
        Self {
            path: Vec::new(),
            link: Vec::new(),
            kind: EntryType::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: bytes,
            sparse: None,
            mtime: Time::default(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// Size of the file including holes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.sparse
            .as_ref()
            .map_or(self.size, |sparse| sparse.bytes)
    }

    /// The path as text.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// Size of the data after a header.
pub(crate) fn data_bytes(header: &Header, extension: Option<u64>) -> Result<u64, String> {
    if let Some(size) = extension {
        return Ok(size);
    }
    let size = number(&header.as_bytes()[SIZE], "size")?;
    u64::try_from(size).map_err(|_| "a size is negative".to_owned())
}

/// Whether the header's checksum is right.
pub(crate) fn is_intact(block: &[u8; BLOCK_BYTES]) -> bool {
    let spaced = |(at, byte): (usize, &u8)| match CHECKSUM.contains(&at) {
        true => b' ',
        false => *byte,
    };
    let bytes = || block.iter().enumerate().map(spaced);
    let sum: i64 = bytes().map(i64::from).sum();
    // Some old programs add up signed bytes.
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    number(&block[CHECKSUM], "checksum").is_ok_and(|it| it == sum || it == signed)
}

/// Maps equivalent types to one.
fn kind_of(kind: EntryType, path: &[u8]) -> Result<EntryType, String> {
    match kind {
        // The oldest tars have no type for directories (tar(5)).
        EntryType::Regular if path.ends_with(b"/") => Ok(EntryType::Directory),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Ok(EntryType::Regular),
        EntryType::Link
        | EntryType::Symlink
        | EntryType::Char
        | EntryType::Block
        | EntryType::Directory
        | EntryType::Fifo => Ok(kind),
        other => Err(format!(
            "type {:?} is not supported",
            char::from(other.as_byte())
        )),
    }
}

impl Time {
    /// PAX times: seconds with a fraction.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = whole.parse().ok()?;
        if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
        let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        if whole.starts_with('-') && nanoseconds > 0 {
            let seconds = seconds.checked_sub(1)?;
            return Some(Self {
                seconds,
                nanoseconds: 1_000_000_000 - nanoseconds,
            });
        }
        Some(Self {
            seconds,
            nanoseconds,
        })
    }
}

/// A number in a header: octal digits, or base 256 if the first bit is set (tar(5)). An empty field is 0.
pub(crate) fn number(field: &[u8], name: &str) -> Result<i64, String> {
    let bad = || format!("{name} is not a number");
    let Some(first) = field.first().filter(|first| **first & 0x80 != 0) else {
        let text = std::str::from_utf8(until_nul(field))
            .map_err(|_| bad())?
            .trim();
        return if text.is_empty() {
            Ok(0)
        } else {
            i64::from_str_radix(text, 8)
                .ok()
                .filter(|value| *value >= 0)
                .ok_or_else(bad)
        };
    };
    // Two's complement without the first bit; the second one is the sign.
    let sign = i128::from(first & 0x40 != 0);
    let top = i128::from(first & 0x3f) - (sign << 6);
    let value = field[1..].iter().try_fold(top, |sum, byte| {
        sum.checked_mul(256)?.checked_add(i128::from(*byte))
    });
    value
        .and_then(|value| i64::try_from(value).ok())
        .ok_or_else(bad)
}

fn split_record(records: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let key = std::str::from_utf8(&record[..equals]).ok()?;
    Some((key, &record[equals + 1..], &records[length..]))
}

/// Parses digits without a sign.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits
        .bytes()
        .all(|digit| digit.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
