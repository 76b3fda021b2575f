//! Layers whose content was refused: after a few tries the reason is repeated without another fetch.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use oci_spec::image::Digest as OciDigest;

use super::Error;

/// Tries before a layer is refused for good: bytes that were damaged on the way are a cause, too.
const TRIES: u32 = 3;
/// A layer that nothing asked for during this time is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// Most layers that are remembered.
const MAX_LAYERS: usize = 4096;
/// Codes of errors that another try does not change.
const OF_CONTENT: [&str; 5] = [
    "layer_path_escapes",
    "malformed",
    "too_large",
    "unpacking_failed",
    "unsupported",
];

/// The refused layers, by their blobs.
#[derive(Debug, Default)]
pub(super) struct RefusedLayers(Mutex<HashMap<OciDigest, Refusal>>);

#[derive(Debug)]
struct Refusal {
    tries: u32,
    reason: String,
    last_asked: Instant,
}

impl RefusedLayers {
    /// Refuses a layer that was tried often enough.
    pub(super) fn check(&self, blob: &OciDigest) -> Result<(), Error> {
        let mut all = self.all();
        all.retain(|_, refusal| refusal.last_asked.elapsed() < FORGOTTEN);
        let Some(refusal) = all.get_mut(blob) else {
            return Ok(());
        };
        refusal.last_asked = Instant::now();
        if refusal.tries < TRIES {
            return Ok(());
        }
        Err(Error::Refused {
            tries: refusal.tries,
            reason: refusal.reason.clone(),
        })
    }

    /// Notes the outcome of a try.
    pub(super) fn note<T>(&self, blob: &OciDigest, outcome: &Result<T, Error>) {
        let mut all = self.all();
        match outcome {
            Err(error) if is_of_content(error) => {
                if all.len() >= MAX_LAYERS && !all.contains_key(blob) {
                    return;
                }
                let tries = all.get(blob).map_or(0, |refusal| refusal.tries);
                let refusal = Refusal {
                    tries: tries + 1,
                    reason: error.to_string(),
                    last_asked: Instant::now(),
                };
                all.insert(blob.clone(), refusal);
            }
            Ok(_) => drop(all.remove(blob)),
            // The network or the node, not the layer.
            Err(_) => {}
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<OciDigest, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_of_content(error: &Error) -> bool {
    matches!(error, Error::Unpack { source, .. } if OF_CONTENT.contains(&source.code()))
        && !error.is_too_many_to_index()
}

#[cfg(test)]
mod tests;
