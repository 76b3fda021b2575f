//! Volumes, and directories of the node, in containers.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tucano_api::{
    agent::{
        DesiredProcess, DesiredSet, DesiredVolume, NodeReport, ProcessState, VolumeInstance,
        VolumeReport,
    },
    ids::Revision,
    units::Bytes,
};
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};
use tucano_testkit::{needs, tool};

use crate::node::{Node, desired, on_a_node, output, process};

/// Whether this machine can have volumes.
pub(crate) fn can() -> bool {
    needs(&[tool("mkfs.ext4"), tool("losetup"), tool("mount")])
}

/// A process with the volume `data` of slot 1, of 64 MiB unless `more` says otherwise.
pub(crate) fn with_volume(sample: &str, number: u64, size: &str, more: &str) -> DesiredProcess {
    let volume =
        format!("{more}\n[[volume]]\nname = \"data\"\npath = \"/var/data\"\nsize = \"{size}\"\n");
    let mut process = process(sample, number, &volume);
    process.slot = Some(1);
    process.volumes = vec![DesiredVolume {
        volume: instance(sample, 1),
        may_create: true,
        load: None,
    }];
    process
}

pub(crate) fn instance(service: &str, instance: u64) -> VolumeInstance {
    VolumeInstance {
        id: format!("{service}/data/1").parse().unwrap(),
        instance,
    }
}

pub(crate) fn removing(generation: u64, removed: VolumeInstance) -> DesiredSet {
    DesiredSet {
        removed_volumes: vec![removed],
        ..desired(generation, Vec::new())
    }
}

/// The directory of a volume in a container, as the node reaches it.
pub(crate) fn inside(node: &Node, id: &str, path: &str) -> PathBuf {
    format!("/proc/{}/root{path}", node.pid(id)).into()
}

/// Runs a shell on the node with the ids of a container's root.
fn as_root_of(node: &Node, id: &str, script: &str) -> String {
    let pid = node.pid(id).to_string();
    let script = format!("cd /proc/{pid}/root || exit; {script}");
    let enter = ["-t", &pid, "-U", "-S", "0", "-G", "0", "sh", "-c", &script];
    output("nsenter", &enter)
}

