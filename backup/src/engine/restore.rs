//! Restoring a snapshot into an empty directory, or to standard output.
//!
//! The repository may be hostile, or damaged: every name is one component, everything is created new below a directory's
//! descriptor, and no symbolic link is ever followed, so nothing outside of the target is touched. Each piece of content is
//! compared with its id.

mod place;

use std::{
    collections::HashMap,
    io::Write,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    time::Instant,
};

use rustic_core::{
    DataId, IndexedFullStatus, TreeId,
    repofile::{BlobType, Node, NodeType, SnapshotFile},
};

use super::{
    Context,
    labels::{self, Labels},
    locks::Use,
    opened::{Opened, explain},
    seal,
};
use crate::{Class, Failure, Kind, Restore, Restored, Target};

use place::Place;

/// Restores a snapshot.
pub(super) fn restore(
    context: &Context,
    request: &Restore,
    output: &mut dyn Write,
) -> Result<Restored, Failure> {
    let start = Instant::now();
    // Before anything is read: the caller learns at once what is wrong with its target.
    let target = match &request.target {
        Target::Tree { path } => Some((place::empty_directory(path)?, path)),
        Target::Stream => None,
    };
    let opened = Opened::open(context)?;
    let _lock = match opened.lock(context, Use::Shared) {
        Ok(lock) => Some(lock),
        Err(failure) if failure.class == Class::Unreachable => {
            // One that may read only cannot lock; a restore goes before a prune that is years away.
            let detail = &failure.message;
            context
                .reporter
                .warn(&format!("the restore goes on without a lock: {detail}"));
            None
        }
        Err(failure) => return Err(failure),
    };
    let snapshot = labels::find(&opened, &request.snapshot)?;
    let repository = opened.again()?.to_indexed();
    let repository = repository.map_err(|error| explain(&opened.storage, &error))?;
    let mut restoring = Restoring {
        context,
        opened: &opened,
        repository,
        hard_links: HashMap::new(),
        result: Restored::default(),
    };
    let node = restoring.stored(&snapshot)?;
    match (target, Labels::of(&snapshot).kind) {
        (Some((target, path)), None | Some(Kind::Tree)) => {
            restoring.tree(&target, path, node)?;
            place::synchronise(&target, path)?;
        }
        (None, None | Some(Kind::Stream)) => restoring.stream(&node, output)?,
        (target, _) => {
            let (has, wanted) = match target {
                Some(_) => ("a stream", "a tree"),
                None => ("a tree", "a stream"),
            };
            let id = &request.snapshot;
            return Err(Failure::bad_request(format!(
                "the snapshot {id} is {has}, not {wanted}"
            )));
        }
    }
    let mut result = restoring.result;
    result.milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(result)
}

struct Restoring<'a> {
    context: &'a Context,
    opened: &'a Opened,
    repository: rustic_core::Repository<IndexedFullStatus>,
    /// Where the first of several hard links to a file is, by device and inode.
    hard_links: HashMap<(u64, u64), PathBuf>,
    result: Restored,
}

