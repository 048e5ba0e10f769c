//! The spectrum of counts: how many things were counted once, twice, and so on.

use std::collections::BTreeMap;

/// How many things have each count: all that an entropy needs of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spectrum(BTreeMap<u64, u64>);

impl Spectrum {
    /// Adds `things` things that were counted `count` times each.
    pub(crate) fn add(&mut self, count: u64, things: u64) {
        if count > 0 && things > 0 {
            *self.0.entry(count).or_default() += things;
        }
    }

    /// `(count, things with that count)`, by count.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&count, &things)| (count, things))
    }

    /// `N`: the sum of all counts.
    pub fn total(&self) -> u64 {
        self.iter().map(|(count, things)| count * things).sum()
    }

    /// `S`: how many different things.
    pub fn distinct(&self) -> u64 {
        self.0.values().sum()
    }

    /// Good and Turing's: the chance that the next thing is one of those seen. Where all were seen once it would be 0; then one
    /// of them counts as seen twice.
    pub(crate) fn coverage(&self) -> f64 {
        let (total, once) = (self.total(), self.0.get(&1).copied().unwrap_or(0));
        1.0 - once.min(total - 1) as f64 / total as f64
    }
}

/// From the count of each thing; zeros are nothing.
impl FromIterator<u64> for Spectrum {
    fn from_iter<I: IntoIterator<Item = u64>>(counts: I) -> Self {
        let mut spectrum = Self::default();
        counts.into_iter().for_each(|count| spectrum.add(count, 1));
        spectrum
    }
}

/// From pairs of a count and how many things have it.
impl FromIterator<(u64, u64)> for Spectrum {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(counts: I) -> Self {
        let mut spectrum = Self::default();
        counts.into_iter().for_each(|(count, things)| spectrum.add(count, things));
        spectrum
    }
}

/// A spectrum under construction: small counts are in an array.
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
    /// Adds one thing that was counted `count` times; 0 is ignored.
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
