//! Damage to unpacked layers is detected in both forms.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use common::{Place, image_of};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use oci_spec::image::{Descriptor, Digest};
use rustix::fs::{Mode, OFlags};
use tucano_image_builder::Entry;
use tucano_oci_image::{Form, Layers, Limits};
use tucano_testkit::{ROOT, needs};

struct Unpacked {
    place: Place,
    layers: Layers,
    layer: Descriptor,
    diff_id: Digest,
    directory: PathBuf,
}

impl Unpacked {
    fn in_form(form: Form) -> Self {
        let place = Place::new();
        let root = place.directory.path().join("other");
        let layers = Layers::open_in_form(&root, Limits::default(), form).unwrap();
        let entries = [
            Entry::file("d/f", vec![7; 9000]),
            Entry::symlink("link", "d/f"),
            Entry::file("d/.wh.gone", ""),
        ];
        let image = place.import(&image_of(&[&entries])).unwrap();
        let (layer, diff_id) = image.layers().remove(0);
        let directory = layers.unpack(&place.store, &layer, &diff_id).unwrap();
        Self {
            place,
            layers,
            layer,
            diff_id,
            directory,
        }
    }

    fn root(&self) -> PathBuf {
        self.place.directory.path().join("other")
    }

    /// The damage is detected once; then the layer is unpacked again, while users of the old one continue.
    fn is_found(&self, what: &str) {
        let held = open(&self.directory);
        let error = self.layers.verify(&self.diff_id).unwrap_err();
        assert_eq!(error.code(), "layer_damaged", "{what}: {error}");
        assert_eq!(self.layers.get(&self.diff_id), None, "{what}");
        assert_eq!(
            self.layers.verify(&self.diff_id).unwrap_err().code(),
            "not_found"
        );
        let anew = self
            .layers
            .unpack(&self.place.store, &self.layer, &self.diff_id);
        assert_eq!(
            fs::read(anew.unwrap().join("d/f")).unwrap(),
            [7; 9000],
            "{what}"
        );
        self.layers.verify(&self.diff_id).unwrap();
        let link = format!("/proc/self/fd/{}/link", held.as_raw_fd());
        assert!(
            fs::symlink_metadata(link).is_ok(),
            "{what}: the old one is still there"
        );
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        self.layers.retain(&[]).unwrap();
        assert_eq!(fs::read_dir(self.root()).unwrap().count(), 0);
    }
}

fn open(directory: &Path) -> rustix::fd::OwnedFd {
    rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn flip_a_bit(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn in_a_directory() {
    if !needs(&[ROOT]) {
        return;
    }
    let unpacked = Unpacked::in_form(Form::Directories);
    let directory = &unpacked.directory;
    unpacked.layers.verify(&unpacked.diff_id).unwrap();
    flip_a_bit(&directory.join("d/f"), 8999);
    unpacked.is_found("content");
    fs::remove_file(directory.join("d/f")).unwrap();
    unpacked.is_found("a missing file");
    fs::write(directory.join("more"), "").unwrap();
    unpacked.is_found("an additional file");
    fs::remove_file(directory.join("d/gone")).unwrap();
    unpacked.is_found("a whiteout");
    File::options()
        .write(true)
        .open(directory.join("d/f"))
        .unwrap()
        .set_len(8000)
        .unwrap();
    unpacked.is_found("a size");
    let seal = directory.with_extension("seal");
    fs::write(&seal, "directory 1 what?").unwrap();
    unpacked.is_found("a damaged seal");
    fs::remove_file(&seal).unwrap();
    unpacked.is_found("no seal");
}

#[test]
fn in_an_image() {
    if !needs(&[ROOT]) {
        return;
    }
    // Keeps the mounts private.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let nothing = None::<&Path>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .unwrap();
    let unpacked = Unpacked::in_form(Form::Erofs);
    unpacked.layers.verify(&unpacked.diff_id).unwrap();
    let image = unpacked.directory.with_extension("erofs");
    let bytes = fs::metadata(&image).unwrap().len();
    // The superblock, data, inodes and directories.
    for at in [1024, 4096, 4096 + 8999, 4096 + 9216 + 40, bytes - 512] {
        flip_a_bit(&image, at);
        unpacked.is_found(&format!("byte {at} of {bytes}"));
    }
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(bytes - 512)
        .unwrap();
    unpacked.is_found("a size");
    fs::remove_file(unpacked.directory.with_extension("seal")).unwrap();
    unpacked.is_found("no seal");
}
