//! Layers whose integrity this agent verified recently.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use oci_spec::image::Digest;

/// Times of the last verification of each layer.
#[derive(Debug)]
pub(super) struct VerifiedLayers {
    validity: Duration,
    when: Mutex<HashMap<Digest, Instant>>,
}

impl VerifiedLayers {
    /// A verification is valid for this long.
    pub(super) fn new(validity: Duration) -> Self {
        Self {
            validity,
            when: Mutex::default(),
        }
    }

    /// Marks a layer as verified now.
    pub(super) fn set(&self, layer: &Digest) {
        self.when().insert(layer.clone(), Instant::now());
    }

    /// Whether the layer's last verification is still valid.
    pub(super) fn is_recent(&self, layer: &Digest) -> bool {
        let when = self.when();
        when.get(layer)
            .is_some_and(|when| when.elapsed() < self.validity)
    }

    /// Drops all other layers.
    pub(super) fn retain(&self, layers: &[Digest]) {
        self.when().retain(|layer, _| layers.contains(layer));
    }

    fn when(&self) -> MutexGuard<'_, HashMap<Digest, Instant>> {
        self.when.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verification_expires() {
        let layer: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let layers = VerifiedLayers::new(Duration::from_secs(3600));
        assert!(!layers.is_recent(&layer));
        layers.set(&layer);
        assert!(layers.is_recent(&layer));
        layers.retain(std::slice::from_ref(&layer));
        assert!(layers.is_recent(&layer));
        layers.retain(&[]);
        assert!(!layers.is_recent(&layer));
        let expired = VerifiedLayers::new(Duration::ZERO);
        expired.set(&layer);
        assert!(!expired.is_recent(&layer));
    }
}
