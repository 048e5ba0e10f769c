//! The spectrum of counts: the number of items counted once, twice, and so on.

use std::collections::BTreeMap;

/// The number of items with each count. An entropy depends on nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spectrum(BTreeMap<u64, u64>);

impl Spectrum {
    /// Adds `things` items, each counted `count` times.
    pub(crate) fn add(&mut self, count: u64, things: u64) {
        if count > 0 && things > 0 {
            *self.0.entry(count).or_default() += things;
        }
    }

    /// Returns pairs `(count, number of items with that count)`, in increasing order of count.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&count, &things)| (count, things))
    }

    /// Returns `N`, the sum of all counts.
    pub fn total(&self) -> u64 {
        self.iter().map(|(count, things)| count * things).sum()
    }

    /// Returns `S`, the number of distinct items.
    pub fn distinct(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns the Good-Turing estimate of the probability that the next item is one that was already seen. If all
    /// items were seen once, the estimate would be 0, so one of them is treated as seen more than once.
    pub(crate) fn coverage(&self) -> f64 {
        let total = self.total();
        1.0 - self.once().min(total - 1) as f64 / total as f64
    }

    /// Returns the number of items seen once.
    pub(crate) fn once(&self) -> u64 {
        self.0.get(&1).copied().unwrap_or(0)
    }
}

/// Collects counts, one per item; zeros are ignored.
impl FromIterator<u64> for Spectrum {
    fn from_iter<I: IntoIterator<Item = u64>>(counts: I) -> Self {
        let mut spectrum = Self::default();
        counts.into_iter().for_each(|count| spectrum.add(count, 1));
        spectrum
    }
}

/// Collects pairs of a count and the number of items with that count.
impl FromIterator<(u64, u64)> for Spectrum {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(counts: I) -> Self {
        let mut spectrum = Self::default();
        counts.into_iter().for_each(|(count, things)| spectrum.add(count, things));
        spectrum
    }
}

/// A builder for a spectrum, with small counts in an array.
pub(crate) struct SpectrumBuilder {
    small: [u64; 256],
    large: Spectrum,
}

impl Default for SpectrumBuilder {
    fn default() -> Self {
        Self { small: [0; 256], large: Spectrum::default() }
    }
}

impl SpectrumBuilder {
    /// Adds one item that was counted `count` times; 0 is ignored.
    pub(crate) fn add(&mut self, count: u64) {
        match self.small.get_mut(count as usize) {
            Some(things) => *things += 1,
            None => self.large.add(count, 1),
        }
    }

    pub(crate) fn build(self) -> Spectrum {
        let small = self.small.into_iter().enumerate().skip(1).map(|(count, things)| (count as u64, things));
        small.chain(self.large.iter()).collect()
    }
}
