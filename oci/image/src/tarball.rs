//! Reads a tar from a stream, one member after the other, in bounded memory.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::{
    header::{BLOCK_BYTES, Extension, Member, data_bytes, decimal, is_intact},
    limits::EXTENSION_BYTES,
    sparse::{self, Map, Sparse},
};

/// A tar that is read member by member.
#[derive(Debug)]
pub(crate) struct Tarball<R> {
    stream: R,
    /// Data of the current member that was not read yet, in bytes.
    data_left: u64,
    /// What fills its last block, in bytes.
    padding: u64,
    headers_left: u64,
    at: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Beginning,
    Within,
    /// After the block of zeros that ends it.
    Marked,
    /// At the stream's end, without such a block.
    Unmarked,
}

/// Why a tar cannot be read on.
#[derive(Debug)]
pub(crate) enum TarError {
    /// The stream's own trouble.
    Stream(io::Error),
    /// The stream ends within this.
    Truncated(String),
    /// It does not even begin as a tar.
    NotTar,
    /// What is wrong, and in which entry.
    Malformed(String),
    /// More headers than allowed.
    TooManyHeaders,
}

impl<R: Read> Tarball<R> {
    /// `headers` bounds how many are read, those that extend others included.
    pub(crate) fn new(stream: R, headers: u64) -> Self {
        Self {
            stream,
            data_left: 0,
            padding: 0,
            headers_left: headers,
            at: Position::Beginning,
        }
    }

    /// The next member; what is left of the current one's data is passed over.
    pub(crate) fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        let mut extension = Extension::default();
        let mut extended_bytes = 0;
        loop {
            self.pass_over_rest()?;
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
                // Comments, such as git's: of no consequence for what is unpacked.
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
        // Only a file can have holes.
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

    /// Reads what precedes a sparse file's data of `size` bytes; the map itself is no part of it then.
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

    /// The next of the blocks that tell of extents, which are bounded in number.
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

    /// Reads the current member's data; 0 at its end.
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

    /// Whether the tar had its end marked: if not, more may have been meant to come.
    pub(crate) fn is_end_marked(&self) -> bool {
        self.at == Position::Marked
    }

    /// The stream, for what follows.
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

    fn pass_over_rest(&mut self) -> Result<(), TarError> {
        if self.skip(self.data_left)? > 0 {
            return Err(TarError::Truncated("an entry's data".to_owned()));
        }
        // umoci 0.4 ends its layers with the last entry's data, without filling its block.
        if self.skip(self.padding)? > 0 {
            self.at = Position::Unmarked;
        }
        (self.data_left, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads so many bytes away; how many of them were not there.
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

    /// Reads as much as there is, up to the buffer's length.
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

/// PAX 1.0's list of extents: decimal numbers, one a line; the first says how many pairs follow.
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
mod tests {
    use super::*;
    use tucano_image_builder::{Compression, Entry, Layer};

    fn tar(entries: &[Entry]) -> Vec<u8> {
        Layer::new(entries, Compression::None).unwrap().blob
    }

    fn paths(tar: &[u8], headers: u64) -> Result<Vec<String>, TarError> {
        let mut tarball = Tarball::new(tar, headers);
        let mut paths = Vec::new();
        while let Some(member) = tarball.next_member()? {
            paths.push(member.shown());
        }
        Ok(paths)
    }

    #[test]
    fn members_come_in_order_and_unread_data_is_passed_over() {
        let long = "x".repeat(300);
        let tar = tar(&[
            Entry::directory("d/"),
            Entry::file("d/f", vec![1; 1000]),
            Entry::file(&long, ""),
        ]);
        assert_eq!(paths(&tar, 9).unwrap(), ["d/", "d/f", &long]);
    }

    #[test]
    fn data_is_read_to_its_end_and_not_further() {
        let tar = tar(&[Entry::file("a", "abc"), Entry::file("b", "")]);
        let mut tarball = Tarball::new(&tar[..], 9);
        tarball.next_member().unwrap();
        let mut buffer = [0; 10];
        assert_eq!(tarball.read_data(&mut buffer).unwrap(), 3);
        assert_eq!(tarball.read_data(&mut buffer).unwrap(), 0);
        assert_eq!(tarball.next_member().unwrap().unwrap().path, b"b");
        assert!(tarball.next_member().unwrap().is_none());
        assert!(tarball.is_end_marked());
    }

    #[test]
    fn every_cut_is_noticed() {
        let tar = tar(&[Entry::file("a", "abc"), Entry::file("b", vec![7; 600])]);
        let end_of_data = 512 + 512 + 512 + 1024;
        for length in 0..end_of_data {
            let mut tarball = Tarball::new(&tar[..length], 9);
            let result: Result<Vec<_>, _> =
                std::iter::from_fn(|| tarball.next_member().transpose()).collect();
            assert!(
                result.is_err() || !tarball.is_end_marked(),
                "cut at {length}"
            );
        }
    }

    #[test]
    fn a_tar_may_end_with_the_last_entrys_data() {
        let whole = tar(&[Entry::file("a", "abc")]);
        for length in [512 + 3, 512 + 100, 1024] {
            let mut tarball = Tarball::new(&whole[..length], 9);
            assert!(tarball.next_member().unwrap().is_some());
            assert!(tarball.next_member().unwrap().is_none());
            assert!(!tarball.is_end_marked());
        }
        assert!(matches!(
            paths(&whole[..512 + 2], 9),
            Err(TarError::Truncated(_))
        ));
    }

    #[test]
    fn headers_are_bounded_in_number_and_size() {
        let tar_of_two = tar(&[Entry::file("a", ""), Entry::file("b", "")]);
        assert!(paths(&tar_of_two, 2).is_ok());
        assert!(matches!(
            paths(&tar_of_two, 1),
            Err(TarError::TooManyHeaders)
        ));
        let big = tar(&[Entry::file("a", "").pax("comment", vec![b'x'; 2 << 20])]);
        assert!(
            matches!(paths(&big, 9), Err(TarError::Malformed(text)) if text.contains("exceed"))
        );
    }

    #[test]
    fn what_is_no_tar_is_told_from_a_broken_one() {
        assert!(matches!(paths(b"", 9), Err(TarError::NotTar)));
        assert!(matches!(paths(&[1; 2000], 9), Err(TarError::NotTar)));
        let mut broken = tar(&[Entry::file("a", ""), Entry::file("b", "")]);
        broken[512] ^= 1;
        assert!(matches!(paths(&broken, 9), Err(TarError::Malformed(_))));
    }
}
