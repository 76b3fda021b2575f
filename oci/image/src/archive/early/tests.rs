use super::*;
use crate::{content::ingest::Blobs, scratch::Scratch};
use crate::{digest::digest_of, layer::stream::MAGIC_BYTES};
use oci_spec::image::MediaType;
use tucano_image_builder::{Compression, Entry, Layer};

/// Receives a blob in pieces of so many bytes.
fn check(blob: &[u8], piece: usize, limits: &Limits) -> Option<CheckedLayer> {
    let digest = digest_of(blob);
    let mut left = blob;
    let read = |buffer: &mut [u8]| {
        let most = buffer.len().min(piece);
        Ok(left.read(&mut buffer[..most]).unwrap())
    };
    let work = |read: &mut Reader<'_>| {
        let mut taken = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match read(&mut buffer).unwrap() {
                0 => return taken,
                bytes => taken.extend_from_slice(&buffer[..bytes]),
            }
        }
    };
    let (taken, checked) = check_while_receiving(&digest, blob.len() as u64, limits, read, work);
    assert!(taken == blob, "the stored bytes are unchanged");
    checked
}

fn layer(compression: Compression) -> Layer {
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|at| (at.wrapping_mul(at) >> 7) as u8)
        .collect();
    Layer::new(&[Entry::file("f", content)], compression).unwrap()
}

#[test]
fn a_valid_layer_is_recognised_during_the_transfer() {
    for (compression, media_type) in [
        (Compression::Gzip, MediaType::ImageLayerGzip),
        (Compression::Zstd, MediaType::ImageLayerZstd),
    ] {
        let layer = layer(compression);
        for piece in [MAGIC_BYTES, 4096] {
            let checked = check(&layer.blob, piece, &Limits::default()).unwrap();
            let descriptor =
                |bytes| Descriptor::new(media_type.clone(), bytes, digest_of(&layer.blob));
            let bytes = layer.blob.len() as u64;
            assert!(checked.is(&descriptor(bytes), &layer.diff_id.parse().unwrap()));
            assert!(!checked.is(&descriptor(bytes + 1), &layer.diff_id.parse().unwrap()));
            assert!(!checked.is(&descriptor(bytes), &digest_of(b"other")));
            let plain = Descriptor::new(MediaType::ImageLayer, bytes, digest_of(&layer.blob));
            assert!(checked.is(&plain, &layer.diff_id.parse().unwrap()));
        }
    }
}

#[test]
fn an_invalid_layer_is_left_for_the_later_check() {
    let limits = Limits::default();
    let mut gzip = layer(Compression::Gzip).blob;
    let small = Limits {
        layer_bytes: 1000,
        ..Limits::default()
    };
    assert!(check(&gzip, 4096, &small).is_none());
    gzip.truncate(gzip.len() / 2);
    assert!(check(&gzip, 4096, &limits).is_none());
    let no_tar = Compression::Gzip.compress(&[7; 100_000]).unwrap();
    assert!(check(&no_tar, 4096, &limits).is_none());
    let outside = Layer::new(&[Entry::file("../f", "")], Compression::Gzip).unwrap();
    assert!(check(&outside.blob, 4096, &limits).is_none());
    assert!(check(b"{}", 4096, &limits).is_none());
    assert!(check(b"", 4096, &limits).is_none());
}

#[test]
fn at_most_as_many_layers_are_checked_as_an_image_may_have() {
    let place = tempfile::tempdir().unwrap();
    let mut ingest = Ingest::new(Scratch::create(place.path()).unwrap());
    let mut checks = EarlyChecks::default();
    let limits = Limits {
        layers: 1,
        ..Limits::default()
    };
    for (name, is_checked) in [("a", true), ("b", false)] {
        let layer = Layer::new(&[Entry::file(name, "")], Compression::Gzip).unwrap();
        let (digest, bytes) = (digest_of(&layer.blob), layer.blob.len() as u64);
        let mut left = &layer.blob[..];
        let read = |buffer: &mut [u8]| Ok(left.read(buffer).unwrap());
        checks
            .receive(&mut ingest, &digest, bytes, read, &limits)
            .unwrap();
        let descriptor = Descriptor::new(MediaType::ImageLayerGzip, bytes, digest.clone());
        let diff_id = layer.diff_id.parse().unwrap();
        assert_eq!(checks.contain(&descriptor, &diff_id), is_checked, "{name}");
        assert!(ingest.find(&digest).unwrap().is_some(), "{name}");
    }
}
