//! Unusual images, both formats of layers, and damage on the disk.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use tucano_api::agent::{DesiredProcess, ProcessReport};
use tucano_image_builder::{
    Compression, Entry, ImageSpec, Layer, Layout,
    layout::{blob_path, sha256},
};

use crate::node::{Node, on_a_node, process};

#[test]
fn an_image_of_sixty_layers_runs() {
    on_a_node("", async |node| {
        let numbered = |number: u32| {
            let own = Entry::file(&format!("layer-{number}"), "");
            layer(&[own, Entry::file("uppermost", number.to_string())])
        };
        let layers = (1..60).map(numbered);
        let root = run(&node, [program()].into_iter().chain(layers).collect()).await;
        assert_eq!(fs::read_to_string(root.join("uppermost")).unwrap(), "59");
        assert!((1..60).all(|number| root.join(format!("layer-{number}")).exists()));
        node.remove_all(2).await;
    });
}

#[test]
fn of_identical_layers_the_uppermost_counts() {
    on_a_node("", async |node| {
        let (first, second) = (word("first"), word("second"));
        let (empty, again) = (layer(&[]), layer(&[]));
        let layers = vec![program(), first, empty, second, again, word("first")];
        let root = run(&node, layers).await;
        assert_eq!(fs::read_to_string(root.join("word")).unwrap(), "first");
        node.remove_all(2).await;
    });
}

pub(crate) const DIRECTORIES: &str = "[images]\nunpack = \"directories\"\n";
pub(crate) const EROFS: &str = "[images]\nunpack = \"erofs\"\n";

#[test]
fn layers_that_are_directories() {
    on_a_node(DIRECTORIES, async |node| {
        runs_with_ids_mapped(&node).await;
        assert_eq!(mounts(&node).len(), 0);
        node.remove_all(2).await;
    });
}

#[test]
fn layers_that_are_images() {
    on_a_node(EROFS, async |node| {
        runs_with_ids_mapped(&node).await;
        assert_eq!(mounts(&node).len(), 3);
        node.remove_all(2).await;
        assert_eq!(mounts(&node).len(), 0);
        node.wait_for("the layers to be removed", |_| {
            let layers = fs::read_dir(node.data("layers")).unwrap();
            (layers.count() == 0).then_some(())
        })
        .await;
    });
}

/// Runs an image of three layers whose uppermost one hides and changes files below. Each file has its owner in the process's user
/// namespace.
async fn runs_with_ids_mapped(node: &Node) {
    let lower = layer(&[
        Entry::file("gone", ""),
        Entry::file("full/of", ""),
        Entry::file("owned", "x").owner(7, 8).mode(0o4751),
    ]);
    let hiding = layer(&[
        Entry::file(".wh.gone", ""),
        Entry::file("full/.wh..wh..opq", ""),
        Entry::file("full/new", "new"),
    ]);
    let root = run(node, vec![program(), lower, hiding]).await;
    assert!(!root.join("gone").exists() && !root.join("full/of").exists());
    assert_eq!(fs::read_to_string(root.join("full/new")).unwrap(), "new");
    let owned = fs::metadata(root.join("owned")).unwrap();
    let map = format!("/proc/{}/uid_map", node.pid("hello-1"));
    let map = fs::read_to_string(map).unwrap();
    let first: u32 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(
        (owned.uid(), owned.mode() & 0o7777),
        (first + 7, 0o4751),
        "{map}"
    );
}

/// The mounted layers.
pub(crate) fn mounts(node: &Node) -> Vec<String> {
    let layers = node.data("layers").display().to_string();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let own = mounts.lines().filter(|line| line.contains(&layers));
    own.map(str::to_owned).collect()
}

#[test]
fn mounted_layers_survive_the_agent() {
    on_a_node(EROFS, async |mut node| {
        let root = run(&node, vec![program(), word("first")]).await;
        let before = mounts(&node);
        node.kill_agent();
        assert_eq!(fs::read_to_string(root.join("word")).unwrap(), "first");
        node.start_agent().await;
        node.wait_until_healthy("hello-1").await;
        assert_eq!(mounts(&node), before);
        assert_eq!(fs::read_to_string(root.join("word")).unwrap(), "first");
        node.remove_all(2).await;
        assert_eq!(mounts(&node).len(), 0);
    });
}

#[test]
fn damage_in_a_directory_is_detected_before_the_next_start() {
    on_a_node(DIRECTORIES, async |node| {
        damage_is_detected(node, "word").await
    });
}

