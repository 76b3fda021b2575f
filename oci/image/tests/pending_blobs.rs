//! Received blobs of an import can be opened during the import. They are not part of the store, and vanish if it fails.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{self, Read},
    sync::{Arc, Mutex},
};

use common::{Place, hello, platform};
use tucano_oci_image::{Digest, Store, digest_of};

/// An archive that ends after its first bytes.
struct Cut(io::Cursor<Vec<u8>>);

impl Read for Cut {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionAborted.into()),
            read => Ok(read),
        }
    }
}

type Heard = Arc<Mutex<Vec<(Digest, u64)>>>;

/// Imports; returns the announced blobs, each of which was opened when it was announced.
fn import(place: &Place, archive: impl Read) -> (bool, Vec<(Digest, u64)>) {
    let heard = Heard::default();
    let (note, store) = (heard.clone(), place.store.clone());
    let told = move |digest: &Digest, bytes: u64| {
        look_at(&store, digest, bytes);
        note.lock().unwrap().push((digest.clone(), bytes));
    };
    let imported =
        place
            .store
            .import_archive_with_listener(archive, &platform(), None, Some(Box::new(told)));
    let heard = heard.lock().unwrap().clone();
    (imported.is_ok(), heard)
}

fn look_at(store: &Store, digest: &Digest, bytes: u64) {
    assert!(!store.contains(digest));
    let (mut file, length) = store.open_pending(digest).unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    assert_eq!((length, digest_of(&content)), (bytes, digest.clone()));
}

#[test]
fn each_complete_blob_can_be_opened_during_the_import() {
    let place = Place::new();
    let (taken, heard) = import(&place, &hello().archive().unwrap()[..]);
    assert!(taken);
    assert_eq!(heard.len(), place.blobs());
    for (digest, _) in heard {
        assert!(place.store.contains(&digest));
        assert_eq!(
            place.store.open_pending(&digest).unwrap_err().code(),
            "not_found"
        );
    }
}

#[test]
fn a_failed_import_leaves_no_blob() {
    let place = Place::new();
    let mut archive = hello().archive().unwrap();
    archive.truncate(archive.len() - 1024);
    let (taken, heard) = import(&place, Cut(io::Cursor::new(archive)));
    assert!(!taken && !heard.is_empty());
    assert_eq!((place.blobs(), place.unfinished()), (0, 0));
    for (digest, _) in heard {
        assert_eq!(
            place.store.open_pending(&digest).unwrap_err().code(),
            "not_found"
        );
    }
}

#[test]
fn a_blob_of_two_imports_is_available_until_both_end() {
    let place = Place::new();
    let archive = hello().archive().unwrap();
    let (outer, inner) = (place.store.clone(), archive.clone());
    let once = Mutex::new(true);
    let told = move |digest: &Digest, bytes: u64| {
        if !std::mem::take(&mut *once.lock().unwrap()) {
            return;
        }
        // Another import of the same archive starts and fails during this one.
        let cut = Cut(io::Cursor::new(inner[..inner.len() - 1024].to_vec()));
        let none = |_: &Digest, _: u64| ();
        let failed =
            outer.import_archive_with_listener(cut, &platform(), None, Some(Box::new(none)));
        assert!(failed.is_err());
        assert!(!outer.contains(digest) && bytes > 0);
    };
    let image = place
        .store
        .import_archive_with_listener(&archive[..], &platform(), None, Some(Box::new(told)))
        .unwrap();
    assert_eq!(place.blobs(), image.layers().len() + 2);
}
