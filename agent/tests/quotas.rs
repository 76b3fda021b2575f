//! Volumes that project quotas keep to their sizes, on a file system that has them: `TUCANO_QUOTA_PLACE` is a directory there. Kernels
//! without quotas cannot run these tests; `tests/guests` runs them on one that has.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::mount::{MsFlags, mount};
use rustix::thread::CapabilitySet;
use tempfile::TempDir;
use tucano_agent::volumes::{Volumes, Wanted};
use tucano_api::{
    agent::{DesiredSet, Enforcement, SetIdentity, VolumeInstance, VolumeReport},
    ids::{Digest, Generation},
    units::Bytes,
};
use tucano_oci_runtime::projects::{self, Limits};
use tucano_testkit::wait_until;

const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// A node's directories.
struct Node(TempDir);

impl Node {
    fn new() -> Self {
        let place = std::env::var("TUCANO_QUOTA_PLACE").unwrap();
        Self(tempfile::tempdir_in(place).unwrap())
    }

    fn place(&self) -> PathBuf {
        self.0.path().join("volumes")
    }

    /// The volumes as an agent finds them.
    fn open(&self) -> Volumes {
        self.open_with(true)
    }

    fn open_with(&self, user_namespaces: bool) -> Volumes {
        let (record, mut notes) = (self.0.path().join("volumes.json"), Vec::new());
        let reserve = Some(Bytes(0));
        let volumes = Volumes::open(self.place(), record, reserve, user_namespaces, &mut notes);
        assert_eq!(notes, Vec::<String>::new());
        volumes.note_cluster(&set()).unwrap();
        volumes
    }

    fn tree(&self, slot: u32) -> PathBuf {
        self.place().join(format!("db.data.{slot}/tree"))
    }

    fn project(&self, slot: u32) -> u32 {
        let project = projects::of(File::open(self.tree(slot)).unwrap()).unwrap();
        assert!(project.is_inherited);
        project.id
    }

    fn quota(&self, project: u32) -> projects::Quota {
        projects::quota(File::open(self.0.path()).unwrap(), project).unwrap()
    }
}

fn set() -> DesiredSet {
    DesiredSet {
        generation: Generation(1),
        identity: SetIdentity {
            cluster: Some("aaaaaaaa".parse().unwrap()),
            ..SetIdentity::default()
        },
        ..DesiredSet::empty("w1".parse().unwrap())
    }
}

fn instance(slot: u32, instance: u64) -> VolumeInstance {
    VolumeInstance {
        id: format!("db/data/{slot}").parse().unwrap(),
        instance,
    }
}

/// A volume of 16 MiB.
fn wanted(slot: u32, number: u64) -> Wanted {
    Wanted {
        volume: instance(slot, number),
        may_create: true,
        size: Bytes::mib(16),
        path: "/var/lib/data".to_owned(),
        image: Digest::sha256(&"0".repeat(64)).unwrap(),
        layers: Vec::new(),
    }
}

fn reported(volumes: &Volumes, slot: u32) -> VolumeReport {
    let id = instance(slot, 1).id;
    let mut all = volumes.report().unwrap().all.into_iter();
    all.find(|volume| volume.volume.id == id).unwrap()
}

/// Writes as a container's process does: without the capability to exceed quotas.
fn write(path: PathBuf, bytes: usize) -> std::io::Result<()> {
    let thread = std::thread::spawn(move || {
        let mut sets = rustix::thread::capabilities(None)?;
        sets.effective.remove(CapabilitySet::SYS_RESOURCE);
        rustix::thread::set_capabilities(None, sets)?;
        let mut file = File::options().create(true).append(true).open(path)?;
        file.write_all(&vec![1; bytes])?;
        file.sync_all()
    });
    thread.join().unwrap()
}

fn assert_full(written: std::io::Result<()>) {
    let kind = written.unwrap_err().kind();
    assert!(
        matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded),
        "{kind}"
    );
}

