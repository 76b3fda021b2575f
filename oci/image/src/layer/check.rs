//! Checks a layer without unpacking it: its entries build the same tree in memory as an unpacked layer, with the same
//! errors. The result is the layer's outline, which answers what a container would find in it.

use std::collections::HashMap;

use oci_spec::image::Digest;
use tar::EntryType;

use super::{
    Change, Data, Entry, Sink,
    tree::{Content, Id, Node, Tree},
};
use crate::{
    error::{Error, entry_error},
    limits::{INDEXED_ENTRIES, Limits},
    outline::{Item, Outline, PATHS_WITH_CONTENT},
    tarball::header::Member,
};

/// The first bytes of an executable file, enough for an ELF header or the first line of a script.
const HEAD_BYTES: usize = 128;
/// Largest captured file.
const CONTENT_BYTES: usize = 1 << 20;

/// Builds a layer's tree and nothing else.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    layer: &'a Digest,
    limits: &'a Limits,
    /// `None` after the layer has exceeded the limits of a tree. Such a layer becomes directories on the nodes.
    tree: Option<Tree>,
    heads: HashMap<Id, Vec<u8>>,
    contents: HashMap<Id, Vec<u8>>,
    high_ids: u64,
}

/// Ids up to this one exist in a container.
const MAPPED_IDS: u32 = 65_535;

/// Bytes of files, by file.
type Bytes = HashMap<Id, Vec<u8>>;

impl<'a> Check<'a> {
    pub(crate) fn new(layer: &'a Digest, limits: &'a Limits) -> Self {
        Self {
            layer,
            limits,
            tree: Some(Tree::new()),
            heads: HashMap::new(),
            contents: HashMap::new(),
            high_ids: 0,
        }
    }

    /// The outline of the checked layer; `None` if the layer was too large for one.
    pub(crate) fn outline(self) -> Option<Outline> {
        let tree = self.tree?;
        let mut outline = Outline::new(tree.is_root_opaque(), self.high_ids);
        tree.for_each(&mut |path, node, id| {
            let bytes = self.contents.get(&id).or_else(|| self.heads.get(&id));
            if let Some(item) = item(node, bytes) {
                outline.insert(path, item);
            }
        });
        Some(outline)
    }

    fn file(
        tree: &mut Tree,
        path: &[u8],
        member: &Member,
        data: &mut Data<'_>,
        (heads, contents): (&mut Bytes, &mut Bytes),
        failed: impl FnOnce(rustix::io::Errno) -> Error,
    ) -> Result<(), Error> {
        let id = tree.file(path, member).map_err(failed)?;
        if member.sparse.is_some() {
            if member.mode & 0o111 != 0 {
                heads.insert(id, Vec::new());
            }
            return Ok(());
        }
        if PATHS_WITH_CONTENT
            .iter()
            .any(|known| known.as_bytes() == path)
        {
            contents.insert(id, read_up_to(CONTENT_BYTES + 1, data)?);
        } else if member.mode & 0o111 != 0 {
            heads.insert(id, read_up_to(HEAD_BYTES, data)?);
        }
        Ok(())
    }
}

impl Sink for Check<'_> {
    fn entry(&mut self, entry: &Entry, data: &mut Data<'_>) -> Result<(), Error> {
        let path = &entry.path;
        if let Change::Make(member) = &entry.change {
            self.high_ids += u64::from(member.uid.max(member.gid) > MAPPED_IDS);
        }
        let Some(tree) = &mut self.tree else {
            return Ok(());
        };
        if tree.len() >= INDEXED_ENTRIES || tree.bytes() > self.limits.layer_tree_bytes {
            self.tree = None;
            self.heads = HashMap::new();
            self.contents = HashMap::new();
            return Ok(());
        }
        let failed = |errno| entry_error(self.layer, path, errno);
        match &entry.change {
            Change::Make(member) if member.kind == EntryType::Regular => {
                let captured = (&mut self.heads, &mut self.contents);
                Self::file(tree, path, member, data, captured, failed)
            }
            Change::Make(member) => tree.make(path, member).map_err(failed),
            Change::Whiteout => tree.whiteout(path).map_err(failed),
            Change::Opaque => tree.set_opaque_at(path).map_err(failed),
        }
    }
}

fn item(node: &Node, bytes: Option<&Vec<u8>>) -> Option<Item> {
    Some(match &node.content {
        Content::Directory {
            is_opaque: true, ..
        } => Item::OpaqueDirectory,
        Content::Directory { .. } => return None,
        Content::Symlink(target) => Item::Symlink(target.clone()),
        Content::CharDevice(0, 0) => Item::Hidden,
        Content::File(_) => Item::File {
            mode: node.mode,
            bytes: bytes?.clone().into_boxed_slice(),
        },
        _ => Item::Special,
    })
}

fn read_up_to(most: usize, data: &mut Data<'_>) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; most.min(4096)];
    let mut filled = 0;
    while filled < most {
        if filled == bytes.len() {
            bytes.resize((2 * filled).min(most), 0);
        }
        match data(&mut bytes[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    bytes.shrink_to_fit();
    Ok(bytes)
}
