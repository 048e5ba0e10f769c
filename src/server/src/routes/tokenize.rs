//! `POST /tokenize` and `POST /detokenize`: convert texts to token ids, and back.

use axum::extract::Request;
use axum::response::Response;
use surprisal_api::{Bos, DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse};

use super::context::RequestContext;
use super::response::json;
use crate::app::App;
use crate::input::encode::prepend_bos;
use crate::input::validate::check_vocabulary;
use crate::problem::{self, Failure};

pub(super) async fn tokenize(context: RequestContext, request: Request) -> Result<Response, Failure> {
    let respond = |app: &App, request: TokenizeRequest, _| {
        app.check_model(request.model.as_deref())?;
        let encoded = app.codec.encode(&request.prompt);
        let tokens = encoded.map_err(|reason| problem::text_not_encodable("prompt", None, &reason))?;
        let rule = if request.add_special_tokens { Bos::Auto } else { Bos::None };
        let tokens = prepend_bos(rule, app.codec.bos(), tokens);
        json(&TokenizeResponse { count: tokens.len(), tokens, max_model_len: app.model().max_length })
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