#[test]
#[ignore = "needs project quotas"]
fn a_volume_holds_its_size_and_no_more_until_it_has_grown() {
    let node = Node::new();
    let volumes = node.open();
    assert_eq!(volumes.obstacle(), None);
    let data = volumes.prepare(&wanted(1, 1)).unwrap();
    let found = rustix::fs::statvfs(&data).unwrap();
    assert_eq!(found.f_blocks * found.f_frsize, 16 << 20, "as df shows it");
    assert_full(write(data.join("file"), 32 * MIB));
    let report = reported(&volumes, 1);
    assert_eq!(report.enforcement, Some(Enforcement::ProjectQuota));
    assert_eq!(report.size, Bytes::mib(16));
    assert!(report.used.unwrap() > Bytes::mib(12), "{report:?}");
    assert_eq!(report.problem, None);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing of ours");

    // Being full keeps neither the next process nor the next agent from it.
    let volumes = node.open();
    assert_eq!(volumes.prepare(&wanted(1, 1)).unwrap(), data);
    volumes.grow(&instance(1, 1), Bytes::mib(8)).unwrap();
    assert_full(write(data.join("file"), MIB));
    volumes.grow(&instance(1, 1), Bytes::mib(64)).unwrap();
    write(data.join("file"), 32 * MIB).unwrap();
    // A smaller size in the next start is none.
    volumes.prepare(&wanted(1, 1)).unwrap();
    write(data.join("file"), MIB).unwrap();
    assert_eq!(reported(&volumes, 1).size, Bytes::mib(64));

    // One that was removed leaves its name, and nothing else, to the next.
    let project = node.project(1);
    volumes.remove(&instance(1, 1)).unwrap();
    assert_eq!(node.quota(project), projects::Quota::default());
    assert_eq!(volumes.report().unwrap().all, []);
    let data = volumes.prepare(&wanted(1, 2)).unwrap();
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    assert_ne!(node.project(1), project);
    assert_full(write(data.join("file"), 32 * MIB));
    volumes.remove(&instance(1, 2)).unwrap();
}

#[test]
#[ignore = "needs project quotas"]
fn volumes_are_counted_apart_and_promised_their_sizes() {
    let node = Node::new();
    let volumes = node.open();
    let before = volumes.report().unwrap();
    assert_eq!(before.enforcement, Enforcement::ProjectQuota);
    let data = volumes.prepare(&wanted(1, 1)).unwrap();
    volumes.prepare(&wanted(2, 2)).unwrap();
    assert_ne!(node.project(1), node.project(2));
    write(data.join("file"), 8 * MIB).unwrap();
    assert!(reported(&volumes, 1).used.unwrap() >= Bytes::mib(8));
    assert!(reported(&volumes, 2).used.unwrap() < Bytes::mib(1));
    let capacity = volumes.report().unwrap().capacity;
    assert!(capacity <= before.capacity, "{capacity} {before:?}");
    assert!(capacity.0 + (4 << 20) > before.capacity.0, "{capacity}");

    // Nothing is written to it, and its size is taken.
    let half = Bytes(before.capacity.0 / 5 * 3);
    let large = |slot: u32| Wanted {
        size: half,
        ..wanted(slot, slot.into())
    };
    volumes.prepare(&large(3)).unwrap();
    let refused = volumes.prepare(&large(4)).unwrap_err().to_string();
    assert!(
        refused.contains("there is no room for volume db/data/4"),
        "{refused}"
    );
    let refused = volumes.grow(&instance(2, 2), half).unwrap_err().to_string();
    assert!(
        refused.contains("there is no room for volume db/data/2"),
        "{refused}"
    );
    volumes.remove(&instance(3, 3)).unwrap();
    volumes.prepare(&large(4)).unwrap();
}

#[test]
#[ignore = "needs project quotas"]
fn content_that_does_not_fit_leaves_no_volume() {
    let node = Node::new();
    let volumes = node.open();
    let layer = node.0.path().join("layer");
    fs::create_dir_all(layer.join("var/lib/data")).unwrap();
    fs::write(layer.join("var/lib/data/large"), vec![1; 20 * MIB]).unwrap();
    let with_content = || Wanted {
        layers: vec![layer.clone()],
        ..wanted(1, 1)
    };
    let refused = volumes.prepare(&with_content()).unwrap_err().to_string();
    assert!(refused.contains("does not fit into 16.0 MiB"), "{refused}");
    let left = fs::read_dir(node.place()).unwrap().count();
    assert_eq!(left, 1, "place.json alone");
    fs::write(layer.join("var/lib/data/large"), vec![1; 2 * MIB]).unwrap();
    let data = volumes.prepare(&with_content()).unwrap();
    assert_eq!(fs::metadata(data.join("large")).unwrap().len(), 2 << 20);
    let copied = projects::of(File::open(&data).unwrap()).unwrap();
    assert_eq!(copied.id, node.project(1), "it is counted");
    assert!(copied.is_inherited);
}