/// The id on the node of a container's root.
fn root_of(node: &Node, id: &str) -> u32 {
    let map = fs::read_to_string(format!("/proc/{}/uid_map", node.pid(id))).unwrap();
    map.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn kill_9(pid: i64) {
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
}

/// Whether this machine lets its root resize a mounted file system.
fn can_grow_in_use() -> bool {
    let own = rustix::thread::capabilities(None).unwrap();
    own.effective
        .contains(rustix::thread::CapabilitySet::SYS_RESOURCE)
}

fn volume_in(report: &NodeReport) -> Option<&VolumeReport> {
    report.volumes.as_ref()?.all.first()
}

/// Loop devices of this node's files.
fn loop_devices(node: &Node) -> Vec<String> {
    let all = output("losetup", &["-n", "-O", "BACK-FILE"]);
    let root = node.root.path().display().to_string();
    let own = all.lines().filter(|line| line.contains(&root));
    own.map(str::to_owned).collect()
}

/// Removes processes and volume, and checks that nothing is left.
pub(crate) async fn remove_all(node: &Node, generation: u64, volume: VolumeInstance) {
    node.controller.announce(generation);
    let (status, body) = node.put(&removing(generation, volume)).await;
    assert_eq!(status, 200, "{body}");
    node.wait_for("no volume", |report| {
        let volumes = report.volumes.as_ref()?;
        (volumes.all.is_empty() && report.processes.is_empty()).then_some(())
    })
    .await;
    node.remove_all(generation + 1).await;
    assert_eq!(loop_devices(node), Vec::<String>::new());
    let left = fs::read_dir(node.data("volumes")).unwrap();
    assert_eq!(left.count(), 1, "place.json alone");
}

#[test]
fn data_outlives_process_and_agent_and_has_the_containers_ids() {
    if !can() {
        return;
    }
    on_a_node("", async |mut node| {
        node.desire(1, vec![with_volume("hello", 1, "64MiB", "")])
            .await;
        node.wait_until_healthy("hello-1").await;
        let environment = format!("/proc/{}/environ", node.pid("hello-1"));
        let environment = fs::read_to_string(environment).unwrap();
        assert!(environment.contains("TUCANO_SLOT=1"), "{environment}");
        let written = as_root_of(
            &node,
            "hello-1",
            "echo data > var/data/kept && echo written",
        );
        assert_eq!(written, "written\n");
        let seen = fs::metadata(inside(&node, "hello-1", "/var/data/kept")).unwrap();
        assert_eq!(seen.uid(), root_of(&node, "hello-1"));
        let stored = node.data("volumes/hello.data.1/mount/data/kept");
        assert_eq!(fs::metadata(&stored).unwrap().uid(), 0);
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", node.pid("hello-1")));
        let mounts = mounts.unwrap();
        let line = mounts.lines().find(|line| line.contains(" /var/data "));
        let words: Vec<&str> = line.unwrap().split(' ').collect();
        assert!(words[5].starts_with("rw,nosuid,nodev"), "{words:?}");
        assert_eq!(words[6], "-", "private: {words:?}");

        // kill -9 of the process.
        let first = node.pid("hello-1");
        kill_9(first);
        node.wait_for_process("hello-1", "a restart", |it| {
            it.restarts == 1 && it.state == ProcessState::Healthy
        })
        .await;
        let kept = inside(&node, "hello-1", "/var/data/kept");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "data\n");
        assert_ne!(node.pid("hello-1"), first);

        // kill -9 of the agent, then of the process.
        node.kill_agent();
        assert_eq!(fs::read_to_string(&kept).unwrap(), "data\n");
        kill_9(node.pid("hello-1"));
        node.start_agent().await;
        node.wait_for_process("hello-1", "another restart", |it| {
            it.restarts == 2 && it.state == ProcessState::Healthy
        })
        .await;
        let kept = inside(&node, "hello-1", "/var/data/kept");
        assert_eq!(fs::read_to_string(kept).unwrap(), "data\n");
        assert_eq!(loop_devices(&node).len(), 1);

        // Another process of the slot has it, too; other instances are not removed.
        let mut next = with_volume("hello", 2, "64MiB", "");
        next.volumes[0].may_create = false;
        let set = DesiredSet {
            removed_volumes: vec![instance("hello", 2)],
            ..desired(2, vec![next])
        };
        node.controller.announce(2);
        assert_eq!(node.put(&set).await.0, 200);
        node.wait_until_healthy("hello-2").await;
        let kept = inside(&node, "hello-2", "/var/data/kept");
        assert_eq!(fs::read_to_string(kept).unwrap(), "data\n");
        remove_all(&node, 3, instance("hello", 1)).await;
    });
}

