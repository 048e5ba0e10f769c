//! Request bodies.
//!
//! Bodies that are not wire types of `surprisal_api` have their fields in alphabetical order, so that their bytes do
//! not depend on the features of `serde_json`.

use serde::Serialize;
use surprisal_api::{Bos, Detail, LogprobsRequest, Pairs, QuerySpec, Text, TokenText};

use crate::batch::{Batch, Query};
use crate::dialect::Dialect;

/// A request for the log-probabilities of a batch of queries.
#[derive(Clone, Copy, Debug)]
pub struct Request<'m, 'b> {
    /// The model's name, for servers that serve several models.
    pub model: &'m str,
    /// The queries.
    pub batch: &'b Batch<'b>,
    /// Options of a request to SGLang.
    pub sglang: SglangOptions,
}

/// Options of a request to SGLang.
#[derive(Clone, Copy, Debug, Default)]
pub struct SglangOptions {
    /// The first position whose log-probability is returned.
    pub start: SglangStart,
    /// The number of tokens to generate. The other completion dialects always generate one.
    pub max_new_tokens: u32,
}

/// The position from which SGLang returns log-probabilities: one token before a target, because some versions omit the
/// first log-probability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SglangStart {
    /// One position for the whole batch: the earliest that any query needs.
    #[default]
    Earliest,
    /// A position for each query; a single number if all are equal, because not every server accepts a list.
    PerQuery,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Queries(QueriesBody),
    Pairs(Box<LogprobsRequest>),
    Vllm(VllmBody<'a>),
    OpenAi(OpenAiBody<'a>),
    Sglang(SglangBody),
    LlamaCpp(LlamaCppBody),
}

/// The body of a [`LogprobsRequest`] with a list of queries.
#[derive(Serialize)]
struct QueriesBody {
    bos: Bos,
    detail: Detail,
    queries: Vec<QuerySpec>,
    texts: TokenText,
}

#[derive(Serialize)]
struct VllmBody<'a> {
    max_tokens: u32,
    model: &'a str,
    prompt: Vec<Vec<u32>>,
    prompt_logprobs: u32,
    temperature: u32,
}

#[derive(Serialize)]
struct OpenAiBody<'a> {
    echo: bool,
    logprobs: u32,
    max_tokens: u32,
    model: &'a str,
    prompt: Vec<Vec<u32>>,
    temperature: u32,
}

#[derive(Serialize)]
struct SglangBody {
    input_ids: Vec<Vec<u32>>,
    logprob_start_len: StartLengths,
    return_logprob: bool,
    sampling_params: SamplingParams,
}

#[derive(Serialize)]
#[serde(untagged)]
enum StartLengths {
    One(usize),
    PerQuery(Vec<usize>),
}

#[derive(Serialize)]
struct SamplingParams {
    max_new_tokens: u32,
    temperature: u32,
}

#[derive(Serialize)]
struct LlamaCppBody {
    cache_prompt: bool,
    n_predict: u32,
    prompt: Vec<Vec<u32>>,
    temperature: u32,
}

impl Dialect {
    /// Returns the body of a request.
    pub fn body<'m>(self, request: &Request<'m, '_>) -> impl Serialize + use<'m> {
        let &Request { model, batch, sglang } = request;
        let prompt = || batch.prompts();
        match self {
            Self::Surprisal => surprisal(batch),
            // Generate one token, because older servers reject requests that generate none.
            Self::Vllm => {
                Body::Vllm(VllmBody { max_tokens: 1, model, prompt: prompt(), prompt_logprobs: 0, temperature: 0 })
            }
            Self::OpenAi => Body::OpenAi(OpenAiBody {
                echo: true,
                logprobs: 1,
                max_tokens: 1,
                model,
                prompt: prompt(),
                temperature: 0,
            }),
            Self::Sglang => Body::Sglang(SglangBody {
                input_ids: prompt(),
                logprob_start_len: start_lengths(batch, sglang.start),
                return_logprob: true,
                sampling_params: SamplingParams { max_new_tokens: sglang.max_new_tokens, temperature: 0 },
            }),
            Self::LlamaCpp => {
                Body::LlamaCpp(LlamaCppBody { cache_prompt: true, n_predict: 1, prompt: prompt(), temperature: 0 })
            }
        }
    }
}

fn surprisal<'a>(batch: &Batch<'_>) -> Body<'a> {
    match batch {
        Batch::Queries { queries, bos } => {
            let spec = |&Query { context, target }: &Query<'_>| {
                let context: Vec<u32> = bos.iter().chain(context).copied().collect();
                QuerySpec::new(context.into(), target.to_vec().into())
            };
            let rule = if bos.is_some() { Bos::None } else { Bos::Always };
            Body::Queries(QueriesBody {
                bos: rule,
                detail: Detail::Tokens,
                queries: queries.iter().map(spec).collect(),
                texts: TokenText::None,
            })
        }
        Batch::Pairs { contexts, targets, pairs } => {
            let texts = |texts: &[Vec<u32>]| texts.iter().cloned().map(Text::from).collect();
            let all = pairs.len() == contexts.len() * targets.len();
            Body::Pairs(Box::new(LogprobsRequest {
                contexts: Some(texts(contexts)),
                targets: Some(texts(targets)),
                pairs: Some(if all { Pairs::All } else { Pairs::List(pairs.to_vec()) }),
                detail: Detail::Tokens,
                texts: Some(TokenText::None),
                bos: Bos::None,
                ..LogprobsRequest::default()
            }))
        }
    }
}

fn start_lengths(batch: &Batch<'_>, start: SglangStart) -> StartLengths {
    let before = usize::from(batch.bos().is_some());
    let starts = batch.queries().into_iter().map(|query| (before + query.context.len()).saturating_sub(1));
    match start {
        SglangStart::Earliest => StartLengths::One(starts.min().unwrap_or(0)),
        SglangStart::PerQuery => {
            let starts: Vec<usize> = starts.collect();
            match starts.first() {
                Some(&first) if starts.iter().all(|&start| start == first) => StartLengths::One(first),
                _ => StartLengths::PerQuery(starts),
            }
        }
    }
}