#[test]
fn damage_in_an_erofs_image_is_detected_before_the_next_start() {
    on_a_node(EROFS, async |node| damage_is_detected(node, "").await);
}

/// Flips a bit of the layer's file `path`, or of the layer's image, while the agent is down.
async fn damage_is_detected(mut node: Node, path: &str) {
    let root = run(&node, vec![program(), word("first")]).await;
    let uppermost = diff_id(&word("first"));
    let file = match path {
        "" => node.data("layers").join(format!("{uppermost}.erofs")),
        path => node.data("layers").join(uppermost).join(path),
    };
    node.kill_agent();
    flip_a_bit(&file);
    node.start_agent().await;
    // Running processes are not affected; the start of another process detects the damage.
    let image = image_of(vec![program(), word("first")]);
    let both = [1, 2].map(|number| process_of(&image, number));
    node.desire(2, both.to_vec()).await;
    node.wait_until_healthy("hello-2").await;
    assert!(
        node.logged().contains("damaged on the disk"),
        "{}",
        node.logged()
    );
    let anew = PathBuf::from(format!("/proc/{}/root", node.pid("hello-2")));
    assert_eq!(fs::read_to_string(anew.join("word")).unwrap(), "first");
    assert!(root.join("hello").exists());
    node.remove_all(3).await;
}

