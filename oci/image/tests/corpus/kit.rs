//! Cases of the corpus, and how they are checked.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use oci_spec::image::{Descriptor, Digest};
use serde_json::Value;
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer, Layout};
use tucano_oci_image::{Error, Form, Image, Layers, Limits, Store};
use tucano_testkit::{Need, ROOT, needs};

use crate::common::platform;

/// An oddly built image.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    layers: Vec<Layer>,
    config: Option<fn(&mut Value)>,
    manifest: Option<fn(&mut Value)>,
    expected: Expected,
    /// Why an image that others accept is refused here.
    pub(crate) because: Option<&'static str>,
}

enum Expected {
    /// Paths of the mounted image, with what is there.
    Files(Vec<(&'static str, &'static str)>),
    /// A code, and a part of the message.
    Refused(&'static str, &'static str),
}

/// An image of layers with these entries, lowest first.
pub(crate) fn case<const N: usize>(name: &'static str, layers: [Vec<Entry>; N]) -> Case {
    let layers = layers.map(|entries| Layer::new(&entries, Compression::Gzip).unwrap());
    case_of(name, layers.into())
}

/// An image of these layers, lowest first.
pub(crate) fn case_of(name: &'static str, layers: Vec<Layer>) -> Case {
    Case {
        name,
        layers,
        config: None,
        manifest: None,
        expected: Expected::Files(Vec::new()),
        because: None,
    }
}

/// An image of one layer, which is this tar.
pub(crate) fn tar_case(name: &'static str, tar: &[u8]) -> Case {
    case_of(name, vec![Layer::from_tar(tar, Compression::Gzip).unwrap()])
}

impl Case {
    /// Accepted; the mounted image has these files: `dir MODE UID:GID`, `file MODE UID:GID CONTENT`, `link TARGET`,
    /// `fifo MODE UID:GID`, `absent`, or `NAME=VALUE` of an attribute. A path may come several times.
    pub(crate) fn has(mut self, files: &[(&'static str, &'static str)]) -> Self {
        self.expected = Expected::Files(files.to_vec());
        self
    }

    pub(crate) fn refused(mut self, code: &'static str, message: &'static str) -> Self {
        self.expected = Expected::Refused(code, message);
        self
    }

    pub(crate) fn because(mut self, reason: &'static str) -> Self {
        self.because = Some(reason);
        self
    }

    pub(crate) fn config(mut self, change: fn(&mut Value)) -> Self {
        self.config = Some(change);
        self
    }

    pub(crate) fn manifest(mut self, change: fn(&mut Value)) -> Self {
        self.manifest = Some(change);
        self
    }

    pub(crate) fn is_accepted(&self) -> bool {
        matches!(self.expected, Expected::Files(_))
    }

    pub(crate) fn layout(&self) -> Layout {
        let mut image = ImageSpec::new("odd");
        for layer in &self.layers {
            image = image.layer(layer.clone());
        }
        if let Some(change) = self.config {
            image = image.edit_config(change);
        }
        if let Some(change) = self.manifest {
            image = image.edit_manifest(change);
        }
        image.build().unwrap()
    }

    fn check(&self) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), Limits::default()).unwrap();
        let imported = store.import_archive(&self.layout().archive().unwrap()[..], &platform());
        for form in [Form::Directories, Form::Erofs] {
            let context = format!("{} as {form:?}", self.name);
            match (&self.expected, &imported) {
                (Expected::Refused(code, message), Err(error)) => {
                    assert_eq!(error.code(), *code, "{context}: {error}");
                    assert!(error.to_string().contains(message), "{context}: {error}");
                    self.check_unpacking_is_refused(&store, directory.path(), form);
                }
                (Expected::Refused(..), Ok(_)) => panic!("{context} is accepted"),
                (Expected::Files(_), Err(error)) => panic!("{context}: {error}"),
                (Expected::Files(files), Ok(image)) => {
                    let mounted = Mounted::new(&store, image, directory.path(), form)
                        .unwrap_or_else(|error| panic!("{context}: {error}"));
                    for (path, expected) in files {
                        mounted.check(path, expected, &context);
                    }
                }
            }
        }
    }

    /// A layer that an import refuses is refused by the nodes too: they use the same rules.
    fn check_unpacking_is_refused(&self, store: &Store, directory: &Path, form: Form) {
        let layers = Layers::open_in_form(
            &directory.join(format!("{form:?}")),
            Limits::default(),
            form,
        )
        .unwrap();
        let unpacked = self.layers.iter().map(|layer| {
            let digest = tucano_oci_image::digest_of(&layer.blob);
            store.ingest_blob(&digest, &layer.blob[..]).unwrap();
            let media_type = layer.compression.media_type().into();
            let descriptor = Descriptor::new(media_type, layer.blob.len() as u64, digest);
            let diff_id: Digest = layer.diff_id.parse().unwrap();
            layers.unpack(store, &descriptor, &diff_id)
        });
        let unpacked: Result<Vec<PathBuf>, Error> = unpacked.collect();
        let is_refused_by_its_documents = self.config.is_some() || self.manifest.is_some();
        assert!(
            unpacked.is_err() || is_refused_by_its_documents,
            "{} is unpacked as {form:?}",
            self.name
        );
    }
}

