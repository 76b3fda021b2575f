//! The manifest: one line of JSON for each entry, in the order of a walk that goes through directories by sorted names, and a last
//! line with their number.

use std::io::{BufRead, Read, Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DEPTH_LIMIT, Fault};

/// Longest line. Extended attributes take most of it.
const LINE_BYTES: u64 = 1 << 20;
/// Longest name (`NAME_MAX`) and target of a link (`PATH_MAX`).
const NAME_BYTES: usize = 255;
const TARGET_BYTES: usize = 4095;

/// Any bytes; base64 in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub Vec<u8>);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(text.as_bytes());
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        String::from_utf8_lossy(&self.0).escape_debug().fmt(f)
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// A directory. Its entries follow.
    Directory,
    /// A regular file.
    File {
        /// Its length, with its holes.
        size: u64,
        /// The bytes that it takes.
        stored: u64,
    },
    /// A symbolic link.
    Symlink(Text),
    /// A named pipe.
    Fifo,
    /// The mark by which overlay file systems note a removal: a character device 0:0.
    Whiteout,
    /// Another name of an earlier entry, by its number.
    Link(u64),
}

/// One entry. The first one is the root, without a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The number of directories above it.
    pub depth: usize,
    /// Its name in its directory.
    pub name: Text,
    /// What it is.
    pub kind: Kind,
    /// Its owner, as the file system has it.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permissions.
    pub mode: u32,
    /// The time of its last modification: seconds and nanoseconds.
    pub modified: (i64, u32),
    /// Its extended attributes, ordered by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(Text, Text)>,
}

/// A line of the manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Entry(Entry),
    /// The number of entries.
    End(u64),
    /// Why there are no more.
    Error {
        message: String,
        is_lasting: bool,
    },
}

/// Writes an entry.
pub(super) fn write(to: &mut impl Write, entry: &Entry) -> std::io::Result<()> {
    write_line(to, &Line::Entry(entry.clone()))
}

/// Writes the last line of a manifest with all entries.
pub(super) fn write_end(to: &mut impl Write, entries: u64) -> std::io::Result<()> {
    write_line(to, &Line::End(entries))
}

/// Writes the last line of a manifest that is not whole.
pub(super) fn write_error(to: &mut impl Write, fault: &Fault) -> std::io::Result<()> {
    let line = Line::Error {
        message: fault.to_string(),
        is_lasting: fault.is_lasting(),
    };
    write_line(to, &line)
}

/// Writes a line of JSON.
pub(in crate::volumes) fn write_line(
    to: &mut impl Write,
    line: &impl Serialize,
) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line).map_err(std::io::Error::other)?;
    text.push(b'\n');
    to.write_all(&text)
}

/// Reads a line of JSON of bounded length.
pub(super) fn read_line<T: for<'de> Deserialize<'de>>(
    from: &mut impl BufRead,
    line: &mut Vec<u8>,
) -> Result<T, Fault> {
    line.clear();
    let mut bounded = from.take(LINE_BYTES);
    bounded.read_until(b'\n', line).map_err(Fault::stream)?;
    if line.pop() != Some(b'\n') {
        return Err(match line.len() as u64 + 1 >= LINE_BYTES {
            true => Fault::Malformed(format!("a line has more than {LINE_BYTES} bytes")),
            false => Fault::Incomplete,
        });
    }
    serde_json::from_slice(line).map_err(|error| Fault::Malformed(error.to_string()))
}

/// What a manifest may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// The number of entries.
    pub entries: u64,
    /// What they take: the size of the volume.
    pub bytes: u64,
}

