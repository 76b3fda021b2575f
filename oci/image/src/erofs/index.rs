//! Writes a tree after the files' data: first all inodes, then the content of directories and symbolic links, in the
//! same order.

use std::io;

use super::{
    format::{
        self, BLOCK_BYTES, Dirent, Inode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG,
        SLOT_BYTES,
    },
    output::Output,
};
use crate::{
    layer::{
        tree::{Content, Id, Node, ROOT, Tree},
        xattrs::{IMPLIED, MARK},
    },
    seal::FileSeal,
};

/// The root's inode number; 0 is not a valid one.
const ROOT_NUMBER: u16 = 1;

/// Why a tree was not written.
#[derive(Debug)]
pub(super) enum Failure {
    Write(io::Error),
    /// The attributes of one file exceed the format's limit.
    Attributes,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Writes the tree and finishes the image.
pub(super) fn write(tree: &Tree, mut output: Output) -> Result<FileSeal, Failure> {
    output.fill_block()?;
    let first_block = output.block()?;
    let plan = Plan::new(tree)?;
    let mut next_block = u64::from(first_block) + plan.bytes.div_ceil(BLOCK_BYTES);
    output.put(&[0; SLOT_BYTES as usize * ROOT_NUMBER as usize])?;
    let mut bytes = Vec::new();
    for (serial, (id, parent)) in plan.order.iter().enumerate() {
        let node = tree.node(*id);
        let mut inode = plan.inode(node, serial);
        if let Some(own_bytes) = plan.own_bytes(node, *id, *parent) {
            inode.bytes = own_bytes;
            inode.start_or_device = block_number(next_block)?;
            next_block += own_bytes.div_ceil(BLOCK_BYTES);
        }
        bytes.clear();
        let xattrs = plan.xattrs(node, *id).ok_or(Failure::Attributes)?;
        format::inode(&inode, &xattrs, &mut bytes);
        output.put(&bytes)?;
    }
    for (id, parent) in &plan.order {
        plan.put_own(tree.node(*id), *id, *parent, &mut output)?;
    }
    output.fill_block()?;
    let inodes = plan.order.len() as u64;
    let head = format::head(inodes, ROOT_NUMBER, output.block()?, first_block);
    Ok(output.finish(&head)?)
}

fn block_number(block: u64) -> io::Result<u32> {
    u32::try_from(block).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// The position of every inode.
struct Plan<'a> {
    tree: &'a Tree,
    root_mark: String,
    /// The reachable nodes, each once, with the directory in which each was found first.
    order: Vec<(Id, Id)>,
    /// Inode numbers by id; 0 for removed nodes.
    numbers: Vec<u32>,
    /// Bytes of all inodes.
    bytes: u64,
}

impl<'a> Plan<'a> {
    fn new(tree: &'a Tree) -> Result<Self, Failure> {
        let mut plan = Self {
            tree,
            root_mark: tree.root_mark().to_string(),
            order: Vec::new(),
            numbers: vec![0; tree.len()],
            bytes: SLOT_BYTES * u64::from(ROOT_NUMBER),
        };
        let mut next = vec![(ROOT, ROOT)];
        while let Some((id, parent)) = next.pop() {
            // A file with several names.
            if plan.numbers[id as usize] != 0 {
                continue;
            }
            let node = tree.node(id);
            plan.numbers[id as usize] = block_number(plan.bytes / SLOT_BYTES)?;
            let xattrs = plan.xattrs(node, id).ok_or(Failure::Attributes)?;
            plan.bytes += format::inode_bytes(xattrs.len());
            plan.order.push((id, parent));
            if let Content::Directory { children, .. } = &node.content {
                next.extend(children.values().rev().map(|child| (*child, id)));
            }
        }
        Ok(plan)
    }

    /// The attributes of a node, with the mark of the root or of an implied directory.
    fn xattrs(&self, node: &Node, id: Id) -> Option<Vec<u8>> {
        match id {
            ROOT => xattrs(node, Some(self.root_mark.as_bytes())),
            _ => xattrs(node, node.is_implied.then_some(IMPLIED)),
        }
    }

    fn inode(&self, node: &Node, serial: usize) -> Inode {
        let (bytes, start_or_device) = match &node.content {
            Content::File(data) => (data.bytes, data.block),
            Content::CharDevice(major, minor) | Content::BlockDevice(major, minor) => {
                (0, format::device_number((*major, *minor)))
            }
            _ => (0, 0),
        };
        let links = match &node.content {
            // Its own name, `.`, and `..` of each subdirectory.
            Content::Directory { children, .. } => {
                let is_directory =
                    |id: &&Id| matches!(self.tree.node(**id).content, Content::Directory { .. });
                2 + children.values().filter(is_directory).count() as u32
            }
            _ => node.links,
        };
        Inode {
            mode: mode(node),
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime,
            links,
            bytes,
            start_or_device,
            serial: serial as u32 + 1,
        }
    }

    /// The sorted entries of a directory, including `.` and `..`.
    fn entries(
        &self,
        children: impl Iterator<Item = (&'a [u8], Id)>,
        id: Id,
        parent: Id,
    ) -> Vec<Dirent<'a>> {
        let own: [(&[u8], Id); 2] = [(b".", id), (b"..", parent)];
        let mut entries: Vec<_> = own
            .into_iter()
            .chain(children)
            .map(|(name, id)| Dirent {
                name,
                inode: u64::from(self.numbers[id as usize]),
                mode: mode(self.tree.node(id)),
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.name);
        entries
    }

    fn entries_of(&self, node: &'a Node, id: Id, parent: Id) -> Option<Vec<Dirent<'a>>> {
        let Content::Directory { children, .. } = &node.content else {
            return None;
        };
        let children = children.iter().map(|(name, id)| (&name[..], *id));
        Some(self.entries(children, id, parent))
    }

    /// Bytes of this node's content after the inodes; `None` if it has none there.
    fn own_bytes(&self, node: &'a Node, id: Id, parent: Id) -> Option<u64> {
        match &node.content {
            Content::Symlink(target) => Some(target.len() as u64),
            _ => Some(format::directory_bytes(&self.entries_of(node, id, parent)?)),
        }
    }

    fn put_own(&self, node: &'a Node, id: Id, parent: Id, output: &mut Output) -> io::Result<()> {
        if let Content::Symlink(target) = &node.content {
            output.fill_block()?;
            return output.put(target);
        }
        let Some(entries) = self.entries_of(node, id, parent) else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        for (block, _) in format::split_directory(&entries) {
            bytes.clear();
            format::directory_block(block, &mut bytes);
            output.fill_block()?;
            output.put(&bytes)?;
        }
        Ok(())
    }
}

fn mode(node: &Node) -> u16 {
    let kind = match node.content {
        Content::Directory { .. } => S_IFDIR,
        Content::File(_) => S_IFREG,
        Content::Symlink(_) => return S_IFLNK | 0o777,
        Content::CharDevice(..) => S_IFCHR,
        Content::BlockDevice(..) => S_IFBLK,
        Content::Fifo => S_IFIFO,
    };
    // Permissions have 12 bits.
    kind | (node.mode & 0o7777) as u16
}

fn xattrs(node: &Node, mark: Option<&[u8]>) -> Option<Vec<u8>> {
    let is_opaque = matches!(
        node.content,
        Content::Directory {
            is_opaque: true,
            ..
        }
    );
    let opaque = is_opaque.then_some(("trusted.overlay.opaque", &b"y"[..]));
    let mark = mark.map(|mark| (MARK, mark));
    let own = node
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_str(), &value[..]));
    format::xattrs(opaque.into_iter().chain(mark).chain(own))
}
