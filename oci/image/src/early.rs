//! Checks a layer while its archive still comes, before anybody knows that it is one: what an image is made of is often told
//! last. Only what is found right counts: whatever is not is checked again when its image is known, and told then.

use std::{io::Read, path::Path, thread};

use oci_spec::image::{Descriptor, Digest};

use crate::{
    error::Error,
    layer::{CheckOnly, LayerOf},
    limits::Limits,
    make::COMING,
    stream::{Encoding, Feeder, feed},
};

/// A blob that is a layer.
#[derive(Debug)]
pub(crate) struct CheckedLayer {
    encoding: Encoding,
    bytes: u64,
    diff_id: Digest,
}

impl CheckedLayer {
    /// Whether it is this one; their digests are the same.
    pub(crate) fn is(&self, layer: &Descriptor, diff_id: &Digest) -> bool {
        let encoding = Encoding::of(layer.media_type());
        encoding == Some(self.encoding) && layer.size() == self.bytes && *diff_id == self.diff_id
    }
}

/// Does `work` with what comes from `read`, while another thread checks it as a layer, if it is compressed as one; what
/// `work` has made, and the layer if it was one, and if its digest is right: that is up to `work`. It comes no faster than
/// it is checked.
pub(crate) fn check_beside<T>(
    digest: &Digest,
    bytes: u64,
    limits: &Limits,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
    work: impl FnOnce(&mut dyn FnMut(&mut [u8]) -> Result<usize, Error>) -> T,
) -> (T, Option<CheckedLayer>) {
    thread::scope(|scope| {
        let mut check = None;
        let mut feeder: Option<Feeder> = None;
        let mut is_first = true;
        let done = work(&mut |buffer: &mut [u8]| {
            let read = read(buffer)?;
            let piece = &buffer[..read];
            if std::mem::take(&mut is_first) {
                let encoding = Encoding::of_magic(piece);
                if encoding != Encoding::Plain {
                    let (gives, coming) = feed();
                    let work = move || check_layer(digest, bytes, limits, encoding, coming);
                    let checker = thread::Builder::new().name("check".to_owned());
                    check = checker.spawn_scoped(scope, work).ok();
                    feeder = Some(gives);
                }
            }
            // What is no layer is not read to its end.
            if !feeder.as_ref().is_none_or(|feeder| feeder.give(piece)) {
                feeder = None;
            }
            Ok(read)
        });
        drop(feeder);
        let checked = check.and_then(|check| check.join().ok().flatten());
        (done, checked)
    })
}

fn check_layer(
    digest: &Digest,
    bytes: u64,
    limits: &Limits,
    encoding: Encoding,
    coming: impl Read + Send,
) -> Option<CheckedLayer> {
    let descriptor = Descriptor::new(encoding.media_type(), bytes, digest.clone());
    let layer = LayerOf {
        descriptor: &descriptor,
        diff_id: None,
        limits,
    };
    match layer.read_checked(coming, Path::new(COMING), &mut CheckOnly) {
        Ok(diff_id) => Some(CheckedLayer {
            encoding,
            bytes,
            diff_id,
        }),
        Err(error) => {
            tracing::debug!(%digest, %error, "a blob that comes is no layer");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::digest_of, stream::MAGIC_BYTES};
    use oci_spec::image::MediaType;
    use tucano_image_builder::{Compression, Entry, Layer};

    /// Comes in pieces of so many bytes.
    fn check(blob: &[u8], piece: usize, limits: &Limits) -> Option<CheckedLayer> {
        let digest = digest_of(blob);
        let mut left = blob;
        let read = |buffer: &mut [u8]| {
            let most = buffer.len().min(piece);
            Ok(left.read(&mut buffer[..most]).unwrap())
        };
        let work = |read: &mut dyn FnMut(&mut [u8]) -> Result<usize, Error>| {
            let mut taken = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                match read(&mut buffer).unwrap() {
                    0 => return taken,
                    bytes => taken.extend_from_slice(&buffer[..bytes]),
                }
            }
        };
        let (taken, checked) = check_beside(&digest, blob.len() as u64, limits, read, work);
        assert!(taken == blob, "it is the same to who takes it");
        checked
    }

    fn layer(compression: Compression) -> Layer {
        let content: Vec<u8> = (0..3_000_000_u32)
            .map(|at| (at.wrapping_mul(at) >> 7) as u8)
            .collect();
        Layer::new(&[Entry::file("f", content)], compression).unwrap()
    }

    #[test]
    fn a_layer_is_found_to_be_one_while_it_comes() {
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
                assert!(!checked.is(&plain, &layer.diff_id.parse().unwrap()));
            }
        }
    }

    #[test]
    fn what_is_not_right_is_left_for_later() {
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
}
