//! The rule for a checkpoint that stores an output head although config.json says that the embedding is the head.
//!
//! As in transformers 5, the stored head is used if it differs from the embedding: config.json is wrong then, as after
//! some merges of adapters. If only one of the two tensors is stored, it serves as both.

use super::Checkpoint;
use super::read::SLAB_VALUES;
use crate::config::tensors::{EMBEDDING, HEAD};
use crate::error::Error;

impl Checkpoint {
    /// Sets `tie_word_embeddings` to false if the stored head differs from the embedding, and records the case that
    /// only the head is stored. Reads both tensors if both are stored.
    pub(super) fn resolve_tied_head(&mut self) -> Result<(), Error> {
        if !self.config.tie_word_embeddings || !self.shard_of_tensor.contains_key(HEAD) {
            return Ok(());
        }
        if !self.shard_of_tensor.contains_key(EMBEDDING) {
            self.embedding_is_stored_as_head = true;
        } else if !self.stored_head_equals_embedding()? {
            tracing::warn!(
                path = %self.dir.display(),
                "tie_word_embeddings is true, but lm_head.weight differs from the embedding; using lm_head.weight"
            );
            self.config.tie_word_embeddings = false;
        }
        Ok(())
    }

    fn stored_head_equals_embedding(&self) -> Result<bool, Error> {
        let ((embedding, embedding_shard), (head, head_shard)) = (self.find(EMBEDDING)?, self.find(HEAD)?);
        if embedding.shape != head.shape {
            return Ok(false);
        }
        if embedding.dtype != head.dtype || self.is_fp8(HEAD) {
            return self.have_equal_values(&embedding.shape);
        }
        let size = embedding.data_offsets.1 - embedding.data_offsets.0;
        let (mut embedding_part, mut head_part) = (Vec::new(), Vec::new());
        for start in (0..size).step_by(SLAB_VALUES) {
            let range = start..size.min(start + SLAB_VALUES);
            embedding_shard.read(embedding, range.clone(), &mut embedding_part)?;
            head_shard.read(head, range, &mut head_part)?;
            if embedding_part != head_part {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Compares the values of the two tensors, whose types or scales may differ.
    fn have_equal_values(&self, shape: &[usize]) -> Result<bool, Error> {
        let embedding = self.tensor_f32(EMBEDDING, shape)?;
        let columns = shape.get(1).copied().unwrap_or(1);
        let mut equal = true;
        self.read_slabs(HEAD, shape, |first, slab| {
            let start = first * columns;
            equal &= embedding[start..start + slab.len()] == *slab;
        })?;
        Ok(equal)
    }
}
