//! A layer's tree in memory, built entry by entry. Its rules equal those of `unpack::writer` and `unpack::directories`,
//! which build the same tree from real files; tests compare the two.

use std::collections::BTreeMap;

use rustix::io::{Errno, Result};
use tar::EntryType;

use super::{mark::RootMark, path::split, xattrs};
use crate::{
    limits::PATH_DEPTH,
    tarball::header::{Member, Time},
};

/// A node's index in the tree.
pub(crate) type Id = u32;
/// The layer's root directory.
pub(crate) const ROOT: Id = 0;
/// Most symbolic links in one path, as in the kernel (MAXSYMLINKS).
const LINKS: u32 = 40;
const IMPLIED_MODE: u32 = 0o755;
/// Memory of a node and its place in its directory, without what is counted by its length.
const NODE_BYTES: usize = 240;
/// Memory of an attribute without its name and value.
const XATTR_BYTES: usize = 64;

/// A layer's files. Removed nodes keep their index, and no directory refers to them.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    /// Roughly the memory that all nodes take, removed ones included.
    bytes: u64,
    /// Whether the lower layers are hidden as a whole.
    is_root_opaque: bool,
    /// The directory of the previous entry, by its path: most entries lie in the same directory.
    latest: Option<(Vec<u8>, Id)>,
}

/// A file of any kind.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) content: Content,
    /// Permissions, with setuid, setgid and sticky bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// The number of its names.
    pub(crate) links: u32,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// Whether it is a directory without an entry of its own.
    pub(crate) is_implied: bool,
}

/// A node's kind and content.
#[derive(Debug)]
pub(crate) enum Content {
    Directory {
        children: BTreeMap<Box<[u8]>, Id>,
        /// Whether it hides the content of the lower layers.
        is_opaque: bool,
    },
    File(FileData),
    Symlink(Box<[u8]>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// The location of a file's data.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FileData {
    /// The first block.
    pub(crate) block: u32,
    pub(crate) bytes: u64,
}

impl Node {
    fn implied_directory() -> Self {
        Self {
            content: Content::directory(),
            mode: IMPLIED_MODE,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            links: 1,
            xattrs: Vec::new(),
            is_implied: true,
        }
    }

    /// Overlayfs's whiteout, which hides a name of the lower layers.
    fn whiteout() -> Self {
        Self {
            content: Content::CharDevice(0, 0),
            mode: 0,
            is_implied: false,
            ..Self::implied_directory()
        }
    }

    fn of(member: &Member, content: Content) -> Self {
        Self {
            content,
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
            links: 1,
            xattrs: Vec::new(),
            is_implied: false,
        }
    }

    fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory { .. })
    }

    /// Sets the attributes that have an effect in a container, in place of earlier ones of the same names.
    fn set_xattrs(&mut self, member: &Member) -> Result<()> {
        let kept = xattrs::kept(&member.xattrs)?;
        let new = |name: &str| kept.binary_search_by_key(&name, |(name, _)| name).is_ok();
        self.xattrs.retain(|(name, _)| !new(name));
        let kept = kept.into_iter();
        self.xattrs
            .extend(kept.map(|(name, value)| (name.to_owned(), value.to_vec())));
        Ok(())
    }

    /// Roughly the memory that the node takes, with its name.
    fn bytes(&self, name: &[u8]) -> u64 {
        let target = match &self.content {
            Content::Symlink(target) => target.len(),
            _ => 0,
        };
        let xattrs: usize = self
            .xattrs
            .iter()
            .map(|(name, value)| XATTR_BYTES + name.len() + value.len())
            .sum();
        (NODE_BYTES + name.len() + target + xattrs) as u64
    }
}

