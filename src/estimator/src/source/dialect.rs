//! API dialects for requesting log-probabilities, and checks that a response is complete.

use serde::{Deserialize, Serialize};
use surprisal_dialect::{Batch, Dialect, Logprobs, Query, Request, SglangOptions, SglangStart};

use crate::source::ScoreQuery;

/// Options of requests to SGLang: one start position for the whole request, and no generated tokens.
const SGLANG: SglangOptions = SglangOptions { start: SglangStart::Earliest, max_new_tokens: 0 };

/// The API dialect of a server that returns the log-probabilities of a prompt. All requests send token ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScoringDialect {
    /// surprisal's `POST /logprobs`.
    #[default]
    Surprisal,
    /// `POST /v1/completions` with `echo` and `logprobs`: OpenAI's original API, which many servers implement.
    OpenAi,
    /// `POST /v1/completions` with vLLM's `prompt_logprobs`.
    Vllm,
    /// SGLang's `POST /generate` with `return_logprob`.
    Sglang,
}

impl ScoringDialect {
    fn dialect(self) -> Dialect {
        match self {
            Self::Surprisal => Dialect::Surprisal,
            Self::OpenAi => Dialect::OpenAi,
            Self::Vllm => Dialect::Vllm,
            Self::Sglang => Dialect::Sglang,
        }
    }

    /// Returns the URL path that requests are sent to.
    pub(crate) fn path(self) -> &'static str {
        self.dialect().path()
    }

    pub(crate) fn name(self) -> &'static str {
        self.dialect().name()
    }

    /// Returns the request's body. `bos` is put before every sequence; if it is `None`, a surprisal server adds its
    /// model's BOS.
    pub(crate) fn request<'a>(
        self,
        queries: &[ScoreQuery],
        model: &'a str,
        bos: Option<u32>,
    ) -> impl Serialize + use<'a> {
        self.dialect().body(&Request { model, batch: &batch(queries, bos), sglang: SGLANG })
    }

    /// Returns the most that a response to [`request`](Self::request) may have, in bytes.
    pub(crate) fn max_response_bytes(self, queries: &[ScoreQuery], bos: Option<u32>) -> usize {
        self.dialect().max_response_bytes(&batch(queries, bos))
    }

    /// Reads the response to [`request`](Self::request): each query's log-probabilities, and the model's fingerprint if
    /// the response has one.
    ///
    /// # Errors
    /// A description of the mismatch between response and request.
    pub(crate) fn read(
        self,
        body: &[u8],
        queries: &[ScoreQuery],
        bos: Option<u32>,
    ) -> Result<(Vec<Vec<f32>>, Option<String>), String> {
        let answer = self.dialect().read::<f32>(&batch(queries, bos), body).map_err(|error| error.to_string())?;
        let mut results = answer.results;
        if matches!(self, Self::OpenAi | Self::Vllm) {
            // Ignore choices beyond the queries.
            results.truncate(queries.len());
        }
        if results.contains(&Logprobs::Missing) {
            return Err(self.missing().to_owned());
        }
        check_count(queries, results.len())?;
        let mut logprobs = Vec::with_capacity(queries.len());
        for (index, (query, result)) in queries.iter().zip(results).enumerate() {
            let query = Query { context: &query.context, target: &query.target };
            let target = result.of_target(&query, bos).map_err(|reason| format!("query {index}: {reason}"))?;
            logprobs.push(complete(index, &query, bos, target)?);
        }
        Ok((logprobs, answer.fingerprint))
    }

    /// Returns the error for a result without log-probabilities.
    fn missing(self) -> &'static str {
        match self {
            Self::Vllm => "the response has no prompt_logprobs; the server does not support them",
            _ => "the response has no logprobs; the server does not support echo with logprobs",
        }
    }
}

fn batch(queries: &[ScoreQuery], bos: Option<u32>) -> Batch<'_> {
    let queries = queries.iter().map(|query| Query { context: &query.context, target: &query.target }).collect();
    Batch::Queries { queries, bos }
}

fn check_count(queries: &[ScoreQuery], results: usize) -> Result<(), String> {
    match queries.len() == results {
        true => Ok(()),
        false => Err(format!("results: expected {}, got {results}", queries.len())),
    }
}

