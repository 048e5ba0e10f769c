//! The identity of a prefix in a namespace of the cache: a hash chained over its blocks.

use crate::backend::BLOCK_TOKENS;
use crate::scorer::CacheNamespace;

/// The hash of all tokens up to a block's end: blake3 over the parent's hash and the block's tokens.
///
/// It is 128 bits of a cryptographic hash, so collisions do not occur by chance, and nobody can construct one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PrefixHash([u8; 16]);

impl PrefixHash {
    /// Returns the hash of the empty prefix in a namespace. The hashes of all other prefixes depend on it.
    pub(crate) fn root(namespace: CacheNamespace) -> Self {
        Self(namespace.bytes())
    }

    /// Returns the hash of this prefix followed by up to one block of tokens.
    pub(crate) fn extend(self, tokens: &[u32]) -> Self {
        debug_assert!(tokens.len() <= BLOCK_TOKENS);
        let mut bytes = [0u8; 16 + 4 * BLOCK_TOKENS];
        bytes[..16].copy_from_slice(&self.0);
        for (bytes, token) in bytes[16..].chunks_exact_mut(4).zip(tokens) {
            bytes.copy_from_slice(&token.to_le_bytes());
        }
        let hash = blake3::hash(&bytes[..16 + 4 * tokens.len()]);
        let mut first = [0; 16];
        first.copy_from_slice(&hash.as_bytes()[..16]);
        Self(first)
    }
}