#[test]
fn a_full_volume_harms_nobody_and_goes_on_when_it_grows() {
    if !can() {
        return;
    }
    on_a_node("", async |node| {
        let hog = "user = \"0\"\nenv = { HOG_FILE = \"/var/data/hog\", HOG_MIB = \"100\" }";
        let neighbour = process("hello", 1, "");
        let first = with_volume("disk-hog", 1, "64MiB", hog);
        node.desire(1, vec![first, neighbour.clone()]).await;
        let running = node.wait_until_healthy("disk-hog-1").await;
        node.wait_until_healthy("hello-1").await;
        let pid = node.pid("disk-hog-1");
        let answer = node.get(&running, "/hog").await;
        assert!(
            answer
                .as_ref()
                .ok()
                .is_none_or(|answer| answer != "written\n"),
            "{answer:?}"
        );
        let hog_file = node.data("volumes/disk-hog.data.1/mount/data/hog");
        let written = fs::metadata(&hog_file).unwrap().len();
        assert!((40 << 20..64 << 20).contains(&written), "{written}");
        node.wait_for("its use", |report| {
            let volume = volume_in(report)?;
            (volume.used? > Bytes::mib(40)).then_some(())
        })
        .await;

        let mut larger = with_volume("disk-hog", 1, "160MiB", hog);
        larger.revision = Revision(2);
        node.desire(2, vec![larger, neighbour]).await;
        if !can_grow_in_use() {
            // It says so, and grows when its process starts again.
            node.wait_for_process("disk-hog-1", "its reason", |it| {
                let reason = it.reason.as_deref();
                reason.is_some_and(|reason| reason.contains("lacks CAP_SYS_RESOURCE"))
            })
            .await;
            kill_9(node.pid("disk-hog-1"));
        }
        node.wait_for_process("disk-hog-1", "revision 2", |it| it.revision == Revision(2))
            .await;
        let report = node.wait_until_healthy("disk-hog-1").await;
        if can_grow_in_use() {
            assert_eq!((report.restarts, node.pid("disk-hog-1")), (0, pid));
        }
        assert_eq!(report.reason, None);
        assert_eq!(node.get(&running, "/hog").await.unwrap(), "written\n");
        assert_eq!(fs::metadata(&hog_file).unwrap().len(), 100 << 20);
        let size = node.wait_for("its size", |report| Some(volume_in(report)?.size));
        assert_eq!(size.await, Bytes::mib(160));
        assert_eq!(node.wait_until_healthy("hello-1").await.restarts, 0);
        remove_all(&node, 3, instance("disk-hog", 1)).await;
    });
}

#[test]
fn a_volume_gets_the_images_content_and_its_links_lead_nowhere_else() {
    if !can() {
        return;
    }
    on_a_node("", async |node| {
        // The volume's path leads through a link of the image to what the node has, too; so does a file's, into the volume.
        let outside = node.root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let link = format!("../../../../../..{}", outside.display());
        let layers = [
            vec![
                Entry::directory("var/"),
                Entry::symlink("var/data", &link),
                Entry::directory("run/"),
                Entry::symlink("etc-app", &outside.display().to_string()),
            ],
            vec![
                Entry::directory(&format!("{}/", &outside.display().to_string()[1..]))
                    .mode(0o2770)
                    .owner(70, 71),
                Entry::file(
                    &format!("{}/seed", &outside.display().to_string()[1..]),
                    "seed",
                )
                .mode(0o640)
                .owner(70, 0),
            ],
        ];
        let image = image(&layers);
        node.controller.publish(&image);
        let mut process = with_volume(
            "hello",
            1,
            "16MiB",
            "[[file]]\npath = \"/etc-app/a.toml\"\ncontent = \"a\"\n",
        );
        process.image = image.manifest_digest.parse().unwrap();
        node.desire(1, vec![process]).await;
        node.wait_until_healthy("hello-1").await;
        let root = root_of(&node, "hello-1");
        let data = inside(&node, "hello-1", &outside.display().to_string());
        let found = fs::metadata(&data).unwrap();
        assert_eq!(
            (found.uid(), found.gid(), found.mode() & 0o7777),
            (root + 70, root + 71, 0o2770)
        );
        let seed = fs::metadata(data.join("seed")).unwrap();
        assert_eq!(
            (seed.uid(), seed.gid(), seed.mode() & 0o777),
            (root + 70, root, 0o640)
        );
        assert_eq!(fs::read_to_string(data.join("a.toml")).unwrap(), "a");
        assert_eq!(
            fs::read_dir(&outside).unwrap().count(),
            0,
            "nothing of it is on the node"
        );

        // A link that the process plants in its volume, where a file is mounted at the next start, leads into the container.
        let planted = "rm -f seed a.toml; ln -s /planted a.toml; echo planted";
        let script = format!("cd .{} && {planted}", outside.display());
        as_root_of(&node, "hello-1", &script);
        kill_9(node.pid("hello-1"));
        node.wait_for_process("hello-1", "a restart", |it| {
            it.restarts == 1 && it.state == ProcessState::Healthy
        })
        .await;
        assert!(!Path::new("/planted").exists());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        remove_all(&node, 2, instance("hello", 1)).await;
    });
}

