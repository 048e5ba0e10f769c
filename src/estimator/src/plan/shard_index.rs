//! Shards of a plan's queries, one for each of several processes.

use std::ops::Range;

use crate::error::Error;

/// The index of one of several nearly equal shards of a plan's queries, and the number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardIndex {
    index: usize,
    of: usize,
}

impl ShardIndex {
    /// Returns shard `number` of `of`, counted from 1.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `number` is in 1..=`of`.
    pub fn new(number: usize, of: usize) -> Result<Self, Error> {
        match number.checked_sub(1) {
            Some(index) if index < of => Ok(Self { index, of }),
            _ => Err(Error::invalid("shard", format!("{number}/{of}"), "I/N with I from 1 to N, such as 1/4")),
        }
    }

    /// Returns the shard's range of `n` items. The sizes of any two shards differ by at most 1.
    pub(crate) fn range(self, n: usize) -> Range<usize> {
        n * self.index / self.of..n * (self.index + 1) / self.of
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shards_cover_every_item_once(n in 0usize..100, of in 1usize..20) {
            let all: Vec<usize> = (1..=of).flat_map(|number| ShardIndex::new(number, of).unwrap().range(n)).collect();
            prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn shard_numbers_run_from_1_to_the_count() {
        for (number, of) in [(0, 4), (5, 4), (0, 0), (1, 0)] {
            assert!(ShardIndex::new(number, of).unwrap_err().to_string().contains(&format!("shard is {number}/{of}")));
        }
    }
}