#[test]
#[ignore = "needs project quotas"]
fn a_volume_that_is_not_limited_is_not_used() {
    let node = Node::new();
    let volumes = node.open();
    let data = volumes.prepare(&wanted(1, 1)).unwrap();
    let project = node.project(1);
    let tree = || File::open(node.tree(1)).unwrap();
    projects::set(tree(), 5).unwrap();
    let refused = volumes.prepare(&wanted(1, 1)).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("belongs to project 5 instead of {project}")),
        "{refused}"
    );
    assert!(
        reported(&volumes, 1)
            .problem
            .unwrap()
            .contains("belongs to project 5")
    );
    projects::set(tree(), project).unwrap();
    volumes.prepare(&wanted(1, 1)).unwrap();

    // Limits that somebody takes away are set again, also while it is in use.
    for restore in [
        |volumes: &Volumes| volumes.maintain(),
        |volumes: &Volumes| drop(volumes.prepare(&wanted(1, 1)).unwrap()),
    ] {
        projects::limit(tree(), project, Limits::default()).unwrap();
        restore(&volumes);
        assert_eq!(node.quota(project).limits.bytes, 16 << 20);
    }
    assert_full(write(data.join("file"), 32 * MIB));
}

#[test]
#[ignore = "needs project quotas"]
fn volumes_have_files_where_a_quota_would_be_none() {
    // A process without a user namespace may change the project of its files.
    let node = Node::new();
    node.open().prepare(&wanted(1, 1)).unwrap();
    let volumes = node.open_with(false);
    assert_eq!(volumes.report().unwrap().enforcement, Enforcement::LoopFile);
    let refused = volumes.prepare(&wanted(1, 1)).unwrap_err().to_string();
    assert!(refused.contains("without user namespaces"), "{refused}");
    volumes.prepare(&wanted(2, 2)).unwrap();
    assert!(node.place().join("db.data.2/image.ext4").exists());
    // Each stays what it is.
    let volumes = node.open();
    volumes.prepare(&wanted(1, 1)).unwrap();
    volumes.prepare(&wanted(2, 2)).unwrap();
    assert_eq!(
        reported(&volumes, 1).enforcement,
        Some(Enforcement::ProjectQuota)
    );
    assert_eq!(
        reported(&volumes, 2).enforcement,
        Some(Enforcement::LoopFile)
    );
    for (slot, number) in [(1, 1), (2, 2)] {
        volumes.remove(&instance(slot, number)).unwrap();
    }

    // A place that somebody limits stays within that limit.
    let node = Node::new();
    fs::create_dir(node.place()).unwrap();
    projects::set(File::open(node.place()).unwrap(), 7).unwrap();
    let volumes = node.open();
    volumes.prepare(&wanted(1, 1)).unwrap();
    assert_eq!(
        reported(&volumes, 1).enforcement,
        Some(Enforcement::LoopFile)
    );
    volumes.remove(&instance(1, 1)).unwrap();
}

#[test]
#[ignore = "needs project quotas"]
fn what_a_killed_agent_left_is_removed() {
    let node = Node::new();
    let volumes = node.open();
    let data = volumes.prepare(&wanted(1, 1)).unwrap();
    let project = node.project(1);
    for number in 0..500 {
        fs::create_dir_all(data.join(format!("{}/{number}", number % 7))).unwrap();
    }
    let volume = |name: &str| node.place().join(name);
    fs::rename(volume("db.data.1"), volume("db.data.1.removed")).unwrap();
    let unfinished = volume("db.data.2.new/tree");
    fs::create_dir_all(&unfinished).unwrap();
    projects::set(File::open(&unfinished).unwrap(), (1 << 30) + 1).unwrap();
    fs::write(unfinished.join("half"), "").unwrap();

    let volumes = node.open();
    assert_eq!(volumes.report().unwrap().all, []);
    // A new one of the name waits for nothing.
    volumes.prepare(&wanted(1, 2)).unwrap();
    let is_alone = || fs::read_dir(node.place()).unwrap().count() == 2;
    wait_until("the removal of what was left", PATIENCE, is_alone);
    assert_eq!(node.quota(project), projects::Quota::default());
}

#[test]
#[ignore = "needs project quotas"]
fn a_file_system_that_became_read_only_is_reported() {
    let node = Node::new();
    let volumes = node.open();
    volumes.prepare(&wanted(1, 1)).unwrap();
    let place = std::env::var("TUCANO_QUOTA_PLACE").unwrap();
    let remount = |flags: MsFlags| {
        let nothing = None::<&Path>;
        mount(
            nothing,
            place.as_str(),
            nothing,
            MsFlags::MS_REMOUNT | flags,
            nothing,
        )
        .unwrap();
    };
    remount(MsFlags::MS_RDONLY);
    let problem = reported(&volumes, 1).problem;
    let refused = volumes
        .prepare(&wanted(1, 1))
        .map_err(|error| error.to_string());
    remount(MsFlags::empty());
    assert!(problem.unwrap().contains("is read-only"));
    assert!(refused.unwrap_err().contains("read-only"));
    volumes.prepare(&wanted(1, 1)).unwrap();
    assert_eq!(reported(&volumes, 1).problem, None);
}
