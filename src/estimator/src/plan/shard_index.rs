//! The shard of a plan's queries that one of several processes sends.

use std::ops::Range;

use crate::error::Error;

/// The index of one of several equal shards of a plan's queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardIndex {
    index: usize,
    of: usize,
}

impl ShardIndex {
    /// Shard `number` of `of`, from 1.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless there is such a shard.
    pub fn new(number: usize, of: usize) -> Result<Self, Error> {
        match number.checked_sub(1) {
            Some(index) if index < of => Ok(Self { index, of }),
            _ => Err(Error::invalid(
                "shard",
                format!("{number}/{of}"),
                "the number of a part and how many there are: 1/4 to 4/4",
            )),
        }
    }

    /// Returns the shard's range of `n` items; all shards are as equal as they can be.
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
        fn shards_make_up_the_whole(n in 0usize..100, of in 1usize..20) {
            let all: Vec<usize> = (1..=of).flat_map(|number| ShardIndex::new(number, of).unwrap().range(n)).collect();
            prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn there_is_no_shard_0_and_none_beyond_the_last() {
        for (number, of) in [(0, 4), (5, 4), (0, 0), (1, 0)] {
            assert!(ShardIndex::new(number, of).unwrap_err().to_string().contains(&format!("shard is {number}/{of}")));
        }
    }
}
