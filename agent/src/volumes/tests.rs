use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink},
    process::Command,
};

use nix::{
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, unshare},
};
use tucano_api::{agent::SetIdentity, ids::Generation};
use tucano_testkit::{ROOT, needs, tool};

use super::*;

mod faults;
mod identity;

const MIB: u64 = 1 << 20;

/// A node's directories, in a mount namespace of the test.
struct TestNode {
    root: tempfile::TempDir,
}

/// Runs a test in a mount namespace of its own.
fn on_a_node(test: impl FnOnce(&TestNode) + Send + 'static) {
    if !needs(&[ROOT, tool("mkfs.ext4"), tool("losetup"), tool("mount")]) {
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let (nothing, private) = (None::<&Path>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(nothing, "/", nothing, private, nothing).unwrap();
        let node = TestNode {
            root: tempfile::tempdir().unwrap(),
        };
        test(&node);
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let root = node.root.path().display().to_string();
        let left = mounts
            .lines()
            .filter(|line| line.contains(&root) && line.contains("image"));
        assert_eq!(left.count(), 0, "{mounts}");
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl TestNode {
    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn place(&self) -> PathBuf {
        self.path("place/volumes")
    }

    /// The volumes as an agent finds them.
    fn open(&self) -> (Volumes, Vec<String>) {
        let mut notes = Vec::new();
        let volumes = Volumes::open(
            self.place(),
            self.path("volumes.json"),
            None,
            true,
            &mut notes,
        );
        volumes.note_cluster(&set("aaaaaaaa")).unwrap();
        (volumes, notes)
    }

    /// The layers of an image.
    fn layers(&self) -> Vec<PathBuf> {
        let layers = ["layer-0", "layer-1"].map(|name| self.path(name));
        for layer in &layers {
            fs::create_dir_all(layer).unwrap();
        }
        layers.into()
    }

    /// Loop devices whose files are in this node's directories.
    fn loop_devices(&self) -> String {
        let output = Command::new("losetup")
            .args(["-n", "-O", "BACK-FILE"])
            .output();
        let all = String::from_utf8(output.unwrap().stdout).unwrap();
        let root = self.root.path().display().to_string();
        let own: Vec<&str> = all.lines().filter(|line| line.contains(&root)).collect();
        own.join("\n")
    }
}

fn set(cluster: &str) -> DesiredSet {
    DesiredSet {
        generation: Generation(1),
        identity: SetIdentity {
            cluster: Some(cluster.parse().unwrap()),
            ..SetIdentity::default()
        },
        ..DesiredSet::empty("w1".parse().unwrap())
    }
}

fn instance(instance: u64) -> VolumeInstance {
    VolumeInstance {
        id: "db/data/1".parse().unwrap(),
        instance,
    }
}

fn wanted(number: u64, layers: Vec<PathBuf>) -> Wanted {
    Wanted {
        volume: instance(number),
        may_create: true,
        size: Bytes::mib(16),
        path: "/var/lib/data".to_owned(),
        image: Digest::sha256(&"0".repeat(64)).unwrap(),
        layers,
    }
}

fn known(number: u64) -> Wanted {
    Wanted {
        may_create: false,
        ..wanted(number, Vec::new())
    }
}

fn problem(volumes: &Volumes) -> Option<String> {
    let report = volumes.report().unwrap();
    report.all.into_iter().find_map(|volume| volume.problem)
}

#[test]
fn a_new_volume_gets_what_the_image_has_and_keeps_what_is_written() {
    on_a_node(|node| {
        let layers = node.layers();
        let (low, high) = (&layers[0], &layers[1]);
        for layer in &layers {
            fs::create_dir_all(layer.join("var/lib/real/sub")).unwrap();
        }
        // The path leads through links, one of them absolute.
        symlink("/var/lib/real", low.join("var/lib/data")).unwrap();
        fs::write(low.join("var/lib/real/low"), "low").unwrap();
        fs::write(low.join("var/lib/real/both"), "low").unwrap();
        fs::write(high.join("var/lib/real/both"), "high").unwrap();
        fs::write(low.join("var/lib/real/sub/owned"), "x").unwrap();
        chown(low.join("var/lib/real/sub/owned"), Some(33), Some(34)).unwrap();
        fs::set_permissions(
            low.join("var/lib/real/sub/owned"),
            fs::Permissions::from_mode(0o4640),
        )
        .unwrap();
        fs::hard_link(
            low.join("var/lib/real/low"),
            low.join("var/lib/real/sub/linked"),
        )
        .unwrap();
        symlink("/etc/passwd", low.join("var/lib/real/link")).unwrap();
        // A tmpfs has none before Linux 6.6.
        let attribute = rustix::fs::setxattr(
            low.join("var/lib/real/low"),
            "user.a",
            b"b",
            rustix::fs::XattrFlags::empty(),
        );
        let top = high.join("var/lib/real");
        chown(&top, Some(999), Some(0)).unwrap();
        fs::set_permissions(&top, fs::Permissions::from_mode(0o2775)).unwrap();

        let (volumes, notes) = node.open();
        assert_eq!(notes, Vec::<String>::new());
        let data = volumes.prepare(&wanted(1, layers.clone())).unwrap();
        let of_root = fs::metadata(&data).unwrap();
        assert_eq!(
            (of_root.uid(), of_root.gid(), of_root.mode() & 0o7777),
            (999, 0, 0o2775)
        );
        let mut names: Vec<_> = fs::read_dir(&data)
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["both", "link", "low", "sub"]);
        assert_eq!(fs::read_to_string(data.join("both")).unwrap(), "high");
        assert_eq!(
            fs::read_link(data.join("link")).unwrap(),
            Path::new("/etc/passwd")
        );
        let owned = fs::metadata(data.join("sub/owned")).unwrap();
        assert_eq!(
            (owned.uid(), owned.gid(), owned.mode() & 0o7777),
            (33, 34, 0o4640)
        );
        let inode = |name: &str| fs::metadata(data.join(name)).unwrap().ino();
        assert_eq!(inode("low"), inode("sub/linked"));
        let mut value = [0; 8];
        let copied = rustix::fs::getxattr(data.join("low"), "user.a", &mut value[..]);
        assert_eq!(copied.is_ok(), attribute.is_ok());

        // Emptied by its user: not filled again, by this agent or the next, whose device is the same.
        for name in names {
            let path = data.join(name);
            if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(path).unwrap()
            } else {
                fs::remove_file(path).unwrap()
            }
        }
        chown(&data, Some(5), Some(5)).unwrap();
        volumes.unmount_idle(Duration::ZERO);
        assert_eq!(node.loop_devices(), "");
        drop(volumes);
        let (volumes, _) = node.open();
        let data = volumes.prepare(&wanted(1, layers.clone())).unwrap();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
        assert_eq!(fs::metadata(&data).unwrap().uid(), 5);
        fs::write(data.join("kept"), "data").unwrap();
        let (volumes, _) = node.open();
        let data = volumes.prepare(&known(1)).unwrap();
        assert_eq!(fs::read_to_string(data.join("kept")).unwrap(), "data");
        assert_eq!(node.loop_devices().lines().count(), 1);

        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let line = mounts
            .lines()
            .find(|line| line.contains("db.data.1/mount"))
            .unwrap();
        let options = line.split(' ').nth(5).unwrap();
        assert_eq!(options, "rw,nosuid,nodev,relatime");
        let mode = fs::metadata(node.place()).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700);
        volumes.remove(&instance(1)).unwrap();
        assert_eq!(node.loop_devices(), "");
    });
}

