//! A layer's outline: the files that decide what a container can start. It is small, so that a store can keep it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use oci_spec::image::Digest;

/// Files whose content is part of an outline.
pub(crate) const PATHS_WITH_CONTENT: [&str; 2] = ["etc/passwd", "etc/group"];

/// The executable files, links, and hidden paths of a layer.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    items: BTreeMap<Box<[u8]>, Item>,
    is_root_opaque: bool,
    high_ids: u64,
}

/// A path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A directory that hides the content of the lower layers.
    OpaqueDirectory,
    Symlink(Box<[u8]>),
    /// An executable file with its first bytes, or a file with its content.
    File {
        mode: u32,
        bytes: Box<[u8]>,
    },
    /// A whiteout.
    Hidden,
    /// Neither a file, a link nor a directory.
    Special,
}

impl Outline {
    /// `high_ids` is the number of entries with an owner or group above 65535.
    pub(crate) fn new(is_root_opaque: bool, high_ids: u64) -> Self {
        Self {
            items: BTreeMap::new(),
            is_root_opaque,
            high_ids,
        }
    }

    pub(crate) fn insert(&mut self, path: &[u8], item: Item) {
        self.items.insert(path.into(), item);
    }

    /// What the layer says of a path; `None` if the lower layers decide.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Item> {
        if let Some(item) = self.items.get(path) {
            return Some(item);
        }
        // A file in place of a parent directory hides everything below it, and an opaque one the lower layers.
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let hides = slashes
            .map(|(at, _)| &path[..at])
            .any(|parent| self.items.contains_key(parent));
        (hides || self.is_root_opaque).then_some(&Item::Hidden)
    }

    /// The number of entries with an owner or group above 65535.
    pub(crate) fn high_ids(&self) -> u64 {
        self.high_ids
    }

    /// Roughly the memory that the outline takes.
    pub(crate) fn bytes(&self) -> usize {
        #[expect(clippy::borrowed_box, reason = "the keys of the map")]
        let size = |(path, item): (&Box<[u8]>, &Item)| {
            let own = match item {
                Item::Symlink(bytes) | Item::File { bytes, .. } => bytes.len(),
                _ => 0,
            };
            80 + path.len() + own
        };
        self.items.iter().map(size).sum()
    }
}

/// Outlines of layers by their diff-ids, within a limit of memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outlines(Arc<Mutex<HashMap<Digest, Arc<Outline>>>>);

/// Most memory of all outlines together.
const OUTLINES_BYTES: usize = 64 << 20;

impl Outlines {
    pub(crate) fn get(&self, diff_id: &Digest) -> Option<Arc<Outline>> {
        self.lock().get(diff_id).cloned()
    }

    /// Keeps an outline, in place of others if the limit requires it.
    pub(crate) fn insert(&self, diff_id: &Digest, outline: Arc<Outline>) {
        let mut outlines = self.lock();
        let mut bytes = outline.bytes();
        outlines.retain(|_, kept| {
            bytes += kept.bytes();
            bytes <= OUTLINES_BYTES
        });
        outlines.insert(diff_id.clone(), outline);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Outline>>> {
        // Each change is a single step, so a panic leaves a consistent map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
