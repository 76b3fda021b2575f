//! Limits concurrent fetches of layers, so that neither large layers nor prefetches delay small layers that a start needs.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Error;

/// Compressed size up to which a layer is small.
const SMALL_BYTES: u64 = 16 << 20;

/// Slots for fetches. Small layers have slots of their own. Prefetches leave one slot of each kind to starts.
#[derive(Debug)]
pub(super) struct Slots {
    small: Semaphore,
    large: Semaphore,
    prefetches: Semaphore,
}

/// A slot, freed when it is dropped.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    _fetch: SemaphorePermit<'a>,
    _prefetch: Option<SemaphorePermit<'a>>,
}

impl Slots {
    /// As many slots of each kind.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            small: Semaphore::new(slots),
            large: Semaphore::new(slots),
            prefetches: Semaphore::new(slots.saturating_sub(1).max(1)),
        }
    }

    /// A slot for a layer that a start needs.
    pub(super) async fn for_layer(&self, bytes: u64) -> Result<Slot<'_>, Error> {
        let kind = match bytes {
            ..=SMALL_BYTES => &self.small,
            _ => &self.large,
        };
        Ok(Slot {
            _fetch: kind.acquire().await.map_err(|_| Error::Ending)?,
            _prefetch: None,
        })
    }

    /// A slot for a prefetch.
    pub(super) async fn for_prefetch(&self, bytes: u64) -> Result<Slot<'_>, Error> {
        let prefetch = self.prefetches.acquire().await.map_err(|_| Error::Ending)?;
        let slot = self.for_layer(bytes).await?;
        Ok(Slot {
            _prefetch: Some(prefetch),
            ..slot
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LARGE: u64 = 2 << 30;

    #[test]
    fn a_small_layer_does_not_wait_for_large_ones() {
        let slots = Slots::new(3);
        let large: Vec<_> = (0..3)
            .map(|_| slots.for_layer(LARGE).now_or_never().unwrap().unwrap())
            .collect();
        assert!(
            slots.for_layer(LARGE).now_or_never().is_none(),
            "it is limited"
        );
        let small: Vec<_> = (0..3)
            .map(|_| {
                slots
                    .for_layer(SMALL_BYTES)
                    .now_or_never()
                    .unwrap()
                    .unwrap()
            })
            .collect();
        assert!(slots.for_layer(1).now_or_never().is_none(), "it is limited");
        drop((large, small));
        assert!(slots.for_layer(LARGE).now_or_never().is_some());
    }

    #[test]
    fn prefetches_leave_a_slot_to_starts() {
        let slots = Slots::new(3);
        let prefetches: Vec<_> = (0..2)
            .map(|_| slots.for_prefetch(LARGE).now_or_never().unwrap().unwrap())
            .collect();
        assert!(slots.for_prefetch(LARGE).now_or_never().is_none());
        assert!(slots.for_layer(LARGE).now_or_never().is_some());
        drop(prefetches);
        let single = Slots::new(1);
        assert!(single.for_prefetch(1).now_or_never().is_some());
    }
}
