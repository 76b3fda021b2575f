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
        volumes.refill();
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
        let device = Command::new("losetup")
            .args(["-n", "-O", "NAME", "-j"])
            .arg(image(node))
            .output()
            .unwrap();
        let device = String::from_utf8(device.stdout).unwrap();
        let trigger = health::attribute(Path::new(device.trim()), "trigger_fs_error");
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
        let data = volumes.prepare(&known(1)).unwrap();
        fs::write(data.join("file"), "data").unwrap();
        assert_eq!(problem(&volumes), None);
        volumes.remove(&instance(1)).unwrap();
    });
}
