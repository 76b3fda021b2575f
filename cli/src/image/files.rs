//! The files of an image: of a layout directory, or of a tar, which is scanned once for the offset of each.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Most files of an archive that are indexed.
const MAX_FILES: usize = 100_000;
/// Largest manifest, index or configuration that is read, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// Files by their names.
#[derive(Debug)]
pub(super) enum Files {
    Directory(PathBuf),
    Archive(HashMap<String, FileRange>),
}

/// A part of a file on disk: one blob.
#[derive(Debug, Clone)]
pub(super) struct FileRange {
    file: Arc<File>,
    from: u64,
    pub(super) bytes: u64,
}

impl Files {
    /// Indexes the files of an image. `None` where they cannot be read one by one, as in a compressed archive.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        match path.is_dir() {
            true => Ok(Some(Self::Directory(path.to_owned()))),
            false => scan(File::open(path)?),
        }
    }

    /// A file, if there is one of that name.
    pub(super) fn find(&self, name: &str) -> io::Result<Option<FileRange>> {
        match self {
            Self::Archive(files) => Ok(files.get(name).cloned()),
            Self::Directory(directory) => match File::open(directory.join(name)) {
                Ok(file) => {
                    let bytes = file.metadata()?.len();
                    let (file, from) = (Arc::new(file), 0);
                    Ok(Some(FileRange { file, from, bytes }))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// The content of a small file, if there is one of that name.
    pub(super) fn document(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self.find(name)? {
            Some(range) if range.bytes > MAX_DOCUMENT_BYTES => {
                let message = format!(
                    "{name} has {} bytes; the limit is {MAX_DOCUMENT_BYTES} bytes",
                    range.bytes
                );
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
            }
            Some(range) => Ok(Some(range.read(0, range.bytes)?)),
            None => Ok(None),
        }
    }
}

impl FileRange {
    /// A part of it.
    pub(super) fn read(&self, from: u64, length: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.from + from)?;
        Ok(bytes)
    }
}

fn scan(mut file: File) -> io::Result<Option<Files>> {
    if is_compressed(&mut file)? {
        return Ok(None);
    }
    let shared = Arc::new(file.try_clone()?);
    let mut files = HashMap::new();
    let mut archive = tar::Archive::new(file);
    // Of a malformed tar, the controller gives the better error.
    let Ok(entries) = archive.entries_with_seek() else {
        return Ok(None);
    };
    for entry in entries {
        let Ok(entry) = entry else {
            return Ok(None);
        };
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let Ok(path) = entry.path() else {
            return Ok(None);
        };
        let name = path.to_string_lossy();
        let name = name.trim_start_matches("./").to_owned();
        let range = FileRange {
            file: shared.clone(),
            from: entry.raw_file_position(),
            bytes: entry.size(),
        };
        files.insert(name, range);
        if files.len() > MAX_FILES {
            return Ok(None);
        }
    }
    Ok(Some(Files::Archive(files)))
}

/// Whether it starts with the magic number of gzip or zstd.
fn is_compressed(file: &mut File) -> io::Result<bool> {
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd])
}
