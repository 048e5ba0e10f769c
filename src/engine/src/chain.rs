//! The identity of a prefix: a hash chained over its blocks.

use crate::backend::BLOCK_TOKENS;

/// Hash of all tokens up to a block's end: blake3 over the parent's hash and the block's tokens.
///
/// 128 bits of a cryptographic hash: two prefixes with one hash are not to be expected, nor to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Chain([u8; 16]);

impl Chain {
    /// The empty prefix.
    pub(crate) const ROOT: Self = Self([0; 16]);

    /// This prefix and up to one block of tokens.
    pub(crate) fn then(self, tokens: &[u32]) -> Self {
        debug_assert!(tokens.len() <= BLOCK_TOKENS);
        let mut bytes = [0u8; 16 + 4 * BLOCK_TOKENS];
        bytes[..16].copy_from_slice(&self.0);
        for (bytes, token) in bytes[16..].chunks_exact_mut(4).zip(tokens) {
            bytes.copy_from_slice(&token.to_le_bytes());
        }
        let hash = blake3::hash(&bytes[..16 + 4 * tokens.len()]);
        let mut chain = [0; 16];
        chain.copy_from_slice(&hash.as_bytes()[..16]);
        Self(chain)
    }
}
