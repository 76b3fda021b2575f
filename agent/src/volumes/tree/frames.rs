//! The stream of contents: for each regular file its number and size, its data without the holes, and its end.

use std::io::{Read, Write};

use super::Fault;

/// Most data in one frame.
pub const DATA_BYTES: usize = 256 << 10;
/// Longest message of an error.
const MESSAGE_BYTES: usize = 1000;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A file begins.
    File {
        /// Its number in the manifest.
        entry: u64,
        /// Its length.
        size: u64,
    },
    /// Data of that file; it is in the buffer.
    Data {
        /// Where it begins.
        offset: u64,
    },
    /// The file has no more data.
    FileEnd,
    /// There are no more files.
    End,
    /// Why there is no more.
    Error(String),
}

/// Writes a frame; `data` is of [`Frame::Data`] only.
pub(super) fn write(to: &mut impl Write, frame: &Frame, data: &[u8]) -> std::io::Result<()> {
    match frame {
        Frame::File { entry, size } => {
            to.write_all(b"F")?;
            to.write_all(&entry.to_le_bytes())?;
            to.write_all(&size.to_le_bytes())
        }
        Frame::Data { offset } => {
            let length = u32::try_from(data.len()).map_err(std::io::Error::other)?;
            to.write_all(b"D")?;
            to.write_all(&offset.to_le_bytes())?;
            to.write_all(&length.to_le_bytes())?;
            to.write_all(data)
        }
        Frame::FileEnd => to.write_all(b"E"),
        Frame::End => to.write_all(b"Z"),
        Frame::Error(message) => {
            let message: String = message.chars().take(MESSAGE_BYTES / 4).collect();
            let length = u32::try_from(message.len()).map_err(std::io::Error::other)?;
            to.write_all(b"X")?;
            to.write_all(&length.to_le_bytes())?;
            to.write_all(message.as_bytes())
        }
    }
}

/// Reads a frame; data is in `buffer` then.
pub(super) fn read(from: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Frame, Fault> {
    let [tag] = bytes(from)?;
    Ok(match tag {
        b'F' => Frame::File {
            entry: u64::from_le_bytes(bytes(from)?),
            size: u64::from_le_bytes(bytes(from)?),
        },
        b'D' => {
            let offset = u64::from_le_bytes(bytes(from)?);
            fill(from, buffer, DATA_BYTES)?;
            Frame::Data { offset }
        }
        b'E' => Frame::FileEnd,
        b'Z' => Frame::End,
        b'X' => {
            fill(from, buffer, MESSAGE_BYTES)?;
            Frame::Error(String::from_utf8_lossy(buffer).escape_debug().to_string())
        }
        tag => return Err(Fault::Malformed(format!("there is no frame {tag}"))),
    })
}

fn bytes<const N: usize>(from: &mut impl Read) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(Fault::stream)?;
    Ok(bytes)
}

fn fill(from: &mut impl Read, buffer: &mut Vec<u8>, most: usize) -> Result<(), Fault> {
    let length = u32::from_le_bytes(bytes(from)?) as usize;
    if length > most {
        return Err(Fault::Malformed(format!(
            "a frame of {length} bytes exceeds {most}"
        )));
    }
    buffer.resize(length, 0);
    from.read_exact(buffer).map_err(Fault::stream)
}
