//! Volumes on disks, kernels and agents that fail.

use rustix::fs::FallocateFlags;

use super::*;

/// The file of the volume of the tests.
fn image(node: &TestNode) -> PathBuf {
    node.place().join("db.data.1/image.ext4")
}

fn punch(image: &Path, offset: u64) {
    let file = fs::File::options().write(true).open(image).unwrap();
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, flags, offset, MIB).unwrap();
    assert!(filesystem::has_holes(image));
}

#[test]
fn nothing_of_a_volume_is_left_to_initialise_later() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        let larger = Wanted {
            size: Bytes::mib(256),
            ..wanted(1, Vec::new())
        };
        let data = volumes.prepare(&larger).unwrap();
        let groups = Command::new("dumpe2fs").arg(image(node)).output().unwrap();
        let groups = String::from_utf8(groups.stdout).unwrap();
        assert!(groups.contains("ITABLE_ZEROED"), "{groups}");
        let lazy = groups
            .lines()
            .filter(|line| line.contains("(Blocks ") && !line.contains("ITABLE_ZEROED"));
        assert_eq!(lazy.count(), 0, "{groups}");
        // Writes around a preallocated range.
        let file = fs::File::create(data.join("preallocated")).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 8 * MIB).unwrap();
        for number in 0..64 {
            file.write_all_at(b"x", number * (100 << 10)).unwrap();
        }
        fs::write(data.join("short-lived"), vec![1; 8 << 20]).unwrap();
        fs::remove_file(data.join("short-lived")).unwrap();
        let root = fs::File::open(&data).unwrap();
        rustix::fs::syncfs(&root).unwrap();
        drop((root, file));
        assert!(!filesystem::has_holes(&image(node)));
        volumes.remove(&instance(1)).unwrap();
    });
}

#[test]
fn holes_are_filled_at_the_next_mount_and_while_a_volume_is_mounted() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        let data = volumes.prepare(&wanted(1, Vec::new())).unwrap();
        fs::write(data.join("kept"), "data").unwrap();
        volumes.unmount_idle(Duration::ZERO);
        punch(&image(node), 12 * MIB);
        let data = volumes.prepare(&known(1)).unwrap();
        assert!(!filesystem::has_holes(&image(node)));
        punch(&image(node), 12 * MIB);
        volumes.maintain();
        assert!(!filesystem::has_holes(&image(node)));
        assert_eq!(fs::read_to_string(data.join("kept")).unwrap(), "data");
        volumes.remove(&instance(1)).unwrap();
    });
}

#[test]
fn a_file_system_with_errors_is_reported_and_checked_at_the_next_start() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        let data = volumes.prepare(&wanted(1, Vec::new())).unwrap();
        let device = device::Device::mounted_on(&data).unwrap().name().unwrap();
        let trigger = device::attribute(&device, "trigger_fs_error");
        if fs::write(&trigger, "an error").is_err() {
            eprintln!("skipped: {} is not writable", trigger.display());
            return volumes.remove(&instance(1)).unwrap();
        }
        assert!(fs::write(data.join("file"), "lost").is_err());
        assert!(problem(&volumes).unwrap().contains("had errors"));
        // Somebody who has something open there keeps the damaged one mounted: its process does not get it.
        let open = fs::File::open(&data).unwrap();
        assert!(volumes.prepare(&known(1)).is_err());
        drop(open);
        // Children of other tests have the descriptor until they execute a program.
        let mut prepared = Err(String::new());
        tucano_testkit::wait_until("the check", Duration::from_secs(30), || {
            prepared = volumes
                .prepare(&known(1))
                .map_err(|error| error.to_string());
            prepared.is_ok()
        });
        let data = prepared.unwrap();
        fs::write(data.join("file"), "data").unwrap();
        assert_eq!(problem(&volumes), None);
        volumes.remove(&instance(1)).unwrap();
    });
}

/// A small disk of its own.
fn disk(node: &TestNode, name: &str, size: &str) -> PathBuf {
    let path = node.path(name);
    fs::create_dir(&path).unwrap();
    let flags = MsFlags::empty();
    mount(Some("tmpfs"), &path, Some("tmpfs"), flags, Some(size)).unwrap();
    path
}

