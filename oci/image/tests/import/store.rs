//! Single blobs, damage on the disk, and garbage collection.

use std::{fs, thread};

use tucano_image_builder::{Entry, layout::sha256};
use tucano_oci_image::{Digest, Limits, Store};

use crate::common::{Place, hello, image_of, platform};

#[test]
fn single_blobs_are_stored() {
    let place = Place::new();
    let digest: Digest = sha256(b"blob").parse().unwrap();
    let error = place.store.ingest_blob(&digest, &b"blub"[..]).unwrap_err();
    assert_eq!(
        (error.code(), place.blobs(), place.unfinished()),
        ("digest_mismatch", 0, 0)
    );
    place.store.ingest_blob(&digest, &b"blob"[..]).unwrap();
    place
        .store
        .ingest_blob(&digest, &b"whatever: it is there"[..])
        .unwrap();
    assert_eq!((place.blobs(), place.unfinished()), (1, 0));
    let small = Place::with(Limits {
        archive_bytes: 3,
        ..Limits::default()
    });
    assert_eq!(
        small
            .store
            .ingest_blob(&digest, &b"blob"[..])
            .unwrap_err()
            .code(),
        "too_large"
    );
}

#[test]
fn a_damaged_blob_is_removed_and_stored_again() {
    let place = Place::new();
    let image = place.import(&hello()).unwrap();
    for digest in image.blobs() {
        let path = place
            .directory
            .path()
            .join("store/blobs/sha256")
            .join(digest.digest());
        let whole = fs::read(&path).unwrap();
        assert_eq!(
            place.store.verify_blob(&digest).unwrap(),
            whole.len() as u64
        );
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert_eq!(
            place.store.verify_blob(&digest).unwrap_err().code(),
            "digest_mismatch"
        );
        assert_eq!(
            place.store.verify_blob(&digest).unwrap_err().code(),
            "not_found"
        );
        place.store.ingest_blob(&digest, &whole[..]).unwrap();
        assert!(place.store.verify_blob(&digest).is_ok());
    }
    // Uploading the blob again also repairs it.
    for digest in image.blobs() {
        let path = place
            .directory
            .path()
            .join("store/blobs/sha256")
            .join(digest.digest());
        fs::write(path, "damaged").unwrap();
    }
    assert_eq!(
        place.store.image(&image.digest).unwrap_err().code(),
        "digest_mismatch"
    );
    place.import(&hello()).unwrap();
    assert!(place.unpack(&image).is_ok());
}

#[test]
fn reading_an_image_detects_damage() {
    let place = Place::new();
    let flip = |digest: &Digest| {
        let blobs = place.directory.path().join("store/blobs/sha256");
        let path = blobs.join(digest.digest());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let image = place.import(&hello()).unwrap();
    for digest in image.blobs() {
        assert!(place.store.open_verified(&digest).is_ok());
        flip(&digest);
        // Its time has changed: it is verified again, and removed.
        let error = place.store.open_verified(&digest).unwrap_err();
        assert_eq!(error.code(), "digest_mismatch");
        assert_eq!(
            place.store.open_verified(&digest).unwrap_err().code(),
            "not_found"
        );
        place.import(&hello()).unwrap();
    }
    let layer = image.manifest.layers()[0].digest();
    for digest in [layer, image.manifest.config().digest(), &image.digest] {
        flip(digest);
        let read = place.store.image(&image.digest);
        let read = read.and_then(|image| place.store.verify(&image));
        assert_eq!(read.unwrap_err().code(), "digest_mismatch");
        assert!(!place.store.contains(digest), "it can be stored again");
        place.import(&hello()).unwrap();
        place.store.verify(&image).unwrap();
    }
    flip(&image.digest);
    assert!(place.store.resolve(&image.digest, &platform()).is_err());
    assert!(!place.store.contains(&image.digest));
}

#[test]
fn unreferenced_blobs_are_collected() {
    let place = Place::new();
    let kept = place.import(&hello()).unwrap();
    let shared = [
        Entry::directory("etc"),
        Entry::file("etc/passwd", "root:x:0:0::/:/\n"),
    ];
    let gone = place
        .import(&image_of(&[&shared, &[Entry::file("other", "x")]]))
        .unwrap();
    assert_eq!(place.blobs(), 7, "they share a layer");
    let absent: Digest = sha256(b"absent").parse().unwrap();
    let expected: u64 = [gone.digest.clone(), gone.manifest.config().digest().clone()]
        .iter()
        .chain([gone.manifest.layers()[1].digest()])
        .map(|blob| place.store.open_blob(blob).unwrap().1)
        .sum();
    assert_eq!(
        place.store.retain(&[kept.digest.clone(), absent]).unwrap(),
        expected
    );
    assert_eq!(place.blobs(), 4);
    assert!(place.store.image(&kept.digest).is_ok());
    assert_eq!(
        place.store.image(&gone.digest).unwrap_err().code(),
        "not_found"
    );
    assert!(place.store.retain(&[]).unwrap() > 0);
    assert_eq!(place.blobs(), 0);
}

#[test]
fn nothing_is_collected_if_a_manifest_cannot_be_parsed() {
    let place = Place::new();
    let image = place.import(&hello()).unwrap();
    let path = place
        .directory
        .path()
        .join("store/blobs/sha256")
        .join(image.digest.digest());
    fs::write(path, "{}").unwrap();
    assert_eq!(
        place.store.retain(&[image.digest]).unwrap_err().code(),
        "digest_mismatch"
    );
    assert_eq!(place.blobs(), 4);
}

#[test]
fn concurrent_imports_and_collection_are_safe() {
    let place = Place::new();
    let root = place.directory.path().join("store");
    let archive = hello().archive().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // A second handle, as of another program.
                let store = Store::open(&root, Limits::default()).unwrap();
                for _ in 0..20 {
                    store.import_archive(&archive[..], &platform()).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..50 {
                place.store.retain(&[]).unwrap();
            }
        });
    });
    let image = place
        .store
        .import_archive(&archive[..], &platform())
        .unwrap();
    for blob in image.blobs() {
        assert!(place.store.contains(&blob));
    }
    assert_eq!((place.blobs(), place.unfinished()), (4, 0));
}

#[test]
fn incomplete_imports_of_an_earlier_run_are_removed() {
    let place = Place::new();
    let root = place.directory.path();
    fs::create_dir(root.join("store/ingest/.tmp-x")).unwrap();
    fs::write(root.join("store/ingest/.tmp-x/blob"), "half").unwrap();
    fs::create_dir(root.join("layers/.tmp-y")).unwrap();
    assert_eq!(place.unfinished(), 2);
    Store::open(&root.join("store"), Limits::default()).unwrap();
    tucano_oci_image::Layers::open(&root.join("layers"), Limits::default()).unwrap();
    assert_eq!(place.unfinished(), 0);
}
