//! Which endpoint takes the next request: smooth weighted round robin.
//!
//! At each choice every endpoint's credit grows by its weight; the highest credit is chosen and reduced
//! by the sum of all weights. Of every `sum(weights)` choices each endpoint gets exactly its weight,
//! spread as evenly as possible. An endpoint that is excluded for a while neither loses nor accumulates
//! credit.

use std::sync::{Mutex, PoisonError};

/// The rotation of one service. A choice holds the lock for one pass over the endpoints, never across IO.
#[derive(Debug, Default)]
pub struct Rotation {
    credits: Mutex<Vec<i64>>,
}

impl Rotation {
    /// A rotation that continues with these credits, one per endpoint.
    pub fn with_credits(credits: Vec<i64>) -> Self {
        Self {
            credits: Mutex::new(credits),
        }
    }

    /// Each endpoint's credit, to be carried over to the next table's rotation.
    pub fn credits(&self) -> Vec<i64> {
        self.lock().clone()
    }

    /// The next endpoint; `None` if all are excluded. `weights` yields one item per endpoint, in order:
    /// `None` excludes it.
    pub fn next(&self, weights: impl Iterator<Item = Option<u32>>) -> Option<usize> {
        let mut credits = self.lock();
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (index, weight) in weights.enumerate() {
            if index == credits.len() {
                credits.push(0);
            }
            let Some(weight) = weight else { continue };
            total += i64::from(weight);
            credits[index] += i64::from(weight);
            // Strictly greater: the first of equals wins.
            if best.is_none_or(|best| credits[index] > credits[best]) {
                best = Some(index);
            }
        }
        credits[best?] -= total;
        best
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<i64>> {
        // The credits are consistent after every statement, so a poisoned lock is harmless.
        self.credits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
