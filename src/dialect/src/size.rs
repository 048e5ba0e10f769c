//! Upper bounds on the sizes of responses.

use crate::batch::Batch;
use crate::dialect::Dialect;

/// Bytes of a response beside its results.
const BASE_BYTES: usize = 256 << 10;

/// Upper bounds on the parts of a response, in bytes. They leave room for fields and spaces that a server may add.
struct Bounds {
    per_query: usize,
    /// Bytes for each token that may have an entry.
    per_token: usize,
}

impl Dialect {
    /// Returns an upper bound on the size of a response to `batch`, in bytes. A longer response is not an answer to
    /// this request, so a client need not read it.
    pub fn max_response_bytes(self, batch: &Batch<'_>) -> usize {
        let queries = batch.queries();
        let before = usize::from(batch.bos().is_some());
        let mut tokens = 0usize;
        for query in &queries {
            let context = if self == Self::Surprisal { 0 } else { before + query.context.len() };
            tokens = tokens.saturating_add(context + query.target.len());
        }
        let Bounds { per_query, per_token } = self.bounds();
        let results = queries.len().saturating_mul(per_query).saturating_add(tokens.saturating_mul(per_token));
        BASE_BYTES.saturating_add(results)
    }

    fn bounds(self) -> Bounds {
        match self {
            // A log-probability and an id for each target token.
            Self::Surprisal => Bounds { per_query: 1 << 10, per_token: 128 },
            // Each token of the prompt with its text, which may be long and repeated, and its rank.
            Self::Vllm | Self::Sglang | Self::OpenAi => Bounds { per_query: 8 << 10, per_token: 1 << 10 },
            // The settings of the request, and the prompt.
            Self::LlamaCpp => Bounds { per_query: 64 << 10, per_token: 1 << 10 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Query;

    #[test]
    fn the_bound_grows_with_the_tokens_that_a_dialect_returns() {
        let (context, target) = (vec![1; 1000], vec![2; 10]);
        let queries = vec![Query { context: &context, target: &target }; 3];
        let batch = Batch::Queries { queries, bos: Some(1) };
        assert_eq!(Dialect::Surprisal.max_response_bytes(&batch), BASE_BYTES + 3 * (1024 + 10 * 128));
        assert_eq!(Dialect::Vllm.max_response_bytes(&batch), BASE_BYTES + 3 * (8192 + 1011 * 1024));
    }
}
