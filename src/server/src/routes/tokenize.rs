//! `POST /tokenize` and `POST /detokenize`: convert texts to token ids, and back. `/lm-eval/tokenize` is a variant for
//! lm-evaluation-harness.

use axum::extract::Request;
use axum::response::Response;
use surprisal_api::{DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse};

use super::context::RequestContext;
use super::response::{json, respond_written};
use crate::app::App;
use crate::input::encode::{EncodedText, add_template, add_template_once, check_tokenizing};
use crate::input::validate::check_vocabulary;
use crate::problem::{self, Failure};
use crate::token_texts::token_id_label;

pub(super) async fn tokenize(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let write = |app: &App, request: TokenizeRequest, _| {
        let own = own_tokens(app, &request)?;
        let tokens = match request.add_special_tokens.unwrap_or(true) {
            true => add_template(app.codec.as_ref(), &own.tokens).0,
            false => own.tokens.clone(),
        };
        token_response(app, &request, &own, tokens)
    };
    let json = context.read(request, write).await?;
    respond_written(context, json)
}

/// Answers `POST /lm-eval/tokenize`, for lm-evaluation-harness. The harness asks for no special tokens, and then scores
/// the tokens as they are, so this route adds them anyway.
pub(super) async fn tokenize_for_lm_eval(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let write = |app: &App, request: TokenizeRequest, _| {
        let own = own_tokens(app, &request)?;
        let tokens = add_template_once(app.codec.as_ref(), own.tokens.clone());
        token_response(app, &request, &own, tokens)
    };
    let json = context.read(request, write).await?;
    respond_written(context, json)
}

/// Returns a text's tokens, without special tokens, and their offsets if the request asks for them.
fn own_tokens(app: &App, request: &TokenizeRequest) -> Result<EncodedText, Failure> {
    app.check_model(request.model.as_deref())?;
    check_tokenizing(app, &request.prompt, "prompt", None)?;
    let encoded = match request.return_offsets.unwrap_or(false) {
        true => app.codec.encode_with_offsets(&request.prompt).map(|(tokens, offsets)| (tokens, Some(offsets))),
        false => app.codec.encode(&request.prompt).map(|tokens| (tokens, None)),
    };
    let (tokens, offsets) = encoded.map_err(|reason| problem::text_not_encodable("prompt", None, &reason))?;
    Ok(EncodedText { tokens, offsets })
}

/// Writes the response. `tokens` are the text's own tokens with the special tokens before and after them.
fn token_response(
    app: &App,
    request: &TokenizeRequest,
    own: &EncodedText,
    tokens: Vec<u32>,
) -> Result<Vec<u8>, Failure> {
    let added = tokens.len() - own.tokens.len();
    let after = added.min(app.codec.suffix().len());
    let end = request.prompt.len();
    let offsets =
        own.offsets.as_ref().map(|own| [&vec![[0, 0]; added - after][..], own, &vec![[end, end]; after][..]].concat());
    let token_strs = request.return_token_strs.unwrap_or(false).then(|| spellings(app, &tokens));
    let (count, max_model_len) = (tokens.len(), app.model().max_length);
    json(&TokenizeResponse { tokens, token_strs, offsets, count, max_model_len })
}

pub(super) async fn detokenize(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let write = |app: &App, request: DetokenizeRequest, _| {
        app.check_model(request.model.as_deref())?;
        let limit = app.text_limits.decoding_tokens;
        if request.tokens.len() > limit {
            return Err(problem::text_too_large(None, "tokens", request.tokens.len(), "token ids", limit));
        }
        check_vocabulary(&request.tokens, app.model().vocab_size, "tokens", None)?;
        let decoded = app.codec.decode(&request.tokens);
        let prompt = decoded.map_err(|reason| problem::tokens_not_decodable("tokens", &reason))?;
        json(&DetokenizeResponse { prompt })
    };
    let json = context.read(request, write).await?;
    respond_written(context, json)
}

/// Returns each token as the vocabulary spells it.
fn spellings(app: &App, tokens: &[u32]) -> Vec<String> {
    tokens.iter().map(|&token| app.codec.spelling(token).unwrap_or_else(|| token_id_label(token))).collect()
}