/// Reads a manifest and checks every entry of it: nothing past this point has to expect a name such as `..`.
///
/// # Errors
/// The first line that is malformed, or exceeds the bounds; what the other worker says; the stream's end before the last line.
pub fn read(from: &mut impl BufRead, bounds: Bounds) -> Result<Vec<Entry>, Fault> {
    let mut checker = Checker::new(bounds);
    let mut entries: Vec<Entry> = Vec::new();
    let mut line = Vec::new();
    loop {
        match read_line(from, &mut line)? {
            Line::Entry(entry) => {
                checker.check(&entry, &entries)?;
                entries.push(entry);
            }
            Line::End(count) if count == entries.len() as u64 && count > 0 => return Ok(entries),
            Line::End(count) => {
                let present = entries.len();
                return Err(Fault::Malformed(format!(
                    "a manifest of {count} entries has {present}"
                )));
            }
            Line::Error {
                message,
                is_lasting,
            } => {
                let message: String = message.chars().take(1000).collect();
                return Err(match is_lasting {
                    true => Fault::Unsupported(message),
                    false => Fault::Refused(message),
                });
            }
        }
    }
}

/// The bytes that the entries of a manifest take.
pub fn stored_bytes(entries: &[Entry]) -> u64 {
    let stored = entries.iter().map(|entry| match entry.kind {
        Kind::File { size, stored } => stored.min(size),
        _ => 0,
    });
    stored.fold(0, u64::saturating_add)
}

struct Checker {
    bounds: Bounds,
    stored: u64,
    /// The last name at each depth, of the open directories only.
    last: Vec<Vec<u8>>,
    /// The depth that the next entry may have at most.
    open: usize,
}

impl Checker {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            stored: 0,
            last: Vec::new(),
            open: 0,
        }
    }

    fn check(&mut self, entry: &Entry, before: &[Entry]) -> Result<(), Fault> {
        let malformed = |what: &str| {
            let name = &entry.name;
            Err(Fault::Malformed(format!(
                "entry {} ({name}): {what}",
                before.len()
            )))
        };
        if before.len() as u64 >= self.bounds.entries {
            return Err(Fault::Unsupported(format!(
                "the volume has more than {} files and directories (limits.volume_entries)",
                self.bounds.entries
            )));
        }
        if before.is_empty() != (entry.depth == 0) || entry.depth > self.open {
            return malformed("it is in no directory");
        }
        if entry.depth > DEPTH_LIMIT {
            return malformed("it is too deep");
        }
        if entry.depth == 0 {
            if entry.kind != Kind::Directory || !entry.name.0.is_empty() {
                return malformed("the root is no directory");
            }
        } else if !is_name(&entry.name.0) {
            return malformed("that is no name");
        }
        self.last.truncate(entry.depth + 1);
        match self.last.get_mut(entry.depth) {
            Some(last) if *last >= entry.name.0 => return malformed("it is out of order"),
            Some(last) => last.clone_from(&entry.name.0),
            None => self.last.push(entry.name.0.clone()),
        }
        if entry.mode > 0o7777 || entry.modified.1 >= 1_000_000_000 {
            return malformed("its mode or time is invalid");
        }
        let names = entry.attributes.iter().map(|(name, _)| name);
        if !names.is_sorted_by(|a, b| a < b) || !super::attributes::are_allowed(&entry.attributes) {
            return malformed("its extended attributes are invalid");
        }
        self.open = entry.depth;
        match &entry.kind {
            Kind::Directory => self.open += 1,
            Kind::File { size, stored } => {
                self.stored = self.stored.saturating_add(*stored.min(size));
                if *size > i64::MAX.cast_unsigned() || self.stored > self.bounds.bytes {
                    return malformed("it is larger than the volume");
                }
            }
            Kind::Symlink(target) => {
                let target = &target.0;
                if target.is_empty() || target.len() > TARGET_BYTES || target.contains(&0) {
                    return malformed("its target is invalid");
                }
            }
            Kind::Link(first) => {
                let first = usize::try_from(*first).ok().and_then(|it| before.get(it));
                let linkable =
                    first.is_some_and(|it| !matches!(it.kind, Kind::Directory | Kind::Link(_)));
                if !linkable {
                    return malformed("it is another name of nothing");
                }
            }
            Kind::Fifo | Kind::Whiteout => {}
        }
        Ok(())
    }
}

fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_BYTES
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}
