//! Reads a tar stream member by member, in bounded memory.

use std::io::{self, Read};

use tar::{EntryType, Header};

pub(crate) mod header;
pub(crate) mod sparse;

use self::{
    header::{BLOCK_BYTES, Extension, Member, data_bytes, decimal, is_intact},
    sparse::{Map, Sparse},
};
use crate::limits::EXTENSION_BYTES;

/// A tar stream.
#[derive(Debug)]
pub(crate) struct Tarball<R> {
    stream: R,
    /// Unread data of the current member, in bytes.
    data_left: u64,
    /// Padding after the data, in bytes.
    padding: u64,
    headers_left: u64,
    at: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Beginning,
    Within,
    /// After the final block of zeros.
    Marked,
    /// At the stream's end, without a final block.
    Unmarked,
}

/// Why reading a tar stopped.
#[derive(Debug)]
pub(crate) enum TarError {
    /// Reading the stream failed.
    Stream(io::Error),
    /// The stream ends within this part.
    Truncated(String),
    /// The stream does not begin with a tar header.
    NotTar,
    /// The reason, with the entry.
    Malformed(String),
    /// The limit of headers is exceeded.
    TooManyHeaders,
}

impl<R: Read> Tarball<R> {
    /// `headers` limits the number of headers, extension headers included.
    pub(crate) fn new(stream: R, headers: u64) -> Self {
        Self {
            stream,
            data_left: 0,
            padding: 0,
            headers_left: headers,
            at: Position::Beginning,
        }
    }

