//! Layers are unpacked by a process that is confined to the layer's directory, with the same result as without confinement.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use oci_spec::image::{Descriptor, Digest, MediaType};
use tucano_image_builder::{Compression, Entry, ImageSpec, Kind, Layer};
use tucano_oci_image::{Error, Form, Helper, Layers, Limits, Platform, Store, digest_of};
use tucano_testkit::{ROOT, needs, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

fn helper() -> Helper {
    Helper {
        program: env!("CARGO_BIN_EXE_tucano_agentd").into(),
        arguments: vec!["unpack-layer".into()],
    }
}

/// A compressed layer with its diff-id.
fn layer(entries: &[Entry]) -> (Vec<u8>, Descriptor, Digest) {
    let layout = ImageSpec::new("confined")
        .layer(Layer::new(entries, Compression::Gzip).unwrap())
        .build()
        .unwrap();
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path(), Limits::default()).unwrap();
    let image = store
        .import_archive(&layout.archive().unwrap()[..], &Platform::host())
        .unwrap();
    let (descriptor, diff_id) = image.layers()[0].clone();
    let mut blob = Vec::new();
    let (mut file, _) = store.open_blob(descriptor.digest()).unwrap();
    file.read_to_end(&mut blob).unwrap();
    (blob, descriptor, diff_id)
}

fn all_kinds() -> (Vec<u8>, Descriptor, Digest) {
    layer(&[
        Entry::file("dir/file", vec![7; 300_000])
            .owner(3, 4)
            .mode(0o4751),
        Entry::hardlink("dir/again", "dir/file"),
        Entry::symlink("link", "dir"),
        Entry::file("link/through", "a link"),
        Entry::file("dir/.wh.gone", ""),
        Entry::file("hidden/.wh..wh..opq", ""),
        Entry::new("null", Kind::CharDevice { major: 1, minor: 3 }),
        Entry::new("fifo", Kind::Fifo),
        Entry::file("swapped/deep/file", ""),
        Entry::file("swapped", "no directory any more"),
    ])
}

fn layers(form: Form) -> (tempfile::TempDir, Layers) {
    let place = tempfile::tempdir().unwrap();
    let layers = Layers::open_in_form(place.path(), Limits::default(), form).unwrap();
    (place, layers)
}

/// The layer's seal, a checksum of everything in it.
fn seal(place: &Path, diff_id: &Digest) -> String {
    fs::read_to_string(place.join(format!("{}.seal", diff_id.digest()))).unwrap()
}

#[test]
fn confined_unpacking_gives_the_same_result() {
    if !needs(&[ROOT]) {
        return;
    }
    let (blob, descriptor, diff_id) = all_kinds();
    let mut seals = Vec::new();
    for confined in [false, true] {
        let (place, layers) = layers(Form::Directories);
        if confined {
            layers.use_helper(helper()).unwrap();
        }
        let directory = layers
            .unpack_stream(&mut &blob[..], &descriptor, &diff_id)
            .unwrap();
        assert!(directory.join("dir/through").is_file());
        layers.verify(&diff_id).unwrap();
        seals.push(seal(place.path(), &diff_id));
    }
    assert_eq!(seals[0], seals[1]);
}

#[test]
fn faults_of_a_layer_are_reported_by_the_helper() {
    if !needs(&[ROOT]) {
        return;
    }
    let (place, layers) = layers(Form::Directories);
    layers.use_helper(helper()).unwrap();
    let (blob, descriptor, diff_id) = all_kinds();
    let mut damaged = blob.clone();
    damaged[blob.len() / 2] ^= 1;
    let refused = |blob: &[u8], descriptor: &Descriptor, diff_id: &Digest| {
        let error = layers.unpack_stream(&mut &blob[..], descriptor, diff_id);
        let error: Error = error.unwrap_err();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{error}");
        error.code()
    };
    assert_eq!(refused(&damaged, &descriptor, &diff_id), "digest_mismatch");
    let half = &blob[..blob.len() / 2];
    assert_eq!(refused(half, &descriptor, &diff_id), "digest_mismatch");
    assert_eq!(
        refused(&blob, &descriptor, &digest_of(b"other")),
        "digest_mismatch"
    );
    let garbage = b"not a tar archive".repeat(100);
    let descriptor = Descriptor::new(
        MediaType::ImageLayer,
        garbage.len() as u64,
        digest_of(&garbage),
    );
    assert_eq!(
        refused(&garbage, &descriptor, &digest_of(&garbage)),
        "malformed"
    );
}

