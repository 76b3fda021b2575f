//! Images that are mounted into containers of other images.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::sys::{
    signal::{Signal, kill},
    statvfs::{FsFlags, statvfs},
};
use tucano_api::agent::{DesiredProcess, ProcessReport};
use tucano_image_builder::{Entry, Layer, Layout};

use crate::{
    images::{DIRECTORIES, EROFS, diff_id, image_of, layer, mounts, process_of, program, word},
    node::{Node, on_a_node, process},
};

#[test]
fn the_files_of_an_image_are_mounted_from_directories() {
    on_a_node(DIRECTORIES, async |node| {
        has_the_files(&node).await;
        assert_eq!(mounts(&node).len(), 0);
        node.remove_all(2).await;
    });
}

#[test]
fn the_files_of_an_image_are_mounted_from_erofs_images() {
    on_a_node(EROFS, async |node| {
        has_the_files(&node).await;
        // One for each layer, although both images have one of them.
        assert_eq!(mounts(&node).len(), 4);
        node.remove_all(2).await;
        assert_eq!(mounts(&node).len(), 0);
    });
}

/// An image of three layers beside that of the service, which has the lowest one, too.
async fn has_the_files(node: &Node) {
    let shared = word("shared");
    let lower = layer(&[
        Entry::file("gone", ""),
        Entry::file("full/of", ""),
        Entry::directory("owned").owner(7, 8).mode(0o750),
        Entry::file("owned/model", "weights")
            .owner(7, 8)
            .mode(0o4640),
        Entry::symlink("latest", "owned/model"),
    ]);
    let hiding = layer(&[
        Entry::file(".wh.gone", ""),
        Entry::file("full/.wh..wh..opq", ""),
        Entry::file("full/new", "new"),
    ]);
    let models = image_of(vec![shared.clone(), lower, hiding]);
    let own = image_of(vec![program(), shared.clone()]);
    run(node, &own, &[("/models", &models)], "").await;
    assert_eq!(node.controller.requests_for(&shared.blob), 1);
    let inside = inside(node, "/models");
    let names = fs::read_dir(&inside).unwrap();
    let names: BTreeSet<_> = names.map(|it| it.unwrap().file_name()).collect();
    let expected = ["full", "latest", "owned", "word"].map(Into::into);
    assert_eq!(names, expected.into());
    assert!(!inside.join("full/of").exists());
    assert_eq!(fs::read_to_string(inside.join("full/new")).unwrap(), "new");
    let latest = fs::read_link(inside.join("latest")).unwrap();
    assert_eq!(latest, Path::new("owned/model"));

    let map = fs::read_to_string(format!("/proc/{}/uid_map", node.pid("hello-1"))).unwrap();
    let first: u32 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
    for (path, mode) in [("owned", 0o750), ("owned/model", 0o4640)] {
        let of = fs::metadata(inside.join(path)).unwrap();
        let found = (of.uid(), of.gid(), of.mode() & 0o7777);
        assert_eq!(found, (first + 7, first + 8, mode), "{path}");
    }

    let flags = statvfs(&inside).unwrap().flags();
    let expected = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV;
    assert!(flags.contains(expected), "{flags:?}");
    for path in ["owned/model", "new"] {
        let error = fs::write(inside.join(path), "x").unwrap_err();
        let kind = error.kind();
        assert_eq!(kind, std::io::ErrorKind::ReadOnlyFilesystem, "{path}");
    }
}

#[test]
fn mounted_images_stay_while_a_process_has_them() {
    on_a_node(EROFS, async |mut node| {
        let own = image_of(vec![program()]);
        let weights = word("weights");
        let models = image_of(vec![weights.clone()]);
        run(&node, &own, &[("/models", &models)], "").await;
        node.kill_agent();
        let read = |node: &Node| fs::read_to_string(inside(node, "/models/word")).unwrap();
        assert_eq!(read(&node), "weights");
        node.start_agent().await;
        node.wait_until_healthy("hello-1").await;
        assert_eq!(read(&node), "weights");

        // The end of another process removes what nothing uses, its layer among it.
        let other = word("other");
        let others = image_of(vec![program(), other.clone()]);
        node.controller.publish(&others);
        let first = mounting(&own, 1, &[("/models", &models)], "");
        let both = vec![first.clone(), process_of(&others, 2)];
        node.desire(2, both).await;
        node.wait_until_healthy("hello-2").await;
        assert!(has_layer(&node, &other));
        node.desire(3, vec![first]).await;
        node.wait_for("its layer to be removed", |_| {
            (!has_layer(&node, &other)).then_some(())
        })
        .await;
        assert!(has_layer(&node, &weights));

        // The next container of the process has it without another fetch.
        let fetched = node.controller.requests_for(&weights.blob);
        let pid = node.pid("hello-1");
        let target = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
        kill(target, Signal::SIGKILL).unwrap();
        node.wait_for_process("hello-1", "a restart", |it| {
            it.restarts == 1 && it.node_port.is_some()
        })
        .await;
        node.wait_until_healthy("hello-1").await;
        assert_ne!(node.pid("hello-1"), pid);
        assert_eq!(read(&node), "weights");
        assert_eq!(node.controller.requests_for(&weights.blob), fetched);

        node.remove_all(4).await;
        node.wait_for("all layers to be removed", |_| {
            let layers = fs::read_dir(node.data("layers")).unwrap();
            (layers.count() == 0).then_some(())
        })
        .await;
    });
}

