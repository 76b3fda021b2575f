//! Images of unusual shape.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};

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
fn a_layer_that_an_image_has_twice_counts_where_it_is_uppermost() {
    on_a_node("", async |node| {
        let (first, second) = (word("first"), word("second"));
        let (empty, again) = (layer(&[]), layer(&[]));
        let layers = vec![program(), first, empty, second, again, word("first")];
        let root = run(&node, layers).await;
        assert_eq!(fs::read_to_string(root.join("word")).unwrap(), "first");
        node.remove_all(2).await;
    });
}

/// Runs an image of these layers; the root directory that its program sees.
async fn run(node: &Node, layers: Vec<Layer>) -> PathBuf {
    let spec = layers
        .into_iter()
        .fold(ImageSpec::new("hello"), ImageSpec::layer);
    let image = spec.build().unwrap();
    node.controller.publish(&image);
    let mut desired = process("hello", 1, "");
    desired.image = image.manifest_digest.parse().unwrap();
    node.desire(1, vec![desired]).await;
    node.wait_until_healthy("hello-1").await;
    PathBuf::from(format!("/proc/{}/root", node.pid("hello-1")))
}

fn program() -> Layer {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let programs = tucano_image_builder::build_programs(workspace).unwrap();
    let hello = fs::read(programs.join("hello")).unwrap();
    layer(&[Entry::file("hello", hello).mode(0o755)])
}

fn word(content: &str) -> Layer {
    layer(&[Entry::file("word", content)])
}

fn layer(entries: &[Entry]) -> Layer {
    Layer::new(entries, Compression::Gzip).unwrap()
}