#[test]
fn a_helper_that_does_not_work_is_not_used() {
    if !needs(&[ROOT]) {
        return;
    }
    let (_place, layers) = layers(Form::Directories);
    for program in ["/does/not/exist", "/bin/true", "/bin/false"] {
        let helper = Helper {
            program: program.into(),
            arguments: Vec::new(),
        };
        assert!(layers.use_helper(helper).is_err(), "{program}");
    }
    let (blob, descriptor, diff_id) = all_kinds();
    layers
        .unpack_stream(&mut &blob[..], &descriptor, &diff_id)
        .unwrap();
}

/// A reader of a blob that pauses in the middle until it receives a message.
struct PausedReader {
    bytes: io::Cursor<Vec<u8>>,
    pause_at: u64,
    resume: mpsc::Receiver<()>,
}

impl Read for PausedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.pause_at.saturating_sub(self.bytes.position());
        if left == 0 {
            // An error means that the sender was dropped: the test has failed already.
            self.resume.recv().unwrap_or_default();
            self.pause_at = u64::MAX;
            return self.bytes.read(buffer);
        }
        let most = buffer.len().min(left as usize);
        self.bytes.read(&mut buffer[..most])
    }
}

/// The helper process that unpacks this layer.
fn worker(diff_id: &Digest) -> Option<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut found = processes.map(|entry| entry.path()).filter(|process| {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        command.contains("unpack-layer") && command.contains(diff_id.digest())
    });
    found.next()
}

#[test]
fn the_process_that_reads_a_layer_is_confined() {
    if !needs(&[ROOT]) {
        return;
    }
    let (_place, layers) = layers(Form::Directories);
    layers.use_helper(helper()).unwrap();
    let (blob, descriptor, diff_id) = layer(&[Entry::file("like-no-other", "")]);
    let (resume, resumed) = mpsc::channel();
    let mut reader = PausedReader {
        pause_at: blob.len() as u64 / 2,
        bytes: io::Cursor::new(blob),
        resume: resumed,
    };
    thread::scope(|scope| {
        let unpacking = scope.spawn(|| {
            layers
                .unpack_stream(&mut reader, &descriptor, &diff_id)
                .unwrap()
        });
        // The seccomp filter is installed last.
        let process = wait_for("the confined process", PATIENCE, || {
            let process = worker(&diff_id)?;
            (field(&process, "Seccomp") == "2").then_some(process)
        });
        assert_eq!(field(&process, "NoNewPrivs"), "1");
        // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN, MKNOD, SETFCAP; an empty bounding set prevents gaining others.
        for (set, capabilities) in [
            ("CapEff", 0x8820_001b_u64),
            ("CapPrm", 0x8820_001b),
            ("CapBnd", 0),
            ("CapInh", 0),
            ("CapAmb", 0),
        ] {
            let has = u64::from_str_radix(&field(&process, set), 16).unwrap();
            assert_eq!(has & !capabilities, 0, "{set}");
        }
        for namespace in ["mnt", "net", "ipc", "uts"] {
            let of = |process: &Path| fs::read_link(process.join("ns").join(namespace)).unwrap();
            assert_ne!(of(&process), of(Path::new("/proc/self")), "{namespace}");
        }
        let mounts = fs::read_to_string(process.join("mounts")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert!(mounts.contains("nosuid,nodev,noexec"), "{mounts}");
        resume.send(()).unwrap();
        assert!(unpacking.join().unwrap().is_dir());
    });
}

fn field(process: &Path, name: &str) -> String {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}
