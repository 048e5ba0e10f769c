//! Log-probabilities from mistralrs' logits, one tile of rows at a time.

use mistralrs::{DType, Tensor};

/// Number of rows that are converted to f32 at a time.
const TILE: usize = 64;

/// Returns `ln p(tokens[i] | tokens[..i])` for each `i` in `score_from..`, in nats, from logits `[tokens][vocabulary]`.
/// The softmax denominator is summed in f64.
pub(crate) fn logprobs(logits: &Tensor, tokens: &[u32], score_from: usize) -> Result<Vec<f32>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot read the logits: {error}");
    let (rows, vocabulary) = logits.dims2().map_err(|error| failed(&error))?;
    if rows != tokens.len() {
        return Err(format!("mistralrs returned {rows} rows of logits for {} tokens", tokens.len()));
    }
    let mut out = Vec::with_capacity(tokens.len() - score_from);
    for first in (score_from..tokens.len()).step_by(TILE) {
        let targets = &tokens[first..tokens.len().min(first + TILE)];
        let tile = logits.narrow(0, first - 1, targets.len()).and_then(|tile| tile.to_dtype(DType::F32));
        let tile = tile.and_then(|tile| tile.to_vec2::<f32>()).map_err(|error| failed(&error))?;
        for (row, &target) in tile.iter().zip(targets) {
            let logit = row.get(target as usize);
            let logit = *logit
                .ok_or_else(|| format!("token id {target} must be below {vocabulary}, the number of logits per row"))?;
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
            out.push((f64::from(logit) - f64::from(max) - sum.ln()) as f32);
        }
    }
    Ok(out)
}
