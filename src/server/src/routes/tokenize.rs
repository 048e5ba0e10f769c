//! `POST /tokenize` and `POST /detokenize`: convert texts to token ids, and back.

use axum::extract::Request;
use axum::response::Response;
use surprisal_api::{DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse};

use super::context::RequestContext;
use super::response::json;
use crate::app::App;
use crate::input::encode::add_template;
use crate::input::validate::check_vocabulary;
use crate::problem::{self, Failure};
use crate::token_texts::token_id_label;

pub(super) async fn tokenize(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let respond = |app: &App, request: TokenizeRequest, _| {
        app.check_model(request.model.as_deref())?;
        let encoded = app.codec.encode(&request.prompt);
        let tokens = encoded.map_err(|reason| problem::text_not_encodable("prompt", None, &reason))?;
        let tokens = match request.add_special_tokens.unwrap_or(true) {
            true => add_template(app.codec.as_ref(), &tokens).0,
            false => tokens,
        };
        let token_strs = request.return_token_strs.unwrap_or(false).then(|| spellings(app, &tokens));
        json(&TokenizeResponse { count: tokens.len(), tokens, token_strs, max_model_len: app.model().max_length })
    };
    context.read(request, respond).await
}

pub(super) async fn detokenize(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let respond = |app: &App, request: DetokenizeRequest, _| {
        app.check_model(request.model.as_deref())?;
        check_vocabulary(&request.tokens, app.model().vocab_size, "tokens", None)?;
        let decoded = app.codec.decode(&request.tokens);
        let prompt = decoded.map_err(|reason| problem::tokens_not_decodable("tokens", &reason))?;
        json(&DetokenizeResponse { prompt })
    };
    context.read(request, respond).await
}

/// Returns each token as the vocabulary spells it.
fn spellings(app: &App, tokens: &[u32]) -> Vec<String> {
    tokens.iter().map(|&token| app.codec.spelling(token).unwrap_or_else(|| token_id_label(token))).collect()
}
