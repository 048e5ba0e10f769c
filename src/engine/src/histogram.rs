//! `Histogram`: how often a value fell between fixed bounds, small enough to be copied with a snapshot.

/// The most bounds there are.
const MAX: usize = 16;

/// Counts of values, by the first bound that is not below them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: [u64; MAX],
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
        assert!(bounds.len() <= MAX);
        Self { bounds, counts: [0; MAX], count: 0, sum: 0.0 }
    }

    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What they come to.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Each bound, and how many values were not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.bounds.iter().zip(&self.counts).scan(0, |below, (&bound, count)| {
            *below += count;
            Some((bound, *below))
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
            histogram.add(value);
        }
        let counts: Vec<u64> = histogram.cumulative().take(4).map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 3, 3]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 1e9 + 6.0));
        assert_eq!(histogram.cumulative().last(), Some((32768.0, 3)));
    }
}
