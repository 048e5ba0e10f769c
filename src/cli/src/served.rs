//! Which model is served, and by which engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use surprisal_engine::Scorer;
use surprisal_estimator::SantaFe;
use surprisal_model::oracle::{self, OracleSpec};
use surprisal_model::{Checkpoint, TextTokenizer, hub};
use surprisal_server::{App, ServerConfig};

use crate::device;
use crate::error::Error;
use crate::progress::WeightsBar;
use crate::settings::{EngineChoice, Settings};

/// The model that is built in.
pub(crate) const ORACLE: &str = "oracle";

/// The longest sequence the built-in oracle takes, in tokens.
const ORACLE_CONTEXT: usize = 2048;

/// A model that is ready to be served.
pub(crate) struct Served {
    pub(crate) scorer: Arc<dyn Scorer>,
    pub(crate) tokenizer: TextTokenizer,
    /// A text of the model's own language, for the first request to try, and what is given before it.
    pub(crate) sample: String,
    pub(crate) context: &'static str,
}

impl Served {
    pub(crate) async fn load(settings: &Settings) -> Result<Self, Error> {
        let path = path(&settings.model)?;
        if settings.engine == EngineChoice::Mistralrs || settings.isq.is_some() || is_gguf(&path) {
            settings.check_for_mistralrs()?;
            return mistralrs(path, settings).await;
        }
        match Checkpoint::open(&path) {
            Ok(checkpoint) => native(checkpoint, &path, settings),
            Err(error @ surprisal_model::Error::Config { .. })
                if settings.engine == EngineChoice::Auto && cfg!(feature = "mistralrs") =>
            {
                tracing::warn!(%error, "not a model of the native engine; mistralrs may know it");
                settings.check_for_mistralrs()?;
                mistralrs(path, settings).await
            }
            Err(error) => Err(error.into()),
        }
    }

    fn new(scorer: Arc<dyn Scorer>, tokenizer: TextTokenizer) -> Result<Self, Error> {
        let sample = match scorer.describe().id.as_str() {
            ORACLE => tokenizer.decode(&[0, 7])?,
            _ => " a dark night".to_owned(),
        };
        // Without BOS there has to be something else before the first token.
        let context = if tokenizer.bos().is_some() { "" } else { "It was" };
        Ok(Self { scorer, tokenizer, sample, context })
    }

    pub(crate) fn app(self, config: ServerConfig) -> App {
        App::new(self.scorer, Arc::new(self.tokenizer), config)
    }
}

pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// A GGUF file, or a model's folder, written or downloaded unless it is cached.
fn path(model: &str) -> Result<PathBuf, Error> {
    if model == ORACLE {
        return oracle_dir();
    }
    let path = Path::new(model);
    if !is_gguf(path) {
        return Ok(hub::resolve(model)?);
    }
    if !path.is_file() {
        let reason = "there is no such GGUF file".to_owned();
        return Err(surprisal_model::Error::NotFound { name: model.to_owned(), reason }.into());
    }
    Ok(path.to_owned())
}

fn native(checkpoint: Checkpoint, dir: &Path, settings: &Settings) -> Result<Served, Error> {
    let tokenizer = TextTokenizer::open(dir, checkpoint.config())?;
    let dir = dir.to_owned();
    let bar = Arc::new(WeightsBar::new(checkpoint.size()));
    let updated = Arc::clone(&bar);
    let checkpoint = checkpoint.observed(move |reading, bytes| updated.update(reading, bytes));
    let engine = device::start(&checkpoint, settings, move || Checkpoint::open(&dir));
    bar.finish();
    Served::new(Arc::new(engine?), tokenizer)
}

#[cfg(feature = "mistralrs")]
async fn mistralrs(path: PathBuf, settings: &Settings) -> Result<Served, Error> {
    use surprisal_mistral::{MistralScorer, Source};
    use surprisal_model::Vocabulary;

    let source = Source { path, isq: settings.isq.clone() };
    let scorer = MistralScorer::load(settings.model.clone(), &source, settings.max_length).await?;
    settings.check_max_length(scorer.describe().max_length)?;
    let vocabulary = Vocabulary::read(source.dir(), scorer.describe().vocab_size)?;
    let tokenizer = TextTokenizer::open(source.dir(), vocabulary)?;
    Served::new(Arc::new(scorer), tokenizer)
}

#[cfg(not(feature = "mistralrs"))]
async fn mistralrs(_: PathBuf, _: &Settings) -> Result<Served, Error> {
    Err(Error::NoMistralrs)
}

/// The folder of the built-in oracle, which is written unless it is there.
pub(crate) fn oracle_dir() -> Result<PathBuf, Error> {
    Ok(oracle::ensure(&oracle_spec(&santa_fe()?))?)
}

/// The process that the built-in oracle predicts.
pub(crate) fn santa_fe() -> Result<SantaFe, Error> {
    Ok(SantaFe::new(128, 1.3, 1e-6)?)
}

fn oracle_spec(process: &SantaFe) -> OracleSpec {
    let probabilities = process.probabilities().to_vec();
    OracleSpec { probabilities, doubt: process.doubt(), context_length: ORACLE_CONTEXT }
}
