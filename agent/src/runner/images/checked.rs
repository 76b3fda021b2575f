//! Which unpacked layers this agent has lately unpacked or checked itself.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use oci_spec::image::Digest;

/// When layers were last known to be whole.
#[derive(Debug)]
pub(super) struct Checked {
    believed: Duration,
    when: Mutex<HashMap<Digest, Instant>>,
}

impl Checked {
    /// Layers are believed to be whole for this long.
    pub(super) fn new(believed: Duration) -> Self {
        Self {
            believed,
            when: Mutex::default(),
        }
    }

    /// It is whole now.
    pub(super) fn set(&self, layer: &Digest) {
        self.when().insert(layer.clone(), Instant::now());
    }

    /// Whether it was whole a short while ago.
    pub(super) fn is_recent(&self, layer: &Digest) -> bool {
        let when = self.when();
        when.get(layer)
            .is_some_and(|when| when.elapsed() < self.believed)
    }

    /// Forgets all but these.
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
    fn a_layer_is_believed_to_be_whole_for_a_while() {
        let layer: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let checked = Checked::new(Duration::from_secs(3600));
        assert!(!checked.is_recent(&layer));
        checked.set(&layer);
        assert!(checked.is_recent(&layer));
        checked.retain(std::slice::from_ref(&layer));
        assert!(checked.is_recent(&layer));
        checked.retain(&[]);
        assert!(!checked.is_recent(&layer));
        let suspicious = Checked::new(Duration::ZERO);
        suspicious.set(&layer);
        assert!(!suspicious.is_recent(&layer));
    }
}
