//! `CacheNamespace`: a part of the prefix cache that only some queries share.

/// The domain of the hashes that identify namespaces, which separates them from those that identify prefixes.
const HASH_CONTEXT: &str = "surprisal prefix cache namespace v1";

/// A namespace of the prefix cache. Only queries of the same namespace share cached blocks and their
/// log-probabilities. The default is the namespace of queries that are not separated.
///
/// No result depends on the namespace, except the counts of cached and computed tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CacheNamespace([u8; 16]);

impl CacheNamespace {
    /// Returns the namespace that `salt` identifies within this one.
    ///
    /// It is 128 bits of a cryptographic hash, so nobody can construct two salts with the same namespace.
    #[must_use]
    pub fn salted(self, salt: &[u8]) -> Self {
        let hash = blake3::Hasher::new_derive_key(HASH_CONTEXT).update(&self.0).update(salt).finalize();
        let mut first = [0; 16];
        first.copy_from_slice(&hash.as_bytes()[..16]);
        Self(first)
    }

    /// Returns the bytes that identify the namespace.
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_distinct_unless_all_salts_are_equal() {
        let root = CacheNamespace::default();
        let all = [
            root,
            root.salted(b""),
            root.salted(b"a"),
            root.salted(b"b"),
            root.salted(b"ab"),
            root.salted(b"a").salted(b"b"),
            root.salted(b"b").salted(b"a"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "namespace {at} is not distinct");
        }
        assert_eq!(root.salted(b"a").salted(b"b"), all[5]);
    }
}