fn flip_a_bit(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    let at = file.metadata().unwrap().len() - 1;
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// The hexadecimal part of a layer's diff-id.
pub(crate) fn diff_id(layer: &Layer) -> String {
    layer.diff_id.trim_start_matches("sha256:").to_owned()
}

#[test]
fn damaged_documents_are_fetched_again() {
    on_a_node("", async |mut node| {
        run(&node, vec![program()]).await;
        node.kill_agent();
        let blobs = fs::read_dir(node.data("images/blobs/sha256")).unwrap();
        for blob in blobs {
            flip_a_bit(&blob.unwrap().path());
        }
        node.start_agent().await;
        let image = image_of(vec![program()]);
        let both = [1, 2].map(|number| process_of(&image, number));
        node.desire(2, both.to_vec()).await;
        // None of the damaged documents can be parsed, so the process runs from newly fetched ones.
        node.wait_until_healthy("hello-2").await;
        let logged = node.logged();
        assert!(!logged.contains("cannot start"), "{logged}");
        node.remove_all(3).await;
    });
}

#[test]
fn a_prefetched_layer_is_not_fetched_again() {
    on_a_node("", async |node| {
        let early = word("early");
        let image = image_of(vec![program(), early.clone()]);
        node.controller.publish(&image);
        assert_eq!(node.prefetch(&[&early.blob]).await, 202);
        wait_for_layer(&node, &early).await;
        // A repeated hint does nothing.
        assert_eq!(node.prefetch(&[&early.blob]).await, 202);
        node.controller.withdraw(&early.blob);
        node.desire(1, vec![process_of(&image, 1)]).await;
        node.wait_until_healthy("hello-1").await;
        let root = PathBuf::from(format!("/proc/{}/root", node.pid("hello-1")));
        assert_eq!(fs::read_to_string(root.join("word")).unwrap(), "early");
        node.remove_all(2).await;
    });
}

#[test]
fn unused_prefetched_layers_are_removed() {
    on_a_node("", async |node| {
        let (unused, no_layer) = (word("unused"), b"{\"no\": \"layer\"}".repeat(99));
        let mut published = image_of(vec![unused.clone()]);
        let path = blob_path(&sha256(&no_layer));
        published.files.insert(path, no_layer.clone());
        node.controller.publish(&published);
        let unknown = b"that nobody has";
        assert_eq!(
            node.prefetch(&[&no_layer, unknown, &unused.blob]).await,
            202
        );
        wait_for_layer(&node, &unused).await;
        run(&node, vec![program()]).await;
        node.remove_all(2).await;
        node.wait_for("the layers to be removed", |_| {
            let layers = fs::read_dir(node.data("layers")).unwrap();
            (layers.count() == 0).then_some(())
        })
        .await;
    });
}

async fn wait_for_layer(node: &Node, layer: &Layer) {
    let name = diff_id(layer);
    node.wait_for("the layer to be unpacked", |_| {
        let mut layers = fs::read_dir(node.data("layers")).unwrap();
        let is_it = |found: &str| found == name || found == format!("{name}.erofs");
        layers
            .any(|it| it.unwrap().file_name().to_str().is_some_and(is_it))
            .then_some(())
    })
    .await;
}

#[test]
fn volumes_in_directories_are_writable_below_a_read_only_root() {
    on_a_node(DIRECTORIES, async |node| volumes_are_writable(&node).await);
}

#[test]
fn volumes_in_erofs_images_are_writable_below_a_read_only_root() {
    on_a_node(EROFS, async |node| volumes_are_writable(&node).await);
}

/// Declared volumes: one with content, one that no layer has, and one through a link.
async fn volumes_are_writable(node: &Node) {
    let content = layer(&[
        Entry::directory("data").owner(7, 8).mode(0o750),
        Entry::file("data/kept", "of the image").owner(7, 8),
        Entry::symlink("linked", "/srv/target"),
        Entry::directory("srv/target"),
        Entry::directory("other"),
    ]);
    let volumes = serde_json::json!({ "/data": {}, "/made/deep": {}, "/linked": {}, "/": {} });
    let image = ImageSpec::new("hello")
        .layer(program())
        .layer(content)
        .edit_config(move |config| config["config"]["Volumes"] = volumes.clone())
        .build()
        .unwrap();
    node.controller.publish(&image);
    let mut desired = process("hello", 1, "read_only = true");
    desired.image = image.manifest_digest.parse().unwrap();
    node.desire(1, vec![desired]).await;
    node.wait_until_healthy("hello-1").await;
    let root = PathBuf::from(format!("/proc/{}/root", node.pid("hello-1")));
    let is_read_only = |path: &str| {
        let found = nix::sys::statvfs::statvfs(&root.join(path)).unwrap();
        found
            .flags()
            .contains(nix::sys::statvfs::FsFlags::ST_RDONLY)
    };
    for path in ["data", "made/deep", "srv/target", "tmp"] {
        assert!(!is_read_only(path), "{path}");
    }
    for path in ["", "other", "made", "srv", "etc"] {
        assert!(is_read_only(path), "{path}");
    }
    assert_eq!(
        fs::read_to_string(root.join("data/kept")).unwrap(),
        "of the image"
    );
    let map = fs::read_to_string(root.join("proc/1/uid_map")).unwrap();
    let first: u32 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
    let owned = fs::metadata(root.join("data")).unwrap();
    assert_eq!((owned.uid(), owned.mode() & 0o7777), (first + 7, 0o750));
    node.remove_all(2).await;
}

#[test]
fn a_layer_that_is_refused_is_not_fetched_for_ever() {
    on_a_node("", async |node| {
        let hostile = layer(&[Entry::file("../escape", "x")]);
        let blob = hostile.blob.clone();
        let image = image_of(vec![program(), hostile]);
        node.controller.publish(&image);
        node.desire(1, vec![process_of(&image, 1)]).await;
        let tried = |process: &ProcessReport| process.attempts >= 5;
        let process = node
            .wait_for_process("hello-1", "tried five times", tried)
            .await;
        assert_eq!(node.controller.requests_for(&blob), 3);
        let reason = process.reason.unwrap();
        assert!(reason.contains("escape"), "{reason}");
        assert!(reason.contains("refused 3 times"), "{reason}");
        // Another revision without the layer runs.
        let good = image_of(vec![program()]);
        node.controller.publish(&good);
        node.desire(2, vec![process_of(&good, 2)]).await;
        node.wait_until_healthy("hello-2").await;
        node.remove_all(3).await;
    });
}

/// Runs an image of these layers; returns its root directory as the program sees it.
async fn run(node: &Node, layers: Vec<Layer>) -> PathBuf {
    let image = image_of(layers);
    node.controller.publish(&image);
    node.desire(1, vec![process_of(&image, 1)]).await;
    node.wait_until_healthy("hello-1").await;
    PathBuf::from(format!("/proc/{}/root", node.pid("hello-1")))
}

pub(crate) fn image_of(layers: Vec<Layer>) -> Layout {
    let spec = layers
        .into_iter()
        .fold(ImageSpec::new("hello"), ImageSpec::layer);
    spec.build().unwrap()
}

pub(crate) fn process_of(image: &Layout, number: u64) -> DesiredProcess {
    let mut desired = process("hello", number, "");
    desired.image = image.manifest_digest.parse().unwrap();
    desired
}

pub(crate) fn program() -> Layer {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let programs = tucano_image_builder::build_programs(workspace).unwrap();
    let hello = fs::read(programs.join("hello")).unwrap();
    layer(&[Entry::file("hello", hello).mode(0o755)])
}

pub(crate) fn word(content: &str) -> Layer {
    layer(&[Entry::file("word", content)])
}

pub(crate) fn layer(entries: &[Entry]) -> Layer {
    Layer::new(entries, Compression::Gzip).unwrap()
}
