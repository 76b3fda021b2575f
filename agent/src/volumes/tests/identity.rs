//! Volumes that vanish, are somebody else's, or come back.

use super::*;

#[test]
fn volumes_on_a_file_system_that_is_not_mounted_are_not_created_again() {
    on_a_node(|node| {
        let disk = node.path("place");
        fs::create_dir_all(&disk).unwrap();
        mount(
            Some("tmpfs"),
            &disk,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=64m"),
        )
        .unwrap();
        let (volumes, _) = node.open();
        let data = volumes.prepare(&wanted(1, Vec::new())).unwrap();
        fs::write(data.join("kept"), "data").unwrap();
        volumes.unmount_idle(Duration::ZERO);
        // Moved away, as if the disk was not mounted at boot.
        let aside = node.path("aside");
        fs::create_dir(&aside).unwrap();
        let move_mount = |from: &Path, to: &Path| {
            mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>).unwrap();
        };
        move_mount(&disk, &aside);
        for _ in 0..2 {
            let (volumes, notes) = node.open();
            assert!(
                notes
                    .iter()
                    .any(|note| note.contains("is its file system mounted?")),
                "{notes:?}"
            );
            let mut other = wanted(2, Vec::new());
            other.volume.id = "db/data/2".parse().unwrap();
            for wanted in [wanted(1, Vec::new()), other] {
                let error = volumes.prepare(&wanted).unwrap_err().to_string();
                assert!(error.contains("is its file system mounted?"), "{error}");
            }
            assert!(volumes.remove(&instance(1)).is_err());
            assert!(
                problem(&volumes)
                    .unwrap()
                    .contains("is its file system mounted?")
            );
            assert_eq!(volumes.report().unwrap().capacity, Bytes(0));
            assert_eq!(
                fs::read_dir(&disk).unwrap().count(),
                0,
                "nothing is written below the bare mount point"
            );
        }
        // The same agent goes on when it is back.
        move_mount(&aside, &disk);
        let data = volumes.prepare(&wanted(1, Vec::new())).unwrap();
        assert_eq!(fs::read_to_string(data.join("kept")).unwrap(), "data");
        assert_eq!(problem(&volumes), None);
        volumes.remove(&instance(1)).unwrap();
        umount(&disk).unwrap();
    });
}

#[test]
fn a_volume_that_vanished_from_its_directory_is_not_created_again() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        volumes.prepare(&wanted(1, Vec::new())).unwrap();
        volumes.unmount_idle(Duration::ZERO);
        fs::rename(node.place().join("db.data.1"), node.path("elsewhere")).unwrap();
        let (volumes, _) = node.open();
        for number in [1, 2] {
            let error = volumes
                .prepare(&wanted(number, Vec::new()))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("volume db/data/1 is not where it was"),
                "{error}"
            );
        }
        assert!(problem(&volumes).unwrap().contains("is not where it was"));
        fs::rename(node.path("elsewhere"), node.place().join("db.data.1")).unwrap();
        volumes.prepare(&wanted(1, Vec::new())).unwrap();
        volumes.remove(&instance(1)).unwrap();
    });
}

#[test]
fn a_killed_creation_leaves_nothing_and_a_killed_removal_is_finished() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        volumes.prepare(&wanted(1, Vec::new())).unwrap();
        volumes.unmount_idle(Duration::ZERO);
        let place = node.place();
        let unfinished = place.join("db.data.2.new");
        fs::create_dir_all(unfinished.join("mount")).unwrap();
        fs::create_dir_all(unfinished.join("image-root")).unwrap();
        fs::write(unfinished.join("image.ext4"), "a part").unwrap();
        fs::rename(place.join("db.data.1"), place.join("db.data.1.removed")).unwrap();
        fs::create_dir(place.join("somebody's")).unwrap();
        let (volumes, notes) = node.open();
        assert_eq!(notes, Vec::<String>::new());
        let mut names: Vec<_> = fs::read_dir(&place)
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["place.json", "somebody's"]);
        assert_eq!(volumes.report().unwrap().all, []);
        // A new instance can be created now.
        volumes.prepare(&wanted(2, Vec::new())).unwrap();
        volumes.remove(&instance(2)).unwrap();
    });
}

#[test]
fn other_instances_and_other_clusters_volumes_stay_untouched() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        let data = volumes.prepare(&wanted(1, Vec::new())).unwrap();
        fs::write(data.join("kept"), "data").unwrap();
        let error = volumes
            .prepare(&wanted(2, Vec::new()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("it has instance 1, and instance 2 is wanted"),
            "{error}"
        );
        volumes.remove(&instance(2)).unwrap();
        assert!(data.join("kept").exists());

        // The agent's data directory is lost, and the node has another cluster.
        volumes.unmount_idle(Duration::ZERO);
        fs::remove_file(node.path("volumes.json")).unwrap();
        let mut notes = Vec::new();
        let volumes = Volumes::open(
            node.place(),
            node.path("volumes.json"),
            None,
            true,
            &mut notes,
        );
        volumes.note_cluster(&set("bbbbbbbb")).unwrap();
        let error = volumes
            .prepare(&wanted(1, Vec::new()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("is of another cluster"), "{error}");
        assert!(volumes.remove(&instance(1)).is_err());
        // Unless that cluster adopts the node.
        let adopting = DesiredSet {
            adopts: Some("aaaaaaaa".parse().unwrap()),
            ..set("bbbbbbbb")
        };
        volumes.note_cluster(&adopting).unwrap();
        let data = volumes.prepare(&known(1)).unwrap();
        assert_eq!(fs::read_to_string(data.join("kept")).unwrap(), "data");
        volumes.remove(&instance(1)).unwrap();
    });
}

#[test]
fn a_mount_of_something_else_is_not_taken_for_the_volume() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        volumes.prepare(&wanted(1, Vec::new())).unwrap();
        volumes.unmount_idle(Duration::ZERO);
        let mount_point = node.place().join("db.data.1/mount");
        mount(
            Some("tmpfs"),
            &mount_point,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        fs::create_dir(mount_point.join("data")).unwrap();
        let error = volumes.prepare(&known(1)).unwrap_err().to_string();
        assert!(error.contains("has no identity"), "{error}");
        umount(&mount_point).unwrap();
        volumes.prepare(&known(1)).unwrap();
        volumes.remove(&instance(1)).unwrap();
    });
}

#[test]
fn a_damaged_record_is_made_from_the_volumes_again() {
    on_a_node(|node| {
        let (volumes, _) = node.open();
        volumes.prepare(&wanted(1, Vec::new())).unwrap();
        volumes.unmount_idle(Duration::ZERO);
        fs::write(node.path("volumes.json"), "{ half").unwrap();
        let (volumes, notes) = node.open();
        assert!(
            notes[0].contains("ignoring what was known of volumes"),
            "{notes:?}"
        );
        assert_eq!(volumes.report().unwrap().all[0].volume, instance(1));
        assert!(node.path("volumes.json.damaged").exists());
        // Of which cluster it was is in its identity.
        volumes.prepare(&known(1)).unwrap();
        volumes.remove(&instance(1)).unwrap();
    });
}
