//! Windows: documents of equal length, cut from the tokens of a text.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::corpus::tokenized_text::TokenizedText;
use crate::error::Error;

/// The spacing of the windows in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Spacing {
    /// Evenly spaced windows, from the first token to the last.
    #[default]
    Even,
    /// Random windows that do not overlap. The numbers of unused tokens before the windows are drawn uniformly, and
    /// then sorted.
    Random {
        /// The seed, which determines the windows. Each text gets different windows.
        seed: u64,
    },
}

impl TokenizedText {
    /// Cuts `count` windows of `length` tokens each, in the text's order and without overlap. `text` is the index of
    /// this text in the corpus. Random windows depend on this index, so that they differ between texts.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `count` or `length` is 0; [`Error::TooShort`] if the text is too short for the windows.
    pub fn windows(&self, count: usize, length: usize, spacing: Spacing, text: usize) -> Result<Vec<Vec<u32>>, Error> {
        let starts = self.window_starts(count, length, spacing, text)?;
        Ok(starts.into_iter().map(|start| self.tokens()[start..start + length].to_vec()).collect())
    }

    /// Returns the index of the first token of each window that [`windows`](Self::windows) cuts.
    pub(crate) fn window_starts(
        &self,
        count: usize,
        length: usize,
        spacing: Spacing,
        text: usize,
    ) -> Result<Vec<usize>, Error> {
        for (field, value) in [("number of windows", count), ("window length", length)] {
            if value == 0 {
                return Err(Error::invalid(field, value, "at least 1"));
            }
        }
        let needed = count.saturating_mul(length);
        let Some(slack) = self.tokens().len().checked_sub(needed) else {
            return Err(Error::TooShort {
                tokens: self.tokens().len(),
                windows: count,
                length,
                needed,
                most: self.tokens().len() / length,
            });
        };
        let gaps = gaps(count, slack, spacing, text).into_iter().enumerate();
        Ok(gaps.map(|(index, gap)| index * length + gap).collect())
    }
}

/// Returns the total number of unused tokens before each window: `count` sorted numbers in 0..=slack, which may repeat.
fn gaps(count: usize, slack: usize, spacing: Spacing, text: usize) -> Vec<usize> {
    match spacing {
        Spacing::Even => {
            let share = |index| (slack as u128 * index as u128 / (count - 1).max(1) as u128) as usize;
            (0..count).map(share).collect()
        }
        Spacing::Random { seed } => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(text as u64);
            let mut gaps: Vec<usize> = (0..count).map(|_| rng.random_range(0..=slack)).collect();
            gaps.sort_unstable();
            gaps
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn corpus(length: u32) -> TokenizedText {
        TokenizedText::new((0..length).collect())
    }

    #[test]
    fn even_windows_span_the_text() {
        let windows = corpus(10).windows(3, 2, Spacing::Even, 0).unwrap();
        assert_eq!(windows, [[0, 1], [4, 5], [8, 9]]);
        assert_eq!(corpus(10).windows(1, 2, Spacing::Even, 0).unwrap(), [[0, 1]]);
    }

    #[test]
    fn the_error_for_a_short_text_states_how_many_windows_fit() {
        let error = corpus(99).windows(10, 10, Spacing::Even, 0).unwrap_err().to_string();
        assert!(error.contains("99 tokens") && error.contains("need 100"), "{error}");
        assert!(error.ends_with("use a longer text, at most 9 windows, or shorter splits"), "{error}");
        let error = corpus(9).windows(10, 10, Spacing::Even, 0).unwrap_err().to_string();
        assert!(error.ends_with("use a longer text or shorter splits"), "{error}");
    }

    proptest! {
        #[test]
        fn windows_never_overlap(
            count in 1_usize..20, length in 1_usize..20, slack in 0_u32..100, seed: u64, text: usize, even: bool,
        ) {
            let spacing = if even { Spacing::Even } else { Spacing::Random { seed } };
            let corpus = corpus((count * length) as u32 + slack);
            let windows = corpus.windows(count, length, spacing, text).unwrap();
            prop_assert_eq!(windows.len(), count);
            let tokens = windows.concat();
            prop_assert_eq!(tokens.len(), count * length);
            prop_assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
