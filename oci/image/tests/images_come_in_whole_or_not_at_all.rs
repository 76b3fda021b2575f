//! Import: what comes in whole is there afterwards, and of what does not, no trace.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Place, hello, platform};
use tucano_oci_image::Image;

#[test]
fn an_image_comes_in_and_is_found_again() {
    let place = Place::new();
    let layout = hello();
    let image = place
        .store
        .import_archive(&layout.archive().unwrap()[..], &platform())
        .unwrap();
    assert_eq!(image.digest.to_string(), layout.manifest_digest);
    assert_eq!(image.layers().len(), 2);
    assert_eq!(image.blobs().len(), 4);
    let again: Image = place.store.image(&image.digest).unwrap();
    assert_eq!(
        (again.manifest, again.config),
        (image.manifest.clone(), image.config.clone())
    );
    for blob in image.blobs() {
        assert!(place.store.contains(&blob));
    }
    assert_eq!(place.unfinished(), 0);
}