impl Content {
    fn directory() -> Self {
        Self::Directory {
            children: BTreeMap::new(),
            is_opaque: false,
        }
    }
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Node::implied_directory()],
            bytes: 0,
            is_root_opaque: false,
            latest: None,
        }
    }

    /// The node of an id of this tree.
    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// The number of nodes, removed ones included.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Roughly the memory that the tree takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the layer hides all lower layers.
    pub(crate) fn is_root_opaque(&self) -> bool {
        self.is_root_opaque
    }

    /// What the layer's root is marked with.
    pub(crate) fn root_mark(&self) -> RootMark {
        let implied = self.nodes[1..].iter().filter(|node| node.is_implied);
        RootMark {
            is_implied: self.node(ROOT).is_implied,
            is_opaque: self.is_root_opaque,
            implied_directories: implied.count() as u64,
        }
    }

    /// Calls `visit` with the path and the node of everything in the tree.
    pub(crate) fn for_each(&self, visit: &mut dyn FnMut(&[u8], &Node, Id)) {
        let mut next = vec![(ROOT, Vec::new())];
        while let Some((id, path)) = next.pop() {
            let node = self.node(id);
            visit(&path, node, id);
            let Content::Directory { children, .. } = &node.content else {
                continue;
            };
            for (name, child) in children {
                let mut path = path.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                next.push((*child, path));
            }
        }
    }

    /// Adds an entry without data.
    pub(crate) fn make(&mut self, path: &[u8], member: &Member) -> Result<()> {
        let content = match member.kind {
            EntryType::Directory => return self.directory(path, member),
            EntryType::Link => return self.hard_link(path, &member.link),
            EntryType::Symlink => Content::Symlink(member.link.clone().into_boxed_slice()),
            EntryType::Char => Content::CharDevice(member.device.0, member.device.1),
            EntryType::Block => Content::BlockDevice(member.device.0, member.device.1),
            _ => Content::Fifo,
        };
        self.replace(path, Node::of(member, content)).map(drop)
    }

    /// Adds a file; [`Tree::set_data`] sets its data.
    pub(crate) fn file(&mut self, path: &[u8], member: &Member) -> Result<Id> {
        let mut node = Node::of(member, Content::File(FileData::default()));
        node.set_xattrs(member)?;
        self.replace(path, node)
    }

    /// Sets the location of a file's data.
    pub(crate) fn set_data(&mut self, id: Id, data: FileData) {
        self.nodes[id as usize].content = Content::File(data);
    }

    /// Hides this name of the lower layers; an entry of this layer stays.
    pub(crate) fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        if self.is_hidden(parent) {
            return Ok(());
        }
        let parent = self.directory_at(parent)?;
        match self.child(parent, name) {
            Some(id) if self.node(id).is_directory() => self.set_opaque_at(path),
            Some(_) => Ok(()),
            None => self.add(parent, name, Node::whiteout()).map(drop),
        }
    }

    /// Hides the content of the lower layers in this directory.
    pub(crate) fn set_opaque_at(&mut self, path: &[u8]) -> Result<()> {
        if path.is_empty() {
            // Overlayfs always merges the roots: the lower layers are left out instead.
            self.is_root_opaque = true;
            return Ok(());
        }
        let directory = self.directory_at(path)?;
        if let Content::Directory { is_opaque, .. } = &mut self.nodes[directory as usize].content {
            *is_opaque = true;
        }
        Ok(())
    }

    /// Whether a whiteout of this layer hides a directory of the lower layers, so that nothing is left to hide in it.
    fn is_hidden(&self, path: &[u8]) -> bool {
        let mut directory = ROOT;
        for name in path.split(|byte| *byte == b'/') {
            let Some(id) = self.child(directory, name) else {
                return false;
            };
            if matches!(self.node(id).content, Content::CharDevice(0, 0)) {
                return true;
            }
            directory = id;
        }
        false
    }

    fn directory(&mut self, path: &[u8], member: &Member) -> Result<()> {
        let mut id = ROOT;
        if !path.is_empty() {
            let (parent, name) = split(path);
            let parent = self.directory_at(parent)?;
            match self.child(parent, name) {
                Some(known) if !self.node(known).is_directory() => {
                    self.remove(parent, name)?;
                    // The removed entry hid the lower layers' directory of this name; this directory must hide it too.
                    self.set_opaque_at(path)?;
                }
                Some(_) => {}
                None => drop(self.add(parent, name, Node::implied_directory())?),
            }
            id = self.directory_at(path)?;
        }
        let node = &mut self.nodes[id as usize];
        (node.mode, node.mtime) = (member.mode, member.mtime);
        (node.uid, node.gid) = (member.uid, member.gid);
        node.is_implied = false;
        node.set_xattrs(member)?;
        self.bytes += node.bytes(&[]);
        Ok(())
    }

    /// The link's target is looked up in this layer, without following symbolic links.
    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        self.find_file(target)?;
        let (parent, name) = split(path);
        let parent = self.directory_at(parent)?;
        if self.child(parent, name).is_some() {
            self.remove(parent, name)?;
        }
        // Removing an entry may have removed the target.
        let id = self.find_file(target)?;
        self.nodes[id as usize].links += 1;
        self.bytes += (NODE_BYTES + name.len()) as u64;
        self.link(parent, name, id)
    }

    fn find_file(&self, path: &[u8]) -> Result<Id> {
        let (parent, name) = split(path);
        let parent = self.walk(parent)?;
        match self.child(parent, name) {
            None => Err(Errno::NOENT),
            Some(id) if self.node(id).is_directory() => Err(Errno::ISDIR),
            Some(id) => Ok(id),
        }
    }

    fn replace(&mut self, path: &[u8], node: Node) -> Result<Id> {
        let (parent, name) = split(path);
        let parent = self.directory_at(parent)?;
        if self.child(parent, name).is_some() {
            self.remove(parent, name)?;
        }
        self.add(parent, name, node)
    }

    fn child(&self, directory: Id, name: &[u8]) -> Option<Id> {
        match &self.node(directory).content {
            Content::Directory { children, .. } => children.get(name).copied(),
            _ => None,
        }
    }

    fn add(&mut self, directory: Id, name: &[u8], node: Node) -> Result<Id> {
        let id = Id::try_from(self.nodes.len()).map_err(|_| Errno::NOSPC)?;
        self.bytes += node.bytes(name);
        self.nodes.push(node);
        self.link(directory, name, id)?;
        Ok(id)
    }

    fn link(&mut self, directory: Id, name: &[u8], id: Id) -> Result<()> {
        match &mut self.nodes[directory as usize].content {
            Content::Directory { children, .. } => {
                children.insert(name.into(), id);
                Ok(())
            }
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Removes a name, and a directory's content with it.
    fn remove(&mut self, directory: Id, name: &[u8]) -> Result<()> {
        self.latest = None;
        let Content::Directory { children, .. } = &mut self.nodes[directory as usize].content
        else {
            return Err(Errno::NOTDIR);
        };
        let mut gone: Vec<Id> = children.remove(name).into_iter().collect();
        while let Some(id) = gone.pop() {
            let node = &mut self.nodes[id as usize];
            node.links -= 1;
            if let Content::Directory { children, .. } = &mut node.content {
                gone.extend(std::mem::take(children).into_values());
            }
        }
        Ok(())
    }

    /// The directory at `path`; missing directories are created.
    fn directory_at(&mut self, path: &[u8]) -> Result<Id> {
        if path.is_empty() {
            return Ok(ROOT);
        }
        if let Some((_, id)) = self.latest.as_ref().filter(|(latest, _)| latest == path) {
            return Ok(*id);
        }
        let id = match self.walk(path) {
            Ok(id) => id,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_directory(path)?,
            // A symbolic link of this layer is followed within it, as tar does.
            Err(Errno::LOOP) => match self.follow(path) {
                Ok((id, depth)) if depth <= PATH_DEPTH => id,
                Ok(_) => return Err(Errno::NAMETOOLONG),
                // The last name may be missing in the directory behind a link.
                Err(Errno::NOENT) => self.make_directory(path)?,
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        self.latest = Some((path.to_vec(), id));
        Ok(id)
    }

    fn make_directory(&mut self, path: &[u8]) -> Result<Id> {
        let (parent, name) = split(path);
        let parent = self.directory_at(parent)?;
        let mut node = Node::implied_directory();
        match self.child(parent, name) {
            None => {}
            Some(id) if matches!(self.node(id).content, Content::CharDevice(0, 0)) => {
                self.remove(parent, name)?;
                // The lower layers' directory of this name is gone, with its mode and owner.
                node.is_implied = false;
                if let Content::Directory { is_opaque, .. } = &mut node.content {
                    *is_opaque = true;
                }
            }
            Some(_) => return Err(Errno::NOTDIR),
        }
        self.add(parent, name, node)
    }

    /// An existing directory, without following links.
    fn walk(&self, path: &[u8]) -> Result<Id> {
        let names = path.split(|byte| *byte == b'/');
        names
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |directory, name| {
                let id = self.child(directory, name).ok_or(Errno::NOENT)?;
                match self.node(id).content {
                    Content::Directory { .. } => Ok(id),
                    Content::Symlink(_) => Err(Errno::LOOP),
                    _ => Err(Errno::NOTDIR),
                }
            })
    }

    /// An existing directory, with symbolic links followed within the layer; and its depth.
    fn follow(&self, path: &[u8]) -> Result<(Id, usize)> {
        let mut above = vec![ROOT];
        let mut names = Vec::new();
        push_names(&mut names, path);
        let mut links = 0;
        while let Some(name) = names.pop() {
            let here = *above.last().unwrap_or(&ROOT);
            if name == b".." {
                above.truncate(above.len().saturating_sub(1).max(1));
                continue;
            }
            let id = self.child(here, name).ok_or(Errno::NOENT)?;
            match &self.node(id).content {
                Content::Directory { .. } => above.push(id),
                Content::Symlink(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    if target.starts_with(b"/") {
                        above.truncate(1);
                    }
                    push_names(&mut names, target);
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
        Ok((*above.last().unwrap_or(&ROOT), above.len() - 1))
    }
}

/// Prepends a path's names to the names that are still to be walked, which are in reverse order.
fn push_names<'a>(names: &mut Vec<&'a [u8]>, path: &'a [u8]) {
    let parts = path.split(|byte| *byte == b'/');
    let mut own: Vec<&[u8]> = parts.filter(|name| !matches!(*name, b"" | b".")).collect();
    own.reverse();
    names.append(&mut own);
}