#[test]
fn an_image_is_mounted_where_a_link_leads_and_below_a_read_only_root() {
    on_a_node("", async |node| {
        let links = layer(&[
            Entry::symlink("models", "../../../real"),
            Entry::directory("real"),
        ]);
        let own = image_of(vec![program(), links]);
        let (one, other) = (image_of(vec![word("one")]), image_of(vec![word("other")]));
        let mounts = [("/models", &one), ("/deep/and/missing", &other)];
        run(&node, &own, &mounts, "read_only = true").await;
        let read = |path: &str| fs::read_to_string(inside(&node, path)).unwrap();
        assert_eq!(read("/real/word"), "one");
        assert_eq!(read("/deep/and/missing/word"), "other");
        assert!(!Path::new("/real").exists());
        node.remove_all(2).await;
    });
}

#[test]
fn the_same_image_may_be_run_and_mounted_twice() {
    on_a_node("", async |node| {
        let own = image_of(vec![program(), word("own")]);
        run(&node, &own, &[("/a", &own), ("/b", &own)], "").await;
        for path in ["/word", "/a/word", "/b/word"] {
            assert_eq!(fs::read_to_string(inside(&node, path)).unwrap(), "own");
        }
        node.remove_all(2).await;
    });
}

#[test]
fn an_image_that_is_not_there_is_told_with_its_path() {
    on_a_node("", async |node| {
        let own = image_of(vec![program()]);
        let models = image_of(vec![word("weights")]);
        node.controller.publish(&own);
        let wanted = mounting(&own, 1, &[("/models", &models)], "");
        node.desire(1, vec![wanted.clone()]).await;
        let is_told = |process: &ProcessReport| {
            let reason = process.reason.as_deref().unwrap_or_default();
            reason.contains("the image that is mounted on /models: cannot fetch")
                && reason.contains(&models.manifest_digest)
        };
        node.wait_for_process("hello-1", "told", is_told).await;
        node.controller.publish(&models);
        node.wait_until_healthy("hello-1").await;

        let mut unresolved = process_of(&own, 2);
        unresolved.config.mount = wanted.config.mount.clone();
        unresolved.config.mount[0].digest = None;
        node.desire(2, vec![wanted, unresolved]).await;
        let is_told = |process: &ProcessReport| {
            let reason = process.reason.as_deref().unwrap_or_default();
            reason.contains("does not say which image is mounted on /models")
        };
        node.wait_for_process("hello-2", "told", is_told).await;
        node.remove_all(3).await;
    });
}

/// Runs an image with others mounted at these paths.
async fn run(node: &Node, own: &Layout, mounted: &[(&str, &Layout)], more: &str) {
    node.controller.publish(own);
    for (_, image) in mounted {
        node.controller.publish(image);
    }
    node.desire(1, vec![mounting(own, 1, mounted, more)]).await;
    node.wait_until_healthy("hello-1").await;
}

fn mounting(own: &Layout, number: u64, mounted: &[(&str, &Layout)], more: &str) -> DesiredProcess {
    let mounts = mounted.iter().map(|(path, image)| {
        format!(
            "\n[[mount]]\npath = \"{path}\"\nimage = \"models:1\"\ndigest = \"{}\"",
            image.manifest_digest
        )
    });
    let config = process(
        "hello",
        number,
        &(more.to_owned() + &mounts.collect::<String>()),
    );
    DesiredProcess {
        kept: Default::default(),
        devices: Vec::new(),
        image: own.manifest_digest.parse().unwrap(),
        ..config
    }
}

fn has_layer(node: &Node, layer: &Layer) -> bool {
    let name = diff_id(layer);
    let at = |name: &str| node.data("layers").join(name).exists();
    at(&name) || at(&format!("{name}.erofs"))
}

/// A path in the container's root, as the host reaches it.
fn inside(node: &Node, path: &str) -> PathBuf {
    format!("/proc/{}/root{path}", node.pid("hello-1")).into()
}
