//! The parameters of an oracle, and those of the built-in oracle.

use crate::error::Error;

/// Version of the files that are written for a spec. Increase it whenever the files change.
const FORMAT: u32 = 2;

/// The parameters of an oracle.
#[derive(Clone, Debug, PartialEq)]
pub struct OracleSpec {
    /// The symbols' probabilities p_k, which sum to 1.
    pub probabilities: Vec<f64>,
    /// The probability that the oracle gives a coin's other side after one side has been seen; between 0 and 1/2,
    /// exclusive.
    pub doubt: f64,
    /// Maximum length of a sequence, including BOS, in tokens.
    pub context_length: usize,
}

impl OracleSpec {
    /// The Zipf exponent of the built-in oracle's symbols.
    pub const BUILT_IN_EXPONENT: f64 = 1.3;

    /// Returns the parameters of the built-in oracle: 128 symbols whose probabilities follow Zipf's law, a doubt of
    /// 1e-6, and sequences of up to 2048 tokens.
    #[must_use]
    pub fn built_in() -> Self {
        let weights: Vec<f64> = (1..=128).map(|rank| f64::from(rank).powf(-Self::BUILT_IN_EXPONENT)).collect();
        // Add the smallest weights first, so that rounding does not lose the tail.
        let total: f64 = weights.iter().rev().sum();
        let probabilities = weights.iter().map(|weight| weight / total).collect();
        Self { probabilities, doubt: 1e-6, context_length: 2048 }
    }

    /// Returns the number of tokens; the last one is BOS.
    pub fn vocab_size(&self) -> usize {
        2 * self.probabilities.len() + 1
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let total: f64 = self.probabilities.iter().sum();
        if self.probabilities.is_empty()
            || self.probabilities.iter().any(|&p| p.is_nan() || p <= 0.0)
            || (total - 1.0).abs() > 1e-9
        {
            return Err(Error::Oracle(format!("the probabilities must be positive and sum to 1; they sum to {total}")));
        }
        if !(self.doubt > 0.0 && self.doubt < 0.5) {
            return Err(Error::Oracle(format!("the doubt must be between 0 and 1/2; it is {}", self.doubt)));
        }
        if !(1..=1 << 16).contains(&self.context_length) {
            return Err(Error::Oracle(format!(
                "the context length must be from 1 to 65536; it is {}",
                self.context_length
            )));
        }
        Ok(())
    }

    /// Returns the name of the oracle's folder, which includes a hash of everything on which the files depend.
    pub(super) fn folder_name(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&FORMAT.to_le_bytes());
        hasher.update(&(self.context_length as u64).to_le_bytes());
        for value in self.probabilities.iter().chain([&self.doubt]) {
            hasher.update(&value.to_le_bytes());
        }
        format!("oracle-{}-{}", self.probabilities.len(), &hasher.finalize().to_hex()[..12])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_name_depends_on_the_spec() {
        let spec = OracleSpec::built_in;
        assert_eq!(spec().folder_name(), spec().folder_name());
        assert_ne!(spec().folder_name(), OracleSpec { doubt: 1e-5, ..spec() }.folder_name());
        assert_ne!(spec().folder_name(), OracleSpec { context_length: 65, ..spec() }.folder_name());
    }
}
