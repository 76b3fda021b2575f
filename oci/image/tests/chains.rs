//! What belongs to a chain of layers, and not to a layer: layers are shared between images.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use common::{Place, image_of};
use oci_spec::image::Digest;
use tucano_image_builder::Entry;
use tucano_oci_image::{Form, Image, Layers, Limits};
use tucano_testkit::{Need, ROOT, needs};

/// Mode and owner of a directory in the uppermost directory of a stack that has it.
fn looks(stack: &[PathBuf], path: &str) -> (u32, u32) {
    let paths = stack.iter().rev().map(|directory| directory.join(path));
    let metadata = paths
        .filter_map(|path| fs::symlink_metadata(path).ok())
        .next()
        .unwrap();
    (metadata.mode() & 0o7777, metadata.uid())
}

fn diff_ids(image: &Image) -> Vec<Digest> {
    image.layers().into_iter().map(|(_, id)| id).collect()
}

fn base(mode: u32, owner: u32) -> [Entry; 1] {
    [Entry::directory("data").mode(mode).owner(owner, owner)]
}

/// The layers of one form, mounts in the test's own namespace.
fn layers_in(form: Form, place: &Place) -> Layers {
    let root = place.directory.path().join(format!("{form:?}"));
    Layers::open_in_form(&root, Limits::default(), form).unwrap()
}

fn own_mounts() -> bool {
    if !needs(&[ROOT, Need::Exists("/proc/self/ns/mnt")]) {
        return false;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let nothing = None::<&Path>;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(nothing, "/", nothing, private, nothing).unwrap();
    true
}

#[test]
fn one_layer_above_two_bases_looks_as_each_base() {
    if !own_mounts() {
        return;
    }
    for form in [Form::Directories, Form::Erofs] {
        let place = Place::new();
        let layers = layers_in(form, &place);
        let shared = [Entry::file("data/x", "x")];
        let (first, second) = (base(0o700, 1000), base(0o1777, 0));
        let images = [&first, &second].map(|base| {
            let image = place.import(&image_of(&[base, &shared])).unwrap();
            layers.unpack_all(&place.store, &image.layers()).unwrap();
            image
        });
        let stacks = images
            .each_ref()
            .map(|image| layers.stack(&diff_ids(image)).unwrap());
        assert_eq!(looks(&stacks[0], "data"), (0o700, 1000), "{form:?}");
        assert_eq!(looks(&stacks[1], "data"), (0o1777, 0), "{form:?}");
        assert_eq!(stacks[0][1], stacks[1][1], "the layer is shared");
        // A second call finds the same directory.
        assert_eq!(layers.stack(&diff_ids(&images[0])).unwrap(), stacks[0]);
        assert_eq!(stacks[0].len(), 3);

        layers.retain(&diff_ids(&images[1])).unwrap();
        assert!(
            layers.stack(&diff_ids(&images[0])).is_err(),
            "its base is gone"
        );
        layers.retain(&[]).unwrap();
        let left = fs::read_dir(place.directory.path().join(format!("{form:?}"))).unwrap();
        assert_eq!(left.count(), 0, "nothing is left of the chains");
    }
}

#[test]
fn an_image_whose_layers_list_their_parents_has_no_additional_directory() {
    if !own_mounts() {
        return;
    }
    for form in [Form::Directories, Form::Erofs] {
        let place = Place::new();
        let layers = layers_in(form, &place);
        let top = [
            Entry::directory("./"),
            Entry::directory("data").mode(0o755),
            Entry::file("data/x", "x"),
        ];
        let image = place.import(&image_of(&[&base(0o700, 5), &top])).unwrap();
        layers.unpack_all(&place.store, &image.layers()).unwrap();
        let stack = layers.stack(&diff_ids(&image)).unwrap();
        assert_eq!(stack.len(), 2, "{form:?}");
        assert_eq!(looks(&stack, "data"), (0o755, 0), "{form:?}");
        layers.retain(&[]).unwrap();
    }
}

#[test]
fn layers_without_marks_are_judged_by_their_directories() {
    if !own_mounts() {
        return;
    }
    let place = Place::new();
    let top = [Entry::file("data/x", "x")];
    let image = place.import(&image_of(&[&base(0o700, 5), &top])).unwrap();
    let directories = place.unpack(&image).unwrap();
    // As an earlier version unpacked them.
    for path in [directories[1].clone(), directories[1].join("data")] {
        let mark = "trusted.overlay.tucano";
        rustix::fs::removexattr(&path, mark).unwrap();
    }
    let stack = place.layers.stack(&diff_ids(&image)).unwrap();
    assert_eq!(looks(&stack, "data"), (0o700, 5));
}

#[test]
fn declared_volumes_exist() {
    if !own_mounts() {
        return;
    }
    for form in [Form::Directories, Form::Erofs] {
        let place = Place::new();
        let layers = layers_in(form, &place);
        let image = place.import(&image_of(&[&base(0o700, 5)])).unwrap();
        layers.unpack_all(&place.store, &image.layers()).unwrap();
        let volumes = ["/data", "/var/lib/db", "../x", "/"].map(str::to_owned);
        let stack = layers
            .stack_with_volumes(&diff_ids(&image), &volumes)
            .unwrap();
        assert_eq!(looks(&stack, "data"), (0o700, 5), "{form:?}");
        assert_eq!(looks(&stack, "var/lib/db"), (0o755, 0), "{form:?}");
        layers.retain(&[]).unwrap();
    }
}