#[test]
fn a_volume_without_content_is_an_empty_directory_of_root() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        for layers in [Vec::new(), node.layers()[..1].to_vec(), node.layers()] {
            let data = volumes.prepare(&wanted(1, layers)).unwrap();
            let found = fs::metadata(&data).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o755));
            assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
            volumes.remove(&instance(1)).unwrap();
        }
    });
}

#[test]
fn content_that_cannot_be_copied_leaves_no_volume() {
    on_a_node(|node| {
        let layers = node.layers();
        let (volumes, _) = node.open();
        fs::create_dir_all(layers[0].join("var/lib/data")).unwrap();
        fs::write(layers[0].join("var/lib/data/large"), vec![1; 20 << 20]).unwrap();
        let error = volumes
            .prepare(&wanted(1, layers.clone()))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "volume db/data/1: what the image has at /var/lib/data does not fit into 16.0 MiB: make it larger by `size`"
        );
        fs::remove_dir_all(layers[0].join("var/lib/data")).unwrap();
        fs::write(layers[0].join("var/lib/data"), "a file").unwrap();
        let error = volumes.prepare(&wanted(1, layers)).unwrap_err().to_string();
        assert!(error.contains("that is not a directory"), "{error}");
        let too_large = Wanted {
            size: Bytes(1 << 50),
            ..wanted(1, Vec::new())
        };
        let error = volumes.prepare(&too_large).unwrap_err().to_string();
        assert!(
            error.contains("there is no room for volume db/data/1 of 1.0 PiB"),
            "{error}"
        );
        assert_eq!(volumes.report().unwrap().all, []);
        assert_eq!(
            fs::read_dir(node.place()).unwrap().count(),
            1,
            "place.json alone"
        );
        assert_eq!(node.loop_devices(), "");
    });
}

#[test]
fn a_volume_that_must_exist_is_not_created() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        let error = volumes.prepare(&known(1)).unwrap_err().to_string();
        assert!(error.contains("it is not created again"), "{error}");
    });
}