    /// The next member; unread data of the current one is skipped.
    pub(crate) fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        let mut extension = Extension::default();
        let mut extended_bytes = 0;
        loop {
            self.skip_rest()?;
            let Some(header) = self.next_header()? else {
                return Ok(None);
            };
            match header.entry_type() {
                EntryType::XHeader => extension
                    .add_records(&self.read_extension(&header, &mut extended_bytes)?)
                    .map_err(TarError::Malformed)?,
                EntryType::GNULongName => {
                    extension.set_path(&self.read_extension(&header, &mut extended_bytes)?);
                }
                EntryType::GNULongLink => {
                    extension.set_link(&self.read_extension(&header, &mut extended_bytes)?);
                }
                // Comments, such as git's, have no effect on the members.
                EntryType::XGlobalHeader => {
                    self.read_extension(&header, &mut extended_bytes)?;
                }
                _ => {
                    return self.member(&header, extension).map(Some);
                }
            }
        }
    }

    fn member(&mut self, header: &Header, extension: Extension) -> Result<Member, TarError> {
        let records = extension.sparse.clone();
        let map = sparse::map_of(header, records).map_err(TarError::Malformed)?;
        // Only a regular file can have holes.
        let mut member = Member::new(header, extension).map_err(TarError::Malformed)?;
        let Some(map) = map.filter(|_| member.kind == EntryType::Regular) else {
            self.begin_data(member.size);
            return Ok(member);
        };
        let shown = member.shown();
        let in_entry = |problem: String| TarError::Malformed(format!("entry {shown:?}: {problem}"));
        let read = self.read_map(map, &mut member.size);
        let sparse = read.map_err(|error| match error {
            TarError::Malformed(problem) => in_entry(problem),
            other => other,
        })?;
        sparse.check(member.size).map_err(in_entry)?;
        member.sparse = Some(sparse);
        Ok(member)
    }

    /// Reads the map that precedes a sparse file's data, and subtracts it from `size`.
    fn read_map(&mut self, map: Map, size: &mut u64) -> Result<Sparse, TarError> {
        match map {
            Map::Known(sparse) => {
                self.begin_data(*size);
                Ok(sparse)
            }
            Map::InBlocks(mut sparse) => {
                let mut blocks = 0;
                while sparse
                    .add_block(&self.map_block(&mut blocks)?)
                    .map_err(TarError::Malformed)?
                {}
                self.begin_data(*size);
                Ok(sparse)
            }
            Map::InData(bytes) => {
                let mut lines = Lines::default();
                let mut blocks = 0;
                while !lines.is_whole() {
                    lines.add(&self.map_block(&mut blocks)?)?;
                }
                *size = size
                    .checked_sub(blocks * BLOCK_BYTES as u64)
                    .ok_or_else(Lines::malformed)?;
                self.begin_data(*size);
                Sparse::from_numbers(bytes, &lines.numbers[1..]).map_err(TarError::Malformed)
            }
        }
    }

    /// Reads the next block of an extent list. The number of blocks is limited.
    fn map_block(&mut self, blocks: &mut u64) -> Result<[u8; BLOCK_BYTES], TarError> {
        *blocks += 1;
        if *blocks * BLOCK_BYTES as u64 > EXTENSION_BYTES {
            let problem = format!("its list of extents exceeds {EXTENSION_BYTES} bytes");
            return Err(TarError::Malformed(problem));
        }
        let mut block = [0; BLOCK_BYTES];
        match self.fill(&mut block)? {
            BLOCK_BYTES => Ok(block),
            _ => Err(TarError::Truncated("an entry's list of extents".to_owned())),
        }
    }

    /// Reads the current member's data; returns 0 at its end.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let wanted = usize::try_from(self.data_left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.read_some(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(TarError::Truncated("an entry's data".to_owned()));
        }
        self.data_left -= read as u64;
        Ok(read)
    }

    /// Whether the tar ended with a block of zeros; otherwise it may be truncated.
    pub(crate) fn is_end_marked(&self) -> bool {
        self.at == Position::Marked
    }

    /// The rest of the stream.
    pub(crate) fn into_stream(self) -> R {
        self.stream
    }

    fn next_header(&mut self) -> Result<Option<Header>, TarError> {
        if matches!(self.at, Position::Marked | Position::Unmarked) {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        match self.fill(block)? {
            BLOCK_BYTES => {}
            0 if self.at == Position::Beginning => return Err(TarError::NotTar),
            0 => {
                self.at = Position::Unmarked;
                return Ok(None);
            }
            _ if self.at == Position::Beginning => return Err(TarError::NotTar),
            _ => return Err(TarError::Truncated("an entry's header".to_owned())),
        }
        if block.iter().all(|byte| *byte == 0) {
            self.at = Position::Marked;
            return Ok(None);
        }
        if !is_intact(block) {
            return Err(match self.at {
                Position::Beginning => TarError::NotTar,
                _ => TarError::Malformed("an entry's header has a wrong checksum".to_owned()),
            });
        }
        self.at = Position::Within;
        self.headers_left = self
            .headers_left
            .checked_sub(1)
            .ok_or(TarError::TooManyHeaders)?;
        Ok(Some(header))
    }

    fn begin_data(&mut self, bytes: u64) {
        let block = BLOCK_BYTES as u64;
        self.data_left = bytes;
        self.padding = (block - bytes % block) % block;
    }

    fn read_extension(&mut self, header: &Header, sum: &mut u64) -> Result<Vec<u8>, TarError> {
        let bytes = data_bytes(header, None).map_err(TarError::Malformed)?;
        *sum = sum.saturating_add(bytes);
        if *sum > EXTENSION_BYTES {
            let problem = format!("an entry's header extensions exceed {EXTENSION_BYTES} bytes");
            return Err(TarError::Malformed(problem));
        }
        self.begin_data(bytes);
        // Bounded above, so it fits.
        let mut content = vec![0; bytes as usize];
        if self.fill(&mut content)? < content.len() {
            return Err(TarError::Truncated("an entry's header".to_owned()));
        }
        self.data_left = 0;
        Ok(content)
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        if self.skip(self.data_left)? > 0 {
            return Err(TarError::Truncated("an entry's data".to_owned()));
        }
        // umoci 0.4 omits the padding after the last entry's data.
        if self.skip(self.padding)? > 0 {
            self.at = Position::Unmarked;
        }
        (self.data_left, self.padding) = (0, 0);
        Ok(())
    }

    /// Skips so many bytes; returns how many were missing.
    fn skip(&mut self, mut bytes: u64) -> Result<u64, TarError> {
        let mut buffer = [0; 8192];
        while bytes > 0 {
            let wanted =
                usize::try_from(bytes).map_or(buffer.len(), |bytes| bytes.min(buffer.len()));
            match self.read_some(&mut buffer[..wanted])? {
                0 => break,
                read => bytes -= read as u64,
            }
        }
        Ok(bytes)
    }

    /// Fills the buffer, or reads to the stream's end.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_some(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(TarError::Stream),
            }
        }
    }
}

/// PAX 1.0's extent list: decimal numbers, one per line; the first is the number of pairs that follow.
#[derive(Debug, Default)]
struct Lines {
    numbers: Vec<u64>,
    rest: Vec<u8>,
}

impl Lines {
    fn is_whole(&self) -> bool {
        let wanted = self
            .numbers
            .first()
            .and_then(|pairs| pairs.checked_mul(2)?.checked_add(1));
        wanted.is_some_and(|wanted| self.numbers.len() as u64 >= wanted)
    }

    fn add(&mut self, block: &[u8]) -> Result<(), TarError> {
        for byte in block {
            match byte {
                // What is left of the last block is padding.
                _ if self.is_whole() => return Ok(()),
                b'\n' => {
                    let number = decimal(&self.rest).ok_or_else(Self::malformed)?;
                    self.numbers.push(number);
                    self.rest.clear();
                }
                digit => self.rest.push(*digit),
            }
        }
        Ok(())
    }

    fn malformed() -> TarError {
        TarError::Malformed("its list of extents is malformed".to_owned())
    }
}

#[cfg(test)]
mod tests;
