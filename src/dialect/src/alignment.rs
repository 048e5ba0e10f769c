//! The position of a target in a list of log-probabilities.

use crate::batch::Query;
use crate::check::{check_logprobs, check_token_ids};
use crate::response::Logprobs;

impl<F: Copy + Into<f64>> Logprobs<F> {
    /// Returns the log-probabilities of the query's target, one for each token; `None` for a token without one. `bos`
    /// is the token before the query's context.
    ///
    /// # Errors
    /// A description of the mismatch if the list does not have the tokens of the query, if there is no list, or if a
    /// value cannot be a log-probability.
    pub fn of_target(&self, query: &Query<'_>, bos: Option<u32>) -> Result<Vec<Option<F>>, String> {
        let logprobs = self.select_target(query, bos)?;
        check_logprobs(logprobs.iter().copied())?;
        Ok(logprobs)
    }

    fn select_target(&self, query: &Query<'_>, bos: Option<u32>) -> Result<Vec<Option<F>>, String> {
        let target = query.target.len();
        let before = usize::from(bos.is_some()) + query.context.len();
        let prompt = before + target;
        match self {
            Self::Target { logprobs, token_ids } if logprobs.len() == target => {
                token_ids.as_ref().map_or(Ok(()), |echoed| check_token_ids(query.target, echoed))?;
                Ok(logprobs.iter().copied().map(Some).collect())
            }
            Self::Target { logprobs, .. } => {
                Err(format!("expected {target} log-probabilities for the target, got {}", logprobs.len()))
            }
            Self::Prompt(all) if all.len() == prompt => Ok(all[before..].to_vec()),
            Self::Prompt(all) => {
                Err(format!("expected {prompt} log-probabilities, one for each token of the prompt, got {}", all.len()))
            }
            Self::PromptAndGenerated(all) if all.len() == prompt || all.len() == prompt + 1 => {
                Ok(all[before..prompt].to_vec())
            }
            Self::PromptAndGenerated(all) => Err(format!(
                "expected {prompt} log-probabilities, one for each token of the prompt, and one for the generated \
                 token, got {}",
                all.len()
            )),
            Self::PromptEnd(end) => end_of_prompt(end, query, bos),
            Self::Missing => Err("the response has no log-probabilities".to_owned()),
        }
    }
}

/// Returns the log-probabilities of the target, which must be the last of the listed tokens.
fn end_of_prompt<F: Copy>(
    end: &[(u32, Option<F>)],
    query: &Query<'_>,
    bos: Option<u32>,
) -> Result<Vec<Option<F>>, String> {
    let target = query.target.len();
    if end.len() < target {
        return Err(format!("expected log-probabilities of at least {target} tokens, got {}", end.len()));
    }
    let length = usize::from(bos.is_some()) + query.context.len() + target;
    if end.len() > length {
        return Err(format!("expected at most {length} tokens, those of the prompt, got {}", end.len()));
    }
    let prompt = bos.iter().chain(query.context).chain(query.target).rev();
    let mut pairs = end.iter().rev().zip(prompt);
    if let Some(((found, _), expected)) = pairs.find(|((found, _), expected)| found != *expected) {
        return Err(format!("the listed tokens are not those of the prompt: expected token {expected}, got {found}"));
    }
    Ok(end[end.len() - target..].iter().map(|(_, logprob)| *logprob).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_another_length_are_rejected() {
        let query = Query { context: &[1, 2], target: &[3, 4] };
        let of = |logprobs: Logprobs<f32>| logprobs.of_target(&query, Some(9));
        let list = |length: usize| (0..length).map(|i| Some(-(i as f32))).collect::<Vec<_>>();
        let expected = Ok(vec![Some(-3.0), Some(-4.0)]);
        let target = |logprobs: &[f32], ids: Option<&[u32]>| Logprobs::Target {
            logprobs: logprobs.to_vec(),
            token_ids: ids.map(<[u32]>::to_vec),
        };
        assert_eq!(of(target(&[-3.0, -4.0], None)), expected);
        assert_eq!(of(target(&[-3.0, -4.0], Some(&[3, 4]))), expected);
        assert_eq!(of(Logprobs::Prompt(list(5))), expected);
        assert_eq!(of(Logprobs::PromptAndGenerated(list(5))), expected);
        assert_eq!(of(Logprobs::PromptAndGenerated(list(6))), expected);
        for (wrong, reason) in [
            (target(&[-3.0, -4.0], Some(&[3, 5])), "target token 1 was sent as 4, but the response has 5"),
            (target(&[-3.0, 5.0], None), "target token 1 has log-probability 5; it must be at most 0"),
            (Logprobs::Prompt(vec![None, None, None, Some(-1.0), Some(2.0)]), "target token 1 has log-probability 2"),
            (target(&[-3.0], None), "expected 2 log-probabilities for the target, got 1"),
            (Logprobs::Prompt(list(4)), "expected 5 log-probabilities, one for each token of the prompt, got 4"),
            (Logprobs::Prompt(list(6)), "got 6"),
            (Logprobs::PromptAndGenerated(list(4)), "and one for the generated token, got 4"),
            (Logprobs::PromptAndGenerated(list(7)), "got 7"),
            (Logprobs::Missing, "no log-probabilities"),
        ] {
            assert!(of(wrong.clone()).unwrap_err().contains(reason), "{wrong:?}");
        }
    }

    #[test]
    fn the_listed_tokens_must_end_the_prompt() {
        let query = Query { context: &[1, 2], target: &[3, 4] };
        let of = |tokens: &[u32]| {
            let end = tokens.iter().map(|&token| (token, Some(-(token as f32)))).collect();
            Logprobs::PromptEnd(end).of_target(&query, Some(9))
        };
        for tokens in [&[3, 4][..], &[2, 3, 4], &[9, 1, 2, 3, 4]] {
            assert_eq!(of(tokens), Ok(vec![Some(-3.0), Some(-4.0)]));
        }
        assert!(of(&[4]).unwrap_err().contains("at least 2 tokens, got 1"));
        assert!(of(&[7, 9, 1, 2, 3, 4]).unwrap_err().contains("at most 5 tokens, those of the prompt, got 6"));
        for tokens in [&[2, 3][..], &[1, 3, 4], &[3, 4, 7]] {
            assert!(of(tokens).unwrap_err().contains("the listed tokens are not those of the prompt"), "{tokens:?}");
        }
    }
}
