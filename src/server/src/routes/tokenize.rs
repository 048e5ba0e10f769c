//! `POST /tokenize` and `POST /detokenize`: convert texts to token ids, and back. `/lm-eval/tokenize` is a variant for
//! lm-evaluation-harness.

use axum::extract::Request;
use axum::response::Response;
use surprisal_api::{DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse};

use super::context::RequestContext;
use super::response::{json, respond_written};
use crate::app::App;
use crate::input::encode::{add_template, add_template_once, check_tokenizing};
use crate::input::validate::check_vocabulary;
use crate::problem::{self, Failure};
use crate::token_texts::token_id_label;

pub(super) async fn tokenize(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let write = |app: &App, request: TokenizeRequest, _| {
        let own = own_tokens(app, &request)?;
        let tokens = match request.add_special_tokens.unwrap_or(true) {
            true => add_template(app.codec.as_ref(), &own).0,
            false => own,
        };
        token_response(app, &request, tokens)
    };
    let json = context.read(request, write).await?;
    respond_written(context, json)
}

/// Answers `POST /lm-eval/tokenize`, for lm-evaluation-harness. The harness asks for no special tokens, and then scores
/// the tokens as they are, so this route adds them anyway.
pub(super) async fn tokenize_for_lm_eval(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let write = |app: &App, request: TokenizeRequest, _| {
        let tokens = add_template_once(app.codec.as_ref(), own_tokens(app, &request)?);
        token_response(app, &request, tokens)
    };
    let json = context.read(request, write).await?;
    respond_written(context, json)
}

/// Returns a text's tokens, without special tokens.
fn own_tokens(app: &App, request: &TokenizeRequest) -> Result<Vec<u32>, Failure> {
    app.check_model(request.model.as_deref())?;
    check_tokenizing(app, &request.prompt, "prompt", None)?;
    let encoded = app.codec.encode(&request.prompt);
    encoded.map_err(|reason| problem::text_not_encodable("prompt", None, &reason))
}

fn token_response(app: &App, request: &TokenizeRequest, tokens: Vec<u32>) -> Result<Vec<u8>, Failure> {
    let token_strs = request.return_token_strs.unwrap_or(false).then(|| spellings(app, &tokens));
    json(&TokenizeResponse { count: tokens.len(), tokens, token_strs, max_model_len: app.model().max_length })
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