impl Restoring<'_> {
    /// The node of what was stored. Snapshots of restic have it at the path that it had on its host.
    fn stored(&self, snapshot: &SnapshotFile) -> Result<Node, Failure> {
        let paths: Vec<&String> = snapshot.paths.iter().collect();
        let [path] = paths[..] else {
            let message = format!(
                "the snapshot {} has {} paths, not one",
                snapshot.id,
                paths.len()
            );
            return Err(Failure::bad_request(message));
        };
        let mut node = Node {
            node_type: NodeType::Dir,
            subtree: Some(snapshot.tree),
            ..Node::default()
        };
        for component in Path::new(path).components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let nodes = self.nodes(node.subtree, Path::new(path))?;
            let found = nodes.into_iter().find(|node| *node.name() == *name);
            node = found.ok_or_else(|| self.damaged(Path::new(path), "is not in the snapshot"))?;
        }
        Ok(node)
    }

    fn nodes(&self, tree: Option<TreeId>, path: &Path) -> Result<Vec<Node>, Failure> {
        let tree = tree.ok_or_else(|| self.damaged(path, "is no directory"))?;
        let tree = self.repository.get_tree(&tree);
        let tree = tree.map_err(|error| explain(&self.opened.storage, &error))?;
        Ok(tree.nodes)
    }

    fn tree(&mut self, target: &OwnedFd, path: &Path, node: Node) -> Result<(), Failure> {
        if !node.is_dir() {
            return Err(Failure::bad_request(
                "the snapshot has a file, not a directory: restore it as a stream",
            ));
        }
        let place = Place::root(target, path)?;
        self.content(&place, &node, 0)?;
        place.finish(&node)
    }

    /// Everything in a directory.
    fn content(&mut self, place: &Place, node: &Node, depth: u32) -> Result<(), Failure> {
        if depth > self.context.request.limits.depth {
            return Err(self.damaged(place.path(), "is too deep (depth)"));
        }
        for node in self.nodes(node.subtree, place.path())? {
            self.context.caller.still_there()?;
            let name = node.name().into_owned();
            let Some(entry) = place.entry(&name) else {
                let what = format!("has the entry {name:?}, which is no name");
                return Err(self.damaged(place.path(), &what));
            };
            match &node.node_type {
                NodeType::Dir => {
                    let inner = entry.directory()?;
                    self.content(&inner, &node, depth + 1)?;
                    inner.finish(&node)?;
                    continue;
                }
                NodeType::File => self.file(place, &entry, &node)?,
                NodeType::Symlink { .. } => entry.symbolic_link(&node)?,
                NodeType::Fifo => entry.pipe(&node)?,
                NodeType::Socket => continue,
                NodeType::Dev { .. } | NodeType::Chardev { .. } => {
                    let path = entry.path().display();
                    let warning = format!("{path} is a device: it is left out");
                    self.warn(warning);
                    continue;
                }
            }
            self.result.files += 1;
            self.context.reporter.advance(1, 0);
        }
        Ok(())
    }

    fn file(
        &mut self,
        place: &Place,
        entry: &place::Entry<'_>,
        node: &Node,
    ) -> Result<(), Failure> {
        let key = (node.meta.links > 1).then_some((node.meta.device_id, node.meta.inode));
        if let Some(first) = key.and_then(|key| self.hard_links.get(&key)) {
            return entry.hard_link(place, first);
        }
        if let Some(key) = key {
            self.hard_links.insert(key, entry.inner_path());
        }
        let mut file = entry.file()?;
        for id in node.content.iter().flatten() {
            let content = self.blob(id)?;
            file.write(&content)?;
            self.advance(content.len());
        }
        file.finish(node)
    }

    fn stream(&mut self, node: &Node, output: &mut dyn Write) -> Result<(), Failure> {
        if !node.is_file() {
            return Err(Failure::bad_request(
                "the snapshot has a directory, not a file: restore it as a tree",
            ));
        }
        for id in node.content.iter().flatten() {
            let content = self.blob(id)?;
            let written = output.write_all(&content);
            written.map_err(|error| {
                Failure::new(
                    Class::Target,
                    format!("cannot write to standard output: {error}"),
                )
            })?;
            self.advance(content.len());
        }
        self.result.files = 1;
        output.flush().map_err(|error| {
            Failure::new(
                Class::Target,
                format!("cannot write to standard output: {error}"),
            )
        })
    }

    /// A piece of content.
    fn blob(&self, id: &DataId) -> Result<bytes::Bytes, Failure> {
        self.context.caller.still_there()?;
        let content = self.repository.cat_blob(BlobType::Data, &id.to_hex()[..]);
        let content = content.map_err(|error| explain(&self.opened.storage, &error))?;
        if seal::id(&content) != **id {
            let message = format!(
                "the piece {id} in {} is another one",
                self.opened.storage.location()
            );
            return Err(Failure::new(Class::Damaged, message));
        }
        Ok(content)
    }

    fn advance(&mut self, bytes: usize) {
        self.result.bytes += bytes as u64;
        self.context.reporter.advance(0, bytes as u64);
    }

    fn warn(&mut self, warning: String) {
        self.result.warnings_total += 1;
        if self.result.warnings.len() < self.context.request.limits.warnings as usize {
            self.result.warnings.push(warning);
        }
    }

    fn damaged(&self, path: &Path, what: &str) -> Failure {
        let location = self.opened.storage.location();
        let path = path.display();
        Failure::new(
            Class::Damaged,
            format!("{path} {what}: the repository {location} is damaged"),
        )
    }
}
