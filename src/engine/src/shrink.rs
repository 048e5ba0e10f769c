//! Release of memory after a burst.

use std::collections::HashMap;
use std::hash::Hash;

/// Capacity below which a map keeps its memory.
const MIN_CAPACITY: usize = 1024;

/// Releases most of a map's unused memory once less than a quarter of it is used. Takes amortized constant time, if
/// the caller calls this after each removal.
pub(crate) fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > MIN_CAPACITY && map.capacity() > 4 * map.len() {
        map.shrink_to(2 * map.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_has_emptied_releases_its_memory() {
        let mut map: HashMap<u32, u32> = (0..100_000).map(|key| (key, key)).collect();
        for key in 0..100_000 {
            map.remove(&key);
            shrink(&mut map);
            assert!(map.capacity() <= MIN_CAPACITY.max(8 * (map.len() + 1)), "{} of {}", map.len(), map.capacity());
        }
        map.extend((0..10).map(|key| (key, key)));
        shrink(&mut map);
        assert_eq!(map.len(), 10);
    }
}
