//! Counters, gauges and histograms of an engine.

/// A snapshot of the engine's counters and gauges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// Queries accepted and not yet scheduled.
    pub waiting_queries: u64,
    /// Queries being computed.
    pub running_queries: u64,
    /// Queries answered, ever.
    pub finished_queries: u64,
    /// Queries cancelled because their client dropped the answer, ever.
    pub cancelled_queries: u64,
    /// Tokens that went through the model, ever.
    pub computed_tokens: u64,
    /// Computed tokens whose keys and values were in the cache, but not the requested details, ever.
    pub recomputed_tokens: u64,
    /// Tokens found in the cache instead, ever.
    pub cached_tokens: u64,
    /// Log-probabilities answered, ever.
    pub scored_tokens: u64,
    /// Tokens sampled, ever.
    pub generated_tokens: u64,
    /// Forward passes, ever.
    pub forward_passes: u64,
    /// KV blocks in total.
    pub total_blocks: u64,
    /// KV blocks held by running queries.
    pub active_blocks: u64,
    /// KV blocks that hold a reusable prefix and that no query uses now.
    pub cached_blocks: u64,
    /// Cached blocks evicted for new ones, ever.
    pub evicted_blocks: u64,
    /// Number of times that the engine died and started again.
    pub restarts: u64,
    /// Seconds from a query's arrival to its first chunk, or to its answer if the cache had it.
    pub queue_seconds: Histogram,
    /// Seconds from a query's first chunk to its scores.
    pub prefill_seconds: Histogram,
    /// Tokens of a forward pass.
    pub pass_tokens: Histogram,
    /// Queries of a forward pass.
    pub pass_queries: Histogram,
    /// Seconds of a forward pass.
    pub pass_seconds: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            waiting_queries: 0,
            running_queries: 0,
            finished_queries: 0,
            cancelled_queries: 0,
            computed_tokens: 0,
            recomputed_tokens: 0,
            cached_tokens: 0,
            scored_tokens: 0,
            generated_tokens: 0,
            forward_passes: 0,
            total_blocks: 0,
            active_blocks: 0,
            cached_blocks: 0,
            evicted_blocks: 0,
            restarts: 0,
            queue_seconds: Histogram::SECONDS,
            prefill_seconds: Histogram::SECONDS,
            pass_tokens: Histogram::SIZES,
            pass_queries: Histogram::SIZES,
            pass_seconds: Histogram::SECONDS,
        }
    }
}

/// The most bounds of a histogram.
const MAX_BOUNDS: usize = 16;

/// Counts of values between fixed bounds, small enough to be copied with a snapshot.
///
/// A value counts at the first bound that is not below it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: [u64; MAX_BOUNDS],
    count: u64,
    sum: f64,
}

impl Histogram {
    /// Times, in seconds.
    pub(crate) const SECONDS: Self =
        Self::new(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]);

    /// Sizes of a batch.
    pub(crate) const SIZES: Self = Self::new(&[
        1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0,
    ]);

    const fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() <= MAX_BOUNDS);
        Self { bounds, counts: [0; MAX_BOUNDS], count: 0, sum: 0.0 }
    }

    /// Records a value.
    pub(crate) fn observe(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }

    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the sum of the values.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Returns each bound, and how many values were not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.bounds.iter().zip(&self.counts).scan(0, |total, (&bound, count)| {
            *total += count;
            Some((bound, *total))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_at_its_bound_and_above() {
        let mut histogram = Histogram::SIZES;
        for value in [1.0, 2.0, 3.0, 1e9] {
            histogram.observe(value);
        }
        let counts: Vec<u64> = histogram.cumulative().take(4).map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 3, 3]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 1e9 + 6.0));
        assert_eq!(histogram.cumulative().last(), Some((32768.0, 3)));
    }
}