/// Takes the last byte of a disk.
fn fill(disk: &Path) {
    let mut file = fs::File::create(disk.join("full")).unwrap();
    let full = std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

/// The volumes of an agent whose data directory is `data_dir`.
fn open(place: &Path, data_dir: &Path, reserve: Option<Bytes>) -> Volumes {
    let mut notes = Vec::new();
    let record = data_dir.join("volumes.json");
    let volumes = Volumes::open(place.to_owned(), record, reserve, true, &mut notes);
    volumes.note_cluster(&set("aaaaaaaa")).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    volumes
}

#[test]
fn volumes_leave_the_reserve_to_the_agent() {
    on_a_node(|node| {
        let disk = disk(node, "disk", "size=256m");
        let volumes = open(&disk.join("volumes"), &disk, Some(Bytes::mib(64)));
        let of = |size| Wanted {
            size: Bytes::mib(size),
            ..wanted(1, Vec::new())
        };
        let capacity = || volumes.report().unwrap().capacity;
        assert!(capacity() <= Bytes::mib(192), "{}", capacity());
        let refused = volumes.prepare(&of(200)).unwrap_err().to_string();
        assert!(refused.contains("are free for volumes"), "{refused}");
        volumes.prepare(&of(16)).unwrap();
        let refused = volumes.grow(&instance(1), Bytes::mib(200)).unwrap_err();
        assert!(matches!(refused, Error::NoRoom { .. }), "{refused}");
        assert!(capacity() <= Bytes::mib(192), "{}", capacity());
        volumes.remove(&instance(1)).unwrap();

        let by_default = open(&disk.join("volumes"), &disk, None);
        let capacity = by_default.report().unwrap().capacity;
        let expected = Bytes::mib(230)..=Bytes::mib(244);
        assert!(expected.contains(&capacity), "{capacity}");
        // A disk without the agent's files needs none.
        let elsewhere = open(&disk.join("volumes"), &node.path("."), Some(Bytes::mib(64)));
        let capacity = elsewhere.report().unwrap().capacity;
        assert!(capacity > Bytes::mib(244), "{capacity}");
        umount(&disk).unwrap();
    });
}

#[test]
fn a_volume_is_removed_from_a_full_disk() {
    on_a_node(|node| {
        let disk = disk(node, "disk", "size=64m");
        let volumes = open(&disk.join("volumes"), &disk, Some(Bytes(0)));
        volumes.prepare(&wanted(1, Vec::new())).unwrap();
        fill(&disk);
        volumes.remove(&instance(1)).unwrap();
        let volumes = open(&disk.join("volumes"), &disk, Some(Bytes(0)));
        assert_eq!(volumes.report().unwrap().all, []);
        umount(&disk).unwrap();
    });
}

#[test]
fn a_removal_that_cannot_be_recorded_leaves_no_missing_volume() {
    on_a_node(|node| {
        let data_dir = disk(node, "data", "size=1m");
        let place = node.place();
        let volumes = open(&place, &data_dir, None);
        volumes.prepare(&wanted(1, Vec::new())).unwrap();
        fill(&data_dir);
        volumes.remove(&instance(1)).unwrap();
        assert_eq!(volumes.report().unwrap().all, []);
        for _ in 0..2 {
            let volumes = open(&place, &data_dir, None);
            assert_eq!(volumes.report().unwrap().all, []);
        }
        // The same name is free, also while the record cannot be written for long.
        fs::remove_file(data_dir.join("full")).unwrap();
        let volumes = open(&place, &data_dir, None);
        volumes.prepare(&wanted(2, Vec::new())).unwrap();
        volumes.remove(&instance(2)).unwrap();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        umount(&data_dir).unwrap();
    });
}

#[test]
fn a_volume_that_is_being_created_is_reported_and_removed_afterwards() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        let (process, id) = ("db-1".parse().unwrap(), instance(1).id);
        volumes.claims().claim(&process, [&id].into_iter()).unwrap();
        let error = volumes.remove(&instance(1)).unwrap_err().to_string();
        assert_eq!(error, "volume db/data/1 is in use by db-1");
        volumes.claims().release(&process);

        let created = std::thread::scope(|scope| {
            // Holding the volume's lock delays its creation.
            let lock = volumes.lock_of(&id);
            let held = lock.lock().unwrap();
            volumes.begin_creation(&wanted(1, Vec::new()));
            let creation = scope.spawn(|| volumes.prepare(&wanted(1, Vec::new())));
            let report = volumes.report().unwrap();
            assert_eq!(report.all[0].volume, instance(1));
            let problem = report.all[0].problem.as_deref();
            assert_eq!(problem, Some("volume db/data/1 is being created"));
            let error = volumes.remove(&instance(1)).unwrap_err().to_string();
            assert_eq!(error, "volume db/data/1 is being created");
            drop(held);
            creation.join().unwrap()
        });
        assert!(created.is_ok(), "{created:?}");
        assert_eq!(problem(&volumes), None);
        volumes.remove(&instance(1)).unwrap();
        assert_eq!(volumes.report().unwrap().all, []);
    });
}

#[test]
fn a_volume_is_not_used_while_a_program_of_an_earlier_agent_works_on_it() {
    use rustix::fs::{FlockOperation, flock};
    on_a_node(|node| {
        let (volumes, _) = node.open();
        volumes.prepare(&wanted(1, Vec::new())).unwrap();
        let other = fs::File::open(image(node)).unwrap();
        let lock = |operation| flock(&other, operation).unwrap();
        lock(FlockOperation::LockExclusive);
        let refused = volumes.grow(&instance(1), Bytes::mib(32)).unwrap_err();
        assert!(matches!(refused, Error::Locked(_)), "{refused}");
        volumes.unmount_idle(Duration::ZERO);
        let larger = Wanted {
            size: Bytes::mib(32),
            ..known(1)
        };
        for wanted in [known(1), larger.clone()] {
            let refused = volumes.prepare(&wanted).unwrap_err();
            assert!(matches!(refused, Error::Locked(_)), "{refused}");
        }
        lock(FlockOperation::Unlock);
        volumes.prepare(&larger).unwrap();
        assert_eq!(volumes.report().unwrap().all[0].size, Bytes::mib(32));
        volumes.remove(&instance(1)).unwrap();
    });
}
