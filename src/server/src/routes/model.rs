//! The served model and its tokenizer: `GET /v1/models`, `GET /v1/models/{model}`, `GET /tokenizer_info` and, for clients
//! of SGLang, `GET /model_info`.

use axum::Json;
use axum::extract::{Path, State};
use surprisal_api::{ModelInfo, ModelList, SglangModelInfo, TokenizerInfo};

use crate::app::App;
use crate::problem::Failure;

pub(super) async fn models(State(app): State<App>) -> Json<ModelList> {
    Json(ModelList { object: "list".to_owned(), data: vec![info(&app)] })
}

/// Answers `GET /v1/models/{model}`. The name may contain slashes, escaped or not.
pub(super) async fn retrieve(State(app): State<App>, Path(model): Path<String>) -> Result<Json<ModelInfo>, Failure> {
    app.check_model(Some(&model))?;
    Ok(Json(info(&app)))
}

pub(super) async fn tokenizer_info(State(app): State<App>) -> Json<TokenizerInfo> {
    let card = app.model();
    Json(TokenizerInfo { vocab_size: card.vocab_size, model_max_length: card.max_length, ..app.codec.info() })
}

pub(super) async fn sglang_model_info(State(app): State<App>) -> Json<SglangModelInfo> {
    let id = &app.model().id;
    Json(SglangModelInfo {
        model_path: id.clone(),
        served_model_name: id.clone(),
        tokenizer_path: id.clone(),
        is_generation: true,
        has_image_understanding: false,
        has_audio_understanding: false,
    })
}

fn info(app: &App) -> ModelInfo {
    let card = app.model();
    ModelInfo {
        id: card.id.clone(),
        object: "model".to_owned(),
        created: app.started,
        owned_by: "surprisal".to_owned(),
        root: card.id.clone(),
        parent: None,
        max_model_len: card.max_length,
        vocab_size: card.vocab_size,
        fingerprint: card.fingerprint.clone(),
    }
}
