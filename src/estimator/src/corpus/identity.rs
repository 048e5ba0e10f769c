//! The identity of the documents of an experiment.

use serde::{Deserialize, Serialize};

/// Digests that identify the documents of an experiment, so that reports are compared only if they can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusIdentity {
    /// A human-readable description of the corpus.
    pub name: String,
    /// A digest of the content of the selected texts, which does not depend on the tokenizer.
    pub texts: String,
    /// A digest of the tokens of the selected texts. With equal `texts`, another digest means another tokenizer.
    pub tokens: String,
    /// A digest of the places of the windows in the tokens: the texts, and the first token of each window. The length of
    /// the windows does not change it. With equal `texts`, `tokens` and `windows`, two experiments measure the same
    /// tokens at every `L` that both have.
    pub windows: String,
}

/// Computes a [`CorpusIdentity`] while the texts are read.
#[derive(Default)]
pub(crate) struct IdentityHasher {
    /// The number of texts so far.
    count: usize,
    texts: blake3::Hasher,
    tokens: blake3::Hasher,
    windows: blake3::Hasher,
}

impl IdentityHasher {
    /// Adds the next selected text: its content and its tokens.
    pub(crate) fn add_text(&mut self, content: &[u8], tokens: &[u32]) {
        self.count += 1;
        // A length before each content keeps the borders of texts in the digest.
        self.texts.update(&(content.len() as u64).to_le_bytes()).update(content);
        self.tokens.update(&(tokens.len() as u64).to_le_bytes());
        for token in tokens {
            self.tokens.update(&token.to_le_bytes());
        }
    }

    /// Adds the first token of each window of the text that was added last.
    pub(crate) fn add_windows(&mut self, starts: &[usize]) {
        for &start in starts {
            self.windows.update(&(self.count as u64).to_le_bytes()).update(&(start as u64).to_le_bytes());
        }
    }

    /// Returns the identity of the corpus that `name` describes.
    pub(crate) fn finish(&self, name: String) -> CorpusIdentity {
        let digest = |hasher: &blake3::Hasher| hasher.finalize().to_hex()[..16].to_owned();
        let (texts, tokens, windows) = (digest(&self.texts), digest(&self.tokens), digest(&self.windows));
        CorpusIdentity { name, texts, tokens, windows }
    }
}