/// Checks these cases in a mount namespace of their own.
pub(crate) fn check_all(cases: Vec<Case>) {
    if !needs(&[ROOT, Need::Exists("/proc/self/ns/mnt")]) {
        return;
    }
    own_mounts();
    for case in cases {
        case.check();
    }
}

pub(crate) fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let nothing = None::<&Path>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).unwrap();
}

/// An image as a container sees it.
pub(crate) struct Mounted {
    root: PathBuf,
    layers: Layers,
}

impl Mounted {
    pub(crate) fn new(
        store: &Store,
        image: &Image,
        directory: &Path,
        form: Form,
    ) -> Result<Self, Error> {
        let place = directory.join(format!("{form:?}"));
        let layers = Layers::open_in_form(&place, Limits::default(), form)?;
        layers.unpack_all(store, &image.layers())?;
        let ids = image.layers().into_iter().map(|(_, diff_id)| diff_id);
        let stack = layers.stack(&ids.collect::<Vec<_>>())?;
        Ok(Self {
            root: overlay(&stack, directory, &format!("{form:?}")),
            layers,
        })
    }

    fn check(&self, path: &str, expected: &str, context: &str) {
        check_file(&self.root, path, expected, context);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.root, MntFlags::MNT_DETACH).unwrap();
        self.layers.retain(&[]).unwrap();
    }
}

/// Mounts these directories, lowest first, as an overlay.
pub(crate) fn overlay(stack: &[PathBuf], directory: &Path, name: &str) -> PathBuf {
    let (root, empty) = (
        directory.join(format!("root-{name}")),
        directory.join("empty"),
    );
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&empty).unwrap();
    let lower: Vec<_> = stack.iter().rev().chain([&empty]).collect();
    let lower: Vec<_> = lower.iter().map(|path| path.to_str().unwrap()).collect();
    let options = format!("lowerdir={}", lower.join(":"));
    mount(
        Some("overlay"),
        &root,
        Some("overlay"),
        MsFlags::MS_RDONLY,
        Some(&options[..]),
    )
    .unwrap();
    root
}

pub(crate) fn check_file(root: &Path, path: &str, expected: &str, context: &str) {
    let whole = root.join(path);
    let actual = match expected.split_once('=') {
        Some((name, _)) if name.contains('.') && !name.contains(' ') => {
            format!("{name}={}", attribute(&whole, name))
        }
        _ => describe(&whole),
    };
    assert_eq!(actual, expected, "{path} of {context}\n{:#?}", list(root));
}

fn attribute(path: &Path, name: &str) -> String {
    let mut value = [0; 256];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => String::from_utf8_lossy(&value[..length]).into_owned(),
        Err(error) => error.to_string(),
    }
}

fn describe(path: &Path) -> String {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return "absent".to_owned();
    };
    let looks = format!(
        "{:o} {}:{}",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid()
    );
    match metadata.mode() & 0o170_000 {
        0o040_000 => format!("dir {looks}"),
        0o120_000 => format!("link {}", fs::read_link(path).unwrap().display()),
        0o010_000 => format!("fifo {looks}"),
        0o100_000 => {
            let content = fs::read(path).unwrap();
            let text = String::from_utf8_lossy(&content).into_owned();
            match content.len() {
                0..=40 => format!("file {looks} {text}"),
                bytes => format!("file {looks} {bytes} bytes"),
            }
        }
        0o020_000 => format!("char {looks} {}", metadata.rdev()),
        _ => format!("other {looks}"),
    }
}

/// All files of a tree, for failures.
fn list(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
            all.insert(String::from_utf8_lossy(name).into_owned(), describe(&path));
            if fs::symlink_metadata(&path).unwrap().is_dir() && all.len() < 100 {
                left.push(path);
            }
        }
    }
    all
}
