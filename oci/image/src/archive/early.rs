//! Checks a layer during its transfer, before it is known which blobs are layers: the documents of an image often come
//! last. Only a successful check counts; any other blob is checked again, and reported, when its image is known.

use std::{collections::HashMap, io::Read, path::Path, sync::Arc, thread};

use oci_spec::image::{Descriptor, Digest};

use crate::{
    content::ingest::Ingest,
    error::Error,
    layer::{
        LayerSpec, STREAM,
        check::Check,
        stream::{Encoding, Feeder, feed},
    },
    limits::Limits,
    outline::{Outline, Outlines},
};

/// The layers that were checked during the transfer.
#[derive(Debug, Default)]
pub(crate) struct EarlyChecks {
    checked: HashMap<Digest, CheckedLayer>,
}

/// A blob that is a valid layer.
#[derive(Debug)]
struct CheckedLayer {
    bytes: u64,
    diff_id: Digest,
    outline: Option<Arc<Outline>>,
}

impl EarlyChecks {
    /// Receives a blob of `bytes`, which may be a layer: a compressed one is checked as a layer during the transfer.
    pub(crate) fn receive(
        &mut self,
        ingest: &mut Ingest,
        digest: &Digest,
        bytes: u64,
        read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
        limits: &Limits,
    ) -> Result<(), Error> {
        if self.checked.len() >= limits.layers {
            return ingest.receive(digest, read);
        }
        let store = |read: &mut Reader<'_>| {
            ingest.receive_flushing(digest, |buffer: &mut [u8]| read(buffer))
        };
        let (stored, checked) = check_while_receiving(digest, bytes, limits, read, store);
        stored?;
        if let Some(checked) = checked {
            self.checked.insert(digest.clone(), checked);
        }
        Ok(())
    }

    /// Passes the outlines of the checked layers on.
    pub(crate) fn add_outlines(&self, outlines: &Outlines) {
        for checked in self.checked.values() {
            if let Some(outline) = &checked.outline {
                outlines.insert(&checked.diff_id, Arc::clone(outline));
            }
        }
    }

    /// Whether this layer passed its check during the transfer.
    pub(crate) fn contain(&self, layer: &Descriptor, diff_id: &Digest) -> bool {
        let checked = self.checked.get(layer.digest());
        checked.is_some_and(|checked| checked.is(layer, diff_id))
    }
}

impl CheckedLayer {
    /// Whether it is this layer; their digests are equal.
    fn is(&self, layer: &Descriptor, diff_id: &Digest) -> bool {
        Encoding::of(layer.media_type()).is_some()
            && layer.size() == self.bytes
            && *diff_id == self.diff_id
    }
}

type Reader<'a> = dyn FnMut(&mut [u8]) -> Result<usize, Error> + 'a;

/// Runs `store` with a reader of the blob, while another thread checks the same bytes as a layer if they are compressed.
/// Returns what `store` returned, and the layer if the check succeeded; the blob's own digest is checked by `store`.
/// The transfer is no faster than the check.
fn check_while_receiving<T>(
    digest: &Digest,
    bytes: u64,
    limits: &Limits,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
    store: impl FnOnce(&mut Reader<'_>) -> T,
) -> (T, Option<CheckedLayer>) {
    thread::scope(|scope| {
        let mut check = None;
        let mut feeder: Option<Feeder> = None;
        let mut is_first = true;
        let stored = store(&mut |buffer: &mut [u8]| {
            let read = read(buffer)?;
            let piece = &buffer[..read];
            if std::mem::take(&mut is_first) {
                let encoding = Encoding::of_magic(piece);
                if encoding != Encoding::Plain {
                    let (sender, stream) = feed();
                    let work = move || check_layer(digest, bytes, limits, encoding, stream);
                    let checker = thread::Builder::new().name("check".to_owned());
                    check = checker.spawn_scoped(scope, work).ok();
                    feeder = Some(sender);
                }
            }
            // The check ends early for a blob that is no layer.
            if !feeder.as_ref().is_none_or(|feeder| feeder.send(piece)) {
                feeder = None;
            }
            Ok(read)
        });
        drop(feeder);
        let checked = check.and_then(|check| check.join().ok().flatten());
        (stored, checked)
    })
}

fn check_layer(
    digest: &Digest,
    bytes: u64,
    limits: &Limits,
    encoding: Encoding,
    stream: impl Read + Send,
) -> Option<CheckedLayer> {
    let descriptor = Descriptor::new(encoding.media_type(), bytes, digest.clone());
    let layer = LayerSpec {
        descriptor: &descriptor,
        diff_id: None,
        limits,
    };
    let mut check = Check::new(layer.name(), limits);
    match layer.read_checked(stream, Path::new(STREAM), &mut check) {
        Ok(diff_id) => Some(CheckedLayer {
            bytes,
            diff_id,
            outline: check.outline().map(Arc::new),
        }),
        Err(error) => {
            tracing::debug!(%digest, %error, "the received blob is not a valid layer");
            None
        }
    }
}

#[cfg(test)]
mod tests;
