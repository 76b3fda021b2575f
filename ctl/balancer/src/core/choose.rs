//! Which endpoint takes the next request: smooth weighted round robin.
//!
//! At each choice every endpoint's credit grows by its weight; the highest credit is chosen and reduced
//! by the sum of all weights. Of every `sum(weights)` choices each endpoint gets exactly its weight,
//! spread as evenly as possible. An endpoint that is excluded for a while neither loses nor accumulates
//! credit. Each thread has rotations of its own.

/// The rotation of one service in one thread.
#[derive(Debug, Default)]
pub struct Rotation {
    credits: Vec<i64>,
}

impl Rotation {
    /// A rotation that continues with these credits, one per endpoint.
    pub fn with_credits(credits: Vec<i64>) -> Self {
        Self { credits }
    }

    /// Each endpoint's credit, to be carried over to the next table's rotation.
    pub fn credits(&self) -> &[i64] {
        &self.credits
    }

    /// The next endpoint; `None` if all are excluded. `weights` yields one item per endpoint, in order:
    /// `None` excludes it.
    pub fn next(&mut self, weights: impl Iterator<Item = Option<u32>>) -> Option<usize> {
        let credits = &mut self.credits;
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
}

#[cfg(test)]
mod tests;
