//! Hostile repositories. An attacker who has the password can make them.

use std::{fs, os::unix::fs::symlink, sync::Arc};

use rustic_core::{
    SnapshotOptions,
    repofile::{Metadata, Node, NodeType},
};

use super::{Context, Opened, restore};
use crate::{
    Class, Failure, Init, Limits, Operation, Repository, Request, Restore, Restored, Secret,
    Target,
    engine::{
        control::{Caller, Reporter},
        opened::initialise,
        pack::save_tree,
    },
};

struct Hostile {
    directory: tempfile::TempDir,
    context: Context,
    opened: Opened,
}

impl Hostile {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("target")).expect("a directory");
        fs::create_dir(directory.path().join("outside")).expect("a directory");
        let limits = Limits::default();
        let reporter = Reporter::new(Box::new(std::io::sink()), &limits);
        let context = Context {
            request: Request {
                repository: Repository {
                    location: format!("file://{}/repository", directory.path().display()),
                    password: Secret::new("password"),
                    expected_id: None,
                    s3: None,
                },
                operation: Operation::Init(Init {}),
                limits,
            },
            caller: Arc::<Caller>::default(),
            reporter,
        };
        initialise(&context).expect("a repository");
        let opened = Opened::open(&context).expect("it opens");
        Self {
            directory,
            context,
            opened,
        }
    }

    fn directory(&self, name: &str, nodes: Vec<Node>) -> Node {
        let tree = save_tree(&self.opened.storage, &self.opened.seal, nodes).expect("a tree");
        Node {
            subtree: Some(tree),
            ..node(name, NodeType::Dir)
        }
    }

    /// Restores a snapshot of these nodes.
    fn restore(&self, nodes: Vec<Node>) -> Result<Restored, Failure> {
        let root = self.directory("data", nodes);
        let tree = save_tree(&self.opened.storage, &self.opened.seal, vec![root]).expect("a tree");
        let mut snapshot = SnapshotOptions::default()
            .to_snapshot()
            .expect("a snapshot");
        snapshot.tree = tree;
        snapshot.paths.add("/data".to_owned());
        self.opened
            .repository
            .save_snapshots(vec![snapshot])
            .expect("saved");
        let target = Target::Tree {
            path: self.directory.path().join("target"),
        };
        let snapshot = self.opened.backend.saved().expect("an id");
        restore(
            &self.context,
            &Restore { snapshot, target },
            &mut std::io::sink(),
        )
    }

    fn outside(&self) -> Node {
        let target = self.directory.path().join("outside");
        node("link", NodeType::from_link(&target))
    }

    fn nothing_is_outside(&self) {
        let outside = fs::read_dir(self.directory.path().join("outside"));
        assert_eq!(outside.expect("a directory").count(), 0);
        let entries = fs::read_dir(self.directory.path()).expect("a directory");
        assert_eq!(entries.count(), 3, "target, outside, repository");
    }
}

fn node(name: &str, kind: NodeType) -> Node {
    let mut node = Node::new_node("x".as_ref(), kind, Metadata::default());
    name.clone_into(&mut node.name);
    node
}

fn file(name: &str) -> Node {
    Node {
        content: Some(Vec::new()),
        ..node(name, NodeType::File)
    }
}

#[test]
fn names_stay_in_their_directory() {
    // The last one is a slash as the format writes odd bytes.
    for name in [
        "..",
        ".",
        "",
        "../outside/file",
        "/etc/file",
        "a/b",
        "nul\0",
        "\\x2fetc",
    ] {
        let hostile = Hostile::new();
        let failure = hostile.restore(vec![file(name)]).expect_err(name);
        assert_eq!(failure.class, Class::Damaged, "{name:?}: {failure}");
        let inner = hostile.directory(name, vec![file("file")]);
        let failure = hostile.restore(vec![inner]).expect_err(name);
        assert_eq!(failure.class, Class::Damaged, "{name:?}: {failure}");
        hostile.nothing_is_outside();
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    let hostile = Hostile::new();
    let inner = hostile.directory("link", vec![file("file")]);
    let failure = hostile
        .restore(vec![hostile.outside(), inner])
        .expect_err("twice");
    assert_eq!(failure.class, Class::Damaged, "{failure}");
    hostile.nothing_is_outside();

    let hostile = Hostile::new();
    let failure = hostile
        .restore(vec![hostile.outside(), file("link")])
        .expect_err("twice");
    assert_eq!(failure.class, Class::Damaged, "{failure}");
    hostile.nothing_is_outside();

    // A link to the host is a link, and its target keeps its mode and owner.
    let hostile = Hostile::new();
    let before = fs::metadata(hostile.directory.path().join("outside")).expect("metadata");
    let mut link = hostile.outside();
    link.meta.mode = Some(0o777);
    hostile.restore(vec![link]).expect("restored");
    let after = fs::metadata(hostile.directory.path().join("outside")).expect("metadata");
    assert_eq!(before.permissions(), after.permissions());
    hostile.nothing_is_outside();
}

#[test]
fn a_hard_link_is_to_a_file_of_the_snapshot() {
    let hostile = Hostile::new();
    let with_links = |name: &str| {
        let mut node = file(name);
        node.meta.links = 2;
        node.meta.inode = 5;
        node
    };
    let directory = hostile.directory.path().join("target");
    hostile
        .restore(vec![with_links("first"), with_links("second")])
        .expect("restored");
    let links = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(directory.join(name))
            .expect("metadata")
            .nlink()
    };
    assert_eq!((links("first"), links("second")), (2, 2));
}

#[test]
fn depth_is_bounded() {
    let hostile = Hostile::new();
    let mut inner = hostile.directory("d", Vec::new());
    for _ in 0..300 {
        inner = hostile.directory("d", vec![inner]);
    }
    let failure = hostile.restore(vec![inner]).expect_err("too deep");
    assert_eq!(failure.class, Class::Damaged, "{failure}");
}

#[test]
fn devices_are_left_out() {
    let hostile = Hostile::new();
    let device = node("device", NodeType::Chardev { device: 0x103 });
    let restored = hostile.restore(vec![device]).expect("restored");
    assert_eq!((restored.warnings_total, restored.files), (1, 0));
    assert!(!hostile.directory.path().join("target/device").exists());
}

#[test]
fn a_link_as_target_is_none() {
    let hostile = Hostile::new();
    let target = hostile.directory.path().join("target");
    fs::remove_dir(&target).expect("removed");
    symlink(hostile.directory.path().join("outside"), &target).expect("a link");
    let failure = hostile.restore(vec![file("file")]).expect_err("a link");
    assert_eq!(failure.class, Class::Target, "{failure}");
    hostile.nothing_is_outside();
}
