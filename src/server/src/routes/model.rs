//! `GET /v1/models` and `GET /tokenizer_info`: the served model and its tokenizer.

use axum::Json;
use axum::extract::State;
use surprisal_api::{ModelInfo, ModelList, TokenizerInfo};

use crate::app::App;

pub(super) async fn models(State(app): State<App>) -> Json<ModelList> {
    let card = app.model();
    let info = ModelInfo {
        id: card.id.clone(),
        object: "model".to_owned(),
        created: app.started,
        owned_by: "surprisal".to_owned(),
        max_model_len: card.max_length,
        vocab_size: card.vocab_size,
        fingerprint: card.fingerprint.clone(),
    };
    Json(ModelList { object: "list".to_owned(), data: vec![info] })
}

pub(super) async fn tokenizer_info(State(app): State<App>) -> Json<TokenizerInfo> {
    let card = app.model();
    Json(TokenizerInfo { vocab_size: card.vocab_size, model_max_length: card.max_length, ..app.codec.info() })
}
