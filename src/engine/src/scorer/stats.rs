//! Counters, gauges and histograms of an engine.

/// A snapshot of the engine's counters, gauges and histograms. Totals count from the engine's start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// Queries that were accepted but have not started.
    pub waiting_queries: u64,
    /// Queries that are running.
    pub running_queries: u64,
    /// Queries whose scores were returned, in total.
    pub finished_queries: u64,
    /// Queries cancelled because nobody waited for their answer anymore, in total.
    pub cancelled_queries: u64,
    /// Tokens that went through the model, in total.
    pub computed_tokens: u64,
    /// Tokens that were computed although their keys and values were in the cache, because the requested scores or
    /// details were not, in total.
    pub recomputed_tokens: u64,
    /// Tokens that were reused from the cache instead of computed, in total.
    pub cached_tokens: u64,
    /// Log-probabilities returned for queries' own tokens, in total.
    pub scored_tokens: u64,
    /// Tokens sampled, in total.
    pub generated_tokens: u64,
    /// Forward passes, in total.
    pub forward_passes: u64,
    /// KV blocks in the cache.
    pub total_blocks: u64,
    /// KV blocks held by running queries.
    pub active_blocks: u64,
    /// KV blocks that hold a reusable prefix and that no query uses.
    pub cached_blocks: u64,
    /// Cached blocks evicted to make room for new ones, in total.
    pub evicted_blocks: u64,
    /// Number of times that the engine died and restarted.
    pub restarts: u64,
    /// Seconds from a query's arrival to its first chunk, or to its answer if the cache answered it.
    pub queue_seconds: Histogram,
    /// Seconds from a query's first chunk to its scores.
    pub prefill_seconds: Histogram,
    /// Tokens per forward pass.
    pub pass_tokens: Histogram,
    /// Queries per forward pass.
    pub pass_queries: Histogram,
    /// Seconds per forward pass.
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

/// Maximum number of bounds in a histogram.
const MAX_BOUNDS: usize = 16;

/// A histogram with fixed bounds, small enough to be copied with a snapshot.
///
/// Each value is counted at the smallest bound that is greater than or equal to it. A value above all bounds is counted
/// only in the total.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: [u64; MAX_BOUNDS],
    count: u64,
    sum: f64,
}

impl Histogram {
    /// An empty histogram of times, in seconds.
    pub(crate) const SECONDS: Self =
        Self::new(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]);

    /// An empty histogram of batch sizes.
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

    /// Returns each bound with the number of values that are less than or equal to it.
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
    fn a_value_is_counted_at_its_bound_and_above() {
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