#[test]
fn a_damaged_file_system_is_refused_and_leaves_no_device() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        volumes.prepare(&wanted(1, Vec::new())).unwrap();
        volumes.unmount_idle(Duration::ZERO);
        let image = node.place().join("db.data.1/image.ext4");
        let file = fs::File::options().write(true).open(&image).unwrap();
        file.write_all_at(&vec![0xff; 1 << 20], 0).unwrap();
        let (process, id) = ("db-1".parse().unwrap(), instance(1).id);
        volumes.claims().claim(&process, [&id].into_iter()).unwrap();
        for _ in 0..2 {
            let error = volumes.prepare(&known(1)).unwrap_err().to_string();
            assert!(error.contains("its file system is damaged"), "{error}");
            assert_eq!(node.loop_devices(), "");
        }
        assert!(problem(&volumes).unwrap().contains("is damaged"));
        volumes.claims().release(&process);
        assert_eq!(problem(&volumes), None, "the next process may try");
    });
}

#[test]
fn a_full_volume_grows_and_its_size_is_that_of_the_file_system() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        let data = volumes.prepare(&wanted(1, Vec::new())).unwrap();
        let image = node.place().join("db.data.1/image.ext4");
        let allocated = fs::metadata(&image).unwrap().blocks() * 512;
        assert!(allocated >= 16 * MIB, "{allocated}");
        let full = fs::write(data.join("large"), vec![1; 32 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        // Smaller is nothing; larger is at once.
        volumes.grow(&instance(1), Bytes::mib(8)).unwrap();
        let larger = Wanted {
            size: Bytes::mib(64),
            ..known(1)
        };
        if filesystem::can_extend_mounted() {
            volumes.grow(&instance(1), Bytes::mib(64)).unwrap();
        } else {
            let refused = volumes.grow(&instance(1), Bytes::mib(64)).unwrap_err();
            assert!(matches!(refused, Error::CannotGrowInUse), "{refused}");
            assert_eq!(volumes.report().unwrap().all[0].size, Bytes::mib(16));
            volumes.prepare(&larger).unwrap();
        }
        fs::write(data.join("large"), vec![1; 32 << 20]).unwrap();
        let report = volumes.report().unwrap();
        assert_eq!(report.all[0].size, Bytes::mib(64));
        assert!(report.all[0].used.unwrap() > Bytes::mib(32));
        assert!(report.capacity.0 > 64 * MIB);
        let error = volumes
            .grow(&instance(1), Bytes(1 << 50))
            .unwrap_err()
            .to_string();
        assert!(error.contains("there is no room"), "{error}");

        // A growth that was killed in its midst is finished at the next start.
        volumes.unmount_idle(Duration::ZERO);
        let file = fs::File::options().write(true).open(&image).unwrap();
        file.set_len(128 << 20).unwrap();
        let larger = Wanted {
            size: Bytes::mib(128),
            ..known(1)
        };
        let (volumes, _) = node.open();
        let data = volumes.prepare(&larger).unwrap();
        fs::write(data.join("larger"), vec![1; 64 << 20]).unwrap();
        volumes.remove(&instance(1)).unwrap();
        assert_eq!(node.loop_devices(), "");
    });
}

#[test]
fn a_volume_in_use_is_neither_removed_nor_unmounted() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        let data = volumes.prepare(&wanted(1, Vec::new())).unwrap();
        let process = "db-1".parse().unwrap();
        let id = instance(1).id;
        volumes.claims().claim(&process, [&id].into_iter()).unwrap();
        let error = volumes.remove(&instance(1)).unwrap_err().to_string();
        assert_eq!(error, "volume db/data/1 is in use by db-1");
        volumes.unmount_idle(Duration::ZERO);
        assert!(data.exists());
        volumes.claims().release(&process);
        volumes.unmount_idle(IDLE_LIMIT);
        assert!(data.exists(), "it was in use a moment ago");
        volumes.remove(&instance(1)).unwrap();
        volumes.remove(&instance(1)).unwrap();
        assert_eq!(volumes.report().unwrap().all, []);
    });
}

#[test]
fn a_file_system_that_became_read_only_is_checked_and_mounted_again() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        let data = volumes.prepare(&wanted(1, Vec::new())).unwrap();
        let mount_point = data.parent().unwrap().to_owned();
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(
            None::<&Path>,
            &mount_point,
            None::<&str>,
            flags,
            None::<&str>,
        )
        .unwrap();
        assert!(problem(&volumes).unwrap().contains("read-only"));
        let data = volumes.prepare(&known(1)).unwrap();
        fs::write(data.join("file"), "data").unwrap();
        assert_eq!(problem(&volumes), None);
        volumes.remove(&instance(1)).unwrap();
    });
}

#[test]
fn a_volume_in_place_is_used_as_it_is() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        let first = volumes.prepare(&wanted(1, Vec::new())).unwrap();
        let changed = || {
            let found = fs::metadata(&first).unwrap();
            (found.ctime(), found.ctime_nsec())
        };
        let before = changed();
        for _ in 0..50 {
            assert_eq!(volumes.prepare(&known(1)).unwrap(), first);
        }
        assert_eq!(changed(), before, "nothing of it changes");
        assert_eq!(node.loop_devices().lines().count(), 1);
        volumes.remove(&instance(1)).unwrap();
    });
}