#[test]
fn a_volume_has_one_process_at_a_time() {
    if !can() {
        return;
    }
    on_a_node("", async |node| {
        // It has no handler of SIGTERM, and is killed after its time.
        let slow = "stop_timeout = \"500ms\"\nenv = { START_DELAY_MS = \"0\" }";
        let of = |number| with_volume("slow-start", number, "16MiB", slow);
        node.desire(1, vec![of(1), of(2)]).await;
        node.wait_until_healthy("slow-start-1").await;
        let waits = node
            .wait_for_process("slow-start-2", "its reason", |it| it.reason.is_some())
            .await;
        assert_eq!(waits.state, ProcessState::Pulling);
        assert_eq!(
            waits.reason.as_deref(),
            Some("it waits until slow-start-1, which has volume slow-start/data/1, is gone")
        );
        node.desire(2, vec![of(2)]).await;
        let runs = |report: &NodeReport, id: &str| {
            let mut all = report.processes.iter();
            all.any(|it| it.id.as_str() == id && it.started_at.is_some())
        };
        node.wait_for("the second process", |report| {
            let both = runs(report, "slow-start-1") && runs(report, "slow-start-2");
            assert!(!both, "{report:#?}");
            runs(report, "slow-start-2").then_some(())
        })
        .await;
        node.wait_until_healthy("slow-start-2").await;
        remove_all(&node, 3, instance("slow-start", 1)).await;
    });
}

#[test]
fn a_volume_that_is_not_where_it_was_keeps_its_process_waiting() {
    if !can() {
        return;
    }
    on_a_node("", async |mut node| {
        node.desire(1, vec![with_volume("hello", 1, "16MiB", "")])
            .await;
        node.wait_until_healthy("hello-1").await;
        as_root_of(&node, "hello-1", "echo data > var/data/kept");
        node.end_agent();
        kill_9(node.pid("hello-1"));
        // As after a boot without its disk.
        let (place, aside) = (node.data("volumes"), node.root.path().join("aside"));
        let mount_point = place.join("hello.data.1/mount");
        tucano_testkit::wait_for("the unmount", crate::node::PATIENCE, || {
            nix::mount::umount(&mount_point).ok()
        });
        fs::rename(&place, &aside).unwrap();
        fs::create_dir(&place).unwrap();
        node.start_agent().await;
        let told = node
            .wait_for_process("hello-1", "back-off", |it| {
                it.state == ProcessState::BackOff
                    && it
                        .reason
                        .as_deref()
                        .is_some_and(|reason| reason.contains("mounted?"))
            })
            .await;
        assert!(
            told.reason
                .unwrap()
                .contains("is not the one that this node had")
        );
        let problem = node.wait_for("the problem", |report| volume_in(report)?.problem.clone());
        assert!(problem.await.contains("mounted?"));
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
        fs::remove_dir(&place).unwrap();
        fs::rename(&aside, &place).unwrap();
        node.wait_until_healthy("hello-1").await;
        let kept = inside(&node, "hello-1", "/var/data/kept");
        assert_eq!(fs::read_to_string(kept).unwrap(), "data\n");
        remove_all(&node, 2, instance("hello", 1)).await;
    });
}

#[test]
fn a_killed_agent_leaves_no_half_a_volume() {
    if !can() {
        return;
    }
    on_a_node("", async |mut node| {
        let content = Entry::file("var/data/content", vec![7; 48 << 20]);
        let image = image(&[vec![
            Entry::directory("var/"),
            Entry::directory("var/data/"),
            content,
        ]]);
        node.controller.publish(&image);
        let mut process = with_volume("hello", 1, "64MiB", "");
        process.image = image.manifest_digest.parse().unwrap();
        node.desire(1, vec![process]).await;
        let unfinished = node.data("volumes/hello.data.1.new");
        for _ in 0..3 {
            let begun = || unfinished.exists() || node.data("volumes/hello.data.1").exists();
            node.wait_for("the creation", |_| begun().then_some(()))
                .await;
            node.kill_agent();
            node.start_agent().await;
        }
        node.wait_until_healthy("hello-1").await;
        let copied = inside(&node, "hello-1", "/var/data/content");
        assert_eq!(fs::read(copied).unwrap(), vec![7; 48 << 20]);
        assert!(!unfinished.exists());
        remove_all(&node, 2, instance("hello", 1)).await;
    });
}

