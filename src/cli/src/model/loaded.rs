//! Loads a model into the engine that serves it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use surprisal_engine::Scorer;
use surprisal_model::{Checkpoint, TextTokenizer};
use surprisal_server::{App, ServerConfig};

use super::device::start_engine;
use super::location::{ORACLE, is_gguf, locate};
use crate::error::Error;
use crate::progress::weights::WeightsBar;
use crate::settings::{EngineChoice, Settings};

/// A model that is ready to serve.
pub(crate) struct LoadedModel {
    pub(crate) scorer: Arc<dyn Scorer>,
    pub(crate) tokenizer: TextTokenizer,
    /// Number of files that are open while the model is reloaded.
    weight_files: usize,
    /// Context of an example request; not empty if the tokenizer adds no BOS.
    pub(crate) example_context: &'static str,
    /// Target of an example request, in the model's vocabulary.
    pub(crate) example_target: String,
}

impl LoadedModel {
    /// Loads the model into the engine, both chosen by the settings.
    pub(crate) async fn load(settings: &Settings) -> Result<Self, Error> {
        let path = locate(&settings.model)?;
        if settings.engine == EngineChoice::Mistralrs || settings.isq.is_some() || is_gguf(&path) {
            settings.check_for_mistralrs()?;
            return load_mistralrs(path, settings).await;
        }
        match Checkpoint::open(&path) {
            Ok(checkpoint) => load_native(checkpoint, &path, settings),
            Err(error @ surprisal_model::Error::Config { .. })
                if settings.engine == EngineChoice::Auto && cfg!(feature = "mistralrs") =>
            {
                tracing::warn!(%error, "model not supported by the native engine; trying mistralrs");
                settings.check_for_mistralrs()?;
                load_mistralrs(path, settings).await
            }
            Err(error) => Err(error.into()),
        }
    }

    fn new(scorer: Arc<dyn Scorer>, tokenizer: TextTokenizer, weight_files: usize) -> Result<Self, Error> {
        let example_target = match scorer.describe().id.as_str() {
            ORACLE => tokenizer.decode(&[0, 7])?,
            _ => " a dark night".to_owned(),
        };
        let example_context = if tokenizer.prefix().is_empty() { "It was" } else { "" };
        Ok(Self { scorer, tokenizer, weight_files, example_context, example_target })
    }

    /// Builds the server's application.
    pub(crate) fn into_app(self, config: ServerConfig) -> App {
        App::new(self.scorer, Arc::new(self.tokenizer), config).with_reserved_files(self.weight_files)
    }
}

/// Loads a checkpoint into the native engine, and shows the progress.
fn load_native(checkpoint: Checkpoint, dir: &Path, settings: &Settings) -> Result<LoadedModel, Error> {
    let tokenizer = TextTokenizer::open(dir, checkpoint.config())?;
    let dir = dir.to_owned();
    let bar = Arc::new(WeightsBar::new(checkpoint.tensor_bytes()));
    let observer_bar = Arc::clone(&bar);
    let checkpoint = checkpoint.with_observer(move |purpose, bytes| observer_bar.update(purpose, bytes));
    let engine = start_engine(&checkpoint, settings, move || Checkpoint::open(&dir));
    bar.finish();
    LoadedModel::new(Arc::new(engine?), tokenizer, checkpoint.weight_files())
}

#[cfg(feature = "mistralrs")]
async fn load_mistralrs(path: PathBuf, settings: &Settings) -> Result<LoadedModel, Error> {
    use surprisal_mistral::{MistralScorer, Source};
    use surprisal_model::Vocabulary;

    let source = Source { path, isq: settings.isq.clone() };
    let scorer = MistralScorer::load(settings.model.clone(), &source, settings.max_length).await?;
    settings.check_max_length(scorer.describe().max_length)?;
    let vocabulary = Vocabulary::read(source.dir(), scorer.describe().vocab_size)?;
    let tokenizer = TextTokenizer::open(source.dir(), vocabulary)?;
    // mistralrs does not reload its model.
    LoadedModel::new(Arc::new(scorer), tokenizer, 0)
}

#[cfg(not(feature = "mistralrs"))]
async fn load_mistralrs(_: PathBuf, _: &Settings) -> Result<LoadedModel, Error> {
    Err(Error::NoMistralrs)
}