/// Unwraps a target's log-probabilities. All tokens must have one.
fn complete(index: usize, query: &Query<'_>, bos: Option<u32>, target: Vec<Option<f32>>) -> Result<Vec<f32>, String> {
    let missing = |position: usize| match position == 0 && query.context.is_empty() && bos.is_none() {
        true => format!(
            "the first token of query {index} has no log-probability, because no token precedes it; \
             set bos to the id of the model's BOS token"
        ),
        false => format!(
            "query {index}: the response has no log-probability of target token {position}, which was sent as {}",
            query.target[position]
        ),
    };
    let logprobs = target.into_iter().enumerate();
    logprobs.map(|(position, logprob)| logprob.ok_or_else(|| missing(position))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const BOS: Option<u32> = Some(9);

    fn queries() -> Vec<ScoreQuery> {
        vec![ScoreQuery { context: vec![1, 2], target: vec![3, 4] }, ScoreQuery { context: vec![], target: vec![5] }]
    }

    fn read(api: ScoringDialect, answer: Value, bos: Option<u32>) -> Result<Vec<Vec<f32>>, String> {
        api.read(answer.to_string().as_bytes(), &queries(), bos).map(|(logprobs, _)| logprobs)
    }

    /// Responses as the servers write them: with a generated token, and with choices in any order.
    #[test]
    fn responses_of_all_dialects_are_read() {
        let want = Ok(vec![vec![-3.0, -4.0], vec![-5.0]]);
        let echo = json!({"choices": [
            {"index": 1, "text": "", "logprobs": {"token_logprobs": [null, -5.0, -0.5], "tokens": ["b", "e", "x"]}},
            {"index": 0, "text": "", "logprobs": {"token_logprobs": [null, -1.0, -2.0, -3.0, -4.0, -0.5]}}]});
        assert_eq!(read(ScoringDialect::OpenAi, echo, BOS), want);
        let listed =
            |id: u32, logprob: f32| json!({id.to_string(): {"logprob": logprob, "rank": 3, "decoded_token": "x"}});
        let mut third = listed(3, -3.0);
        third["77"] = json!({"logprob": -0.1, "rank": 1});
        let vllm = json!({"choices": [
            {"index": 0, "prompt_logprobs": [null, listed(1, -1.0), listed(2, -2.0), third, listed(4, -4.0)]},
            {"index": 1, "prompt_logprobs": [null, listed(5, -5.0)]}]});
        assert_eq!(read(ScoringDialect::Vllm, vllm, BOS), want);
        let sglang = json!([
            {"text": "", "meta_info": {"input_token_logprobs": [[-2.0, 2, null], [-3.0, 3, null], [-4.0, 4, null]]}},
            {"text": "", "meta_info": {"input_token_logprobs": [[null, 9, null], [-5.0, 5, null]]}}]);
        assert_eq!(read(ScoringDialect::Sglang, sglang, BOS), want);
    }

    /// A surprisal server adds its model's BOS, or none if the client sends one.
    #[test]
    fn sequences_start_with_one_bos() {
        for (bos, rule, contexts) in [(None, "always", json!([[1, 2], []])), (BOS, "none", json!([[9, 1, 2], [9]]))] {
            let request = ScoringDialect::Surprisal.request(&queries(), "m", bos);
            let request = serde_json::to_value(&request).unwrap();
            let sent: Vec<&Value> = (0..2_usize).map(|query| &request["queries"][query]["context"]).collect();
            assert_eq!((&request["bos"], json!(sent)), (&json!(rule), contexts));
        }
    }

    /// A server that adds a token, or omits one, would shift every log-probability.
    #[test]
    fn lists_of_another_length_are_rejected() {
        let vllm = |first: &[Value]| {
            json!({"choices": [{"index": 0, "prompt_logprobs": first},
            {"index": 1, "prompt_logprobs": [null, {"5": {"logprob": -5.0}}]}]})
        };
        let listed = |id: u32| json!({id.to_string(): {"logprob": -1.0}});
        let whole = [Value::Null, listed(1), listed(2), listed(3), listed(4)];
        assert!(read(ScoringDialect::Vllm, vllm(&whole), BOS).is_ok());
        let longer = [&[Value::Null][..], &whole].concat();
        for (list, found) in [(&whole[..4], 4), (&longer, 6)] {
            let error = read(ScoringDialect::Vllm, vllm(list), BOS).unwrap_err();
            assert!(
                error.starts_with("query 0: expected 5 log-probabilities") && error.ends_with(&format!("got {found}")),
                "{error}"
            );
        }
        let echo = |values: Value| {
            json!({"choices": [{"index": 0, "logprobs": {"token_logprobs": values}},
            {"index": 1, "logprobs": {"token_logprobs": [null, -5.0]}}]})
        };
        assert!(read(ScoringDialect::OpenAi, echo(json!([null, -1.0, -2.0, -3.0, -4.0])), BOS).is_ok());
        for wrong in [json!([-1.0, -2.0, -3.0, -4.0]), json!([null, null, -1.0, -2.0, -3.0, -4.0, -0.5])] {
            let error = read(ScoringDialect::OpenAi, echo(wrong), BOS).unwrap_err();
            assert!(error.contains("expected 5 log-probabilities"), "{error}");
        }
        let sglang = |ids: [u32; 2]| {
            json!([
            {"text": "", "meta_info": {"input_token_logprobs": ids.map(|id| json!([-1.0, id, null]))}},
            {"text": "", "meta_info": {"input_token_logprobs": [[-5.0, 5, null]]}}])
        };
        assert!(read(ScoringDialect::Sglang, sglang([3, 4]), BOS).is_ok());
        assert!(read(ScoringDialect::Sglang, sglang([2, 3]), BOS).unwrap_err().contains("not those of the prompt"));
    }

    #[test]
    fn missing_log_probabilities_are_reported() {
        let silent = || json!({"choices": [{"index": 0, "text": "x"}, {"index": 1, "text": "y"}]});
        assert!(read(ScoringDialect::OpenAi, silent(), BOS).unwrap_err().contains("does not support echo"));
        assert!(read(ScoringDialect::Vllm, silent(), BOS).unwrap_err().contains("does not support them"));
        let one = json!({"choices": [{"index": 0, "logprobs": {"token_logprobs": [null, -1.0, -2.0, -3.0]}}]});
        assert_eq!(read(ScoringDialect::OpenAi, one, None).unwrap_err(), "results: expected 2, got 1");
        let unknown = json!({"choices": [{"index": 0, "logprobs": {"token_logprobs": [null, -1.0, -2.0, -3.0, -9.0]}},
            {"index": 1, "logprobs": {"token_logprobs": [null, -9.0]}}]});
        assert!(read(ScoringDialect::OpenAi, unknown, None).unwrap_err().contains("set bos to the id"));
    }

    /// A server that scored other tokens, or that returns numbers that are no log-probabilities, is not believed.
    #[test]
    fn responses_that_cannot_be_right_are_rejected() {
        let listed = |id: u32, logprob: f32| json!({id.to_string(): {"logprob": logprob}});
        let vllm = |last: Value| {
            let first = [Value::Null, listed(1, -1.0), listed(2, -2.0), listed(3, -3.0), last];
            json!({"choices": [{"index": 0, "prompt_logprobs": first},
                {"index": 1, "prompt_logprobs": [null, listed(5, -5.0)]}]})
        };
        assert!(read(ScoringDialect::Vllm, vllm(listed(4, -4.0)), BOS).is_ok());
        let other = read(ScoringDialect::Vllm, vllm(listed(8, -4.0)), BOS).unwrap_err();
        assert_eq!(other, "query 0: the response has no log-probability of target token 1, which was sent as 4");
        let positive = read(ScoringDialect::Vllm, vllm(listed(4, 5.0)), BOS).unwrap_err();
        assert_eq!(positive, "query 0: target token 1 has log-probability 5; it must be at most 0");

        let result = |logprobs: Value, ids: Value| {
            let tokens = logprobs.as_array().unwrap().len();
            json!({"sum": -1.0, "tokens": tokens, "cached_tokens": 0, "logprobs": logprobs, "token_ids": ids})
        };
        let ours = |first: Value| {
            let usage = json!({"computed_tokens": 1, "cached_tokens": 0, "scored_tokens": 3});
            let results = [first, result(json!([-5.0]), json!([5]))];
            json!({"model": "m", "fingerprint": "f", "results": results, "usage": usage})
        };
        let read_ours = |logprobs: Value, ids: Value| read(ScoringDialect::Surprisal, ours(result(logprobs, ids)), BOS);
        assert!(read_ours(json!([-3.0, 1e-7]), json!([3, 4])).is_ok(), "rounding is accepted");
        assert!(
            read_ours(json!([-3.0, -4.0]), json!([3, 9])).unwrap_err().contains("sent as 4, but the response has 9")
        );
        assert!(read_ours(json!([-3.0, 0.5]), json!([3, 4])).unwrap_err().contains("0.5; it must be at most 0"));
        assert!(read_ours(json!([-3.0, -1e300]), json!([3, 4])).is_err(), "no f32 is as low");
    }
}