#[test]
fn a_service_gets_listed_directories_of_the_node_and_no_others() {
    on_a_node("", async |mut node| {
        let srv = node.root.path().join("srv");
        fs::create_dir_all(srv.join("media")).unwrap();
        fs::create_dir_all(node.root.path().join("private")).unwrap();
        fs::write(srv.join("media/film"), "film").unwrap();
        chown(srv.join("media/film"), Some(33), Some(0)).unwrap();
        fs::set_permissions(&srv, fs::Permissions::from_mode(0o755)).unwrap();
        symlink("../private", srv.join("out")).unwrap();
        let listed = format!("host_paths = [{:?}]\n", srv.display().to_string());
        node.end_agent();
        node.reconfigure(|text| listed.clone() + &text);
        node.start_agent().await;
        let report = node.controller.last_report().unwrap();
        assert_eq!(report.host_paths, [srv.display().to_string()]);
        assert!(report.keys.iter().any(|key| key == "volume"), "{report:?}");

        let mount = |path: &str, more: &str| {
            let host = node.root.path().join(path).display().to_string();
            process(
                "hello",
                1,
                &format!("[[mount]]\npath = \"/media\"\nhost = {host:?}\n{more}"),
            )
        };
        for (generation, path, reason) in [
            (1, "private", "is not below a directory that host_paths"),
            (2, "srv/out", "leads to"),
            (3, "srv/missing", "it is not created by Tucano"),
        ] {
            node.desire(generation, vec![mount(path, "")]).await;
            node.wait_for_process("hello-1", reason, |it| {
                it.state == ProcessState::BackOff
                    && it
                        .reason
                        .as_deref()
                        .is_some_and(|told| told.contains(reason))
            })
            .await;
        }
        assert!(!srv.join("missing").exists());
        node.desire(4, vec![mount("srv/media", "")]).await;
        node.wait_until_healthy("hello-1").await;
        let root = root_of(&node, "hello-1");
        let film = fs::metadata(inside(&node, "hello-1", "/media/film")).unwrap();
        assert_eq!(film.uid(), root + 33);
        as_root_of(&node, "hello-1", "echo mine > media/mine");
        let mine = fs::metadata(srv.join("media/mine")).unwrap();
        assert_eq!(
            (mine.uid(), mine.len()),
            (0, 5),
            "as the node's root: the sysadmin's consent"
        );

        node.desire(5, vec![mount("srv/media", "read_only = true\n")])
            .await;
        node.wait_for_process("hello-1", "read-only", |it| {
            it.state == ProcessState::Healthy
                && fs::read_to_string(format!("/proc/{}/mountinfo", node.pid("hello-1")))
                    .is_ok_and(|all| all.contains(" /media ro,nosuid,nodev"))
        })
        .await;
        as_root_of(&node, "hello-1", "echo more > media/more");
        assert!(!srv.join("media/more").exists());
        node.remove_all(6).await;
        assert_eq!(fs::read_to_string(srv.join("media/film")).unwrap(), "film");
    });
}

/// An image of the sample program with these layers on top.
fn image(layers: &[Vec<Entry>]) -> tucano_image_builder::Layout {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let programs = tucano_image_builder::build_programs(workspace).unwrap();
    let hello = fs::read(programs.join("hello")).unwrap();
    let program = vec![Entry::file("hello", hello).mode(0o755)];
    let all = [&[program], layers].concat();
    let layers = all
        .iter()
        .map(|entries| Layer::new(entries, Compression::Gzip).unwrap());
    layers
        .fold(ImageSpec::new("hello"), ImageSpec::layer)
        .build()
        .unwrap()
}
