//! The experiment file: corpus, model and measure in TOML. Every key is checked before a query is sent.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::corpus::TextCorpus;
use crate::error::Error;
use crate::estimate::Correction;
use crate::plan::{Design, PAPER_SPLITS, Pairing, Plan};
use crate::source::{ApiKey, HttpOptions, Routing, ScoringDialect};
use crate::statistics::EntropyMethod;
use crate::unit::Unit;

/// A whole experiment. Everything but the corpus has a default.
///
/// ```
/// use std::path::Path;
/// use surprisal_estimator::Experiment;
///
/// let text = r#"
///     seed = 1
///     [corpus]
///     kind = "santa-fe"
///     documents = 10
///     symbols = 64
///     exponent = 1.3
///     doubt = 1e-6
///     [measure]
///     splits = [2, 4, 8]
///     ratios = [2, 3]
/// "#;
/// let experiment = Experiment::parse(text, Path::new("experiment.toml"))?;
/// assert_eq!(experiment.plan(experiment.documents()?)?.points().len(), 6);
/// # Ok::<(), surprisal_estimator::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The report's heading.
    #[serde(default = "title")]
    pub title: String,
    /// Seed of sampled documents, of the pairing and of the bootstrap.
    #[serde(default)]
    pub seed: u64,
    /// What the report gives information in.
    #[serde(default)]
    pub unit: Unit,
    /// The servers of the model. None: the process of the corpus answers, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSpec>,
    /// Where documents come from.
    pub corpus: CorpusSpec,
    /// What is measured.
    #[serde(default)]
    pub measure: MeasureSpec,
}

fn title() -> String {
    "Bipartite mutual information".to_owned()
}

/// The servers of the model, and how requests are sent to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSpec {
    /// A server: `http://host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Several servers of the same model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Which of several servers gets a request.
    pub routing: Routing,
    /// The dialect of the requests.
    pub api: ScoringDialect,
    /// The model's name, where a server has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The token before every sequence, where the server adds none by itself: others than ours never do, ours if the model's
    /// tokenizer does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bos: Option<u32>,
    /// The environment variable that holds the servers' API key, `SURPRISAL_API_KEY` unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
}

/// The environment variable of the servers' API key, unless an experiment names another.
const API_KEY_ENV: &str = "SURPRISAL_API_KEY";

impl ModelSpec {
    /// Surprisal servers at these addresses.
    pub fn at(urls: Vec<String>) -> Self {
        Self { urls, ..Self::default() }
    }

    /// Returns all addresses.
    pub fn servers(&self) -> Vec<String> {
        self.url.iter().chain(&self.urls).cloned().collect()
    }

    /// Returns how requests are sent, with the API key from the environment.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a variable was named that is not set.
    pub fn options(&self) -> Result<HttpOptions, Error> {
        let variable = self.api_key_env.as_deref().unwrap_or(API_KEY_ENV);
        let api_key = ApiKey::from_env(variable);
        if let (None, Some(variable)) = (&api_key, &self.api_key_env) {
            return Err(Error::invalid("model.api_key_env", variable, "an environment variable that is set"));
        }
        Ok(HttpOptions { api: self.api, model: self.name.clone(), bos: self.bos, api_key, ..HttpOptions::default() })
    }

    fn check(&self) -> Result<(), Error> {
        if self.servers().is_empty() {
            return Err(Error::invalid("model.url", "missing", "given, or model.urls"));
        }
        Ok(())
    }
}

/// Where documents come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CorpusSpec {
    /// Texts in files.
    Text(TextCorpus),
    /// Samples of the [`SantaFe`](crate::process::SantaFe) process.
    SantaFe {
        /// How many.
        documents: usize,
        /// Symbols; twice as many token ids, and BOS.
        symbols: usize,
        /// Of Zipf's law.
        exponent: f64,
        /// The probability of a coin's other side.
        doubt: f64,
    },
    /// Samples of a [`Gaussian`](crate::process::Gaussian) process.
    Gaussian {
        /// How many.
        documents: usize,
        /// The longest sequence.
        length: usize,
        /// How information grows.
        exponent: f64,
        /// How much there is.
        strength: f64,
    },
}

/// What is measured; the defaults are the paper's, at `L/ℓ = 2` and with the same `y` in both terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeasureSpec {
    /// `ℓ`: tokens of `x`, increasing.
    pub splits: Vec<usize>,
    /// `L/ℓ`, increasing.
    pub ratios: Vec<usize>,
    /// Tokens there are of a document; points with a longer `L` are left out. None: as many as the points need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Contexts of other documents before each `y`, for vCLUB.
    pub negatives: usize,
    /// Which `y` stands in the direct estimate's marginal term.
    pub pairing: Pairing,
    /// Resamples of the documents for intervals; 0 for none.
    pub resamples: usize,
    /// n of the n-gram correction; 0 for none.
    pub ngram: usize,
    /// How far the n-gram entropy is trusted, 0 to 1.
    pub ngram_weight: f64,
    /// How entropies are estimated.
    pub entropy: EntropyMethod,
    /// Distances of the corpus's two-point information; none, no such information.
    pub two_point: Vec<usize>,
}

impl Default for MeasureSpec {
    fn default() -> Self {
        let design = Design::default();
        Self {
            splits: PAPER_SPLITS.to_vec(),
            ratios: design.ratios,
            window: None,
            negatives: design.negatives,
            pairing: design.pairing,
            resamples: design.resamples,
            ngram: 2,
            ngram_weight: Correction::PAPER_WEIGHT,
            entropy: EntropyMethod::default(),
            two_point: Vec::new(),
        }
    }
}

impl Experiment {
    /// Reads an experiment file.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read; otherwise as [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads an experiment from TOML; `path` is named in errors, and the corpus's files are relative to its folder.
    ///
    /// # Errors
    /// [`Error::Experiment`] for unknown, missing and mistyped keys; as [`check`](Self::check) for values.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Experiment { path: path.to_owned(), reason: reason.trim_end().to_owned() };
        let mut experiment: Self = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if let (CorpusSpec::Text(texts), Some(folder)) = (&mut experiment.corpus, path.parent()) {
            texts.relative_to(folder);
        }
        experiment.check().map_err(|error| wrong(error.to_string()))?;
        Ok(experiment)
    }

    /// Checks that the values fit together, as far as that can be decided without files and model.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key, its value and its limit.
    pub fn check(&self) -> Result<(), Error> {
        self.model.as_ref().map_or(Ok(()), ModelSpec::check)?;
        self.check_corpus()?;
        let measure = &self.measure;
        if !(0.0..=1.0).contains(&measure.ngram_weight) {
            return Err(Error::invalid("measure.ngram_weight", measure.ngram_weight, "in 0..=1"));
        }
        let plan = self.outline()?;
        let smallest = plan.points().iter().map(|point| point.length() - point.split).min().unwrap_or_default();
        if measure.ngram > smallest {
            let limit = format!("at most {smallest}, the length of the smallest y");
            return Err(Error::invalid("measure.ngram", measure.ngram, limit));
        }
        if let Some(distance) = measure.two_point.iter().find(|&&distance| distance == 0) {
            return Err(Error::invalid("measure.two_point", distance, "at least 1"));
        }
        Ok(())
    }

    /// Checks the corpus, and that model and measure fit its kind.
    fn check_corpus(&self) -> Result<(), Error> {
        let measure = &self.measure;
        match &self.corpus {
            CorpusSpec::Text(_) if self.model.is_none() => {
                Err(Error::invalid("model", "missing", "given for a corpus of texts"))
            }
            CorpusSpec::Text(texts) => texts.check(),
            CorpusSpec::SantaFe { .. } => Ok(()),
            CorpusSpec::Gaussian { .. } if self.model.is_some() => {
                Err(Error::invalid("model", "given", "absent for Gaussian documents, which have no tokens"))
            }
            CorpusSpec::Gaussian { .. } if measure.ngram > 0 => {
                Err(Error::invalid("measure.ngram", measure.ngram, "0 for Gaussian documents"))
            }
            CorpusSpec::Gaussian { .. } if !measure.two_point.is_empty() => {
                Err(Error::invalid("measure.two_point", "given", "absent for Gaussian documents"))
            }
            CorpusSpec::Gaussian { .. } => Ok(()),
        }
    }

    /// Returns 16 hex digits of a hash of the experiment without the addresses of its servers and the folders of its files: equal for
    /// the same experiment on any machine.
    pub fn digest(&self) -> String {
        let mut essence = self.clone();
        if let Some(ModelSpec { api, name, bos, .. }) = essence.model.take() {
            essence.model = Some(ModelSpec { api, name, bos, ..ModelSpec::default() });
        }
        if let CorpusSpec::Text(texts) = &mut essence.corpus {
            texts.without_folders();
        }
        // Numbers, strings and lists of them are always JSON.
        let json = serde_json::to_vec(&essence).unwrap_or_default();
        blake3::hash(&json).to_hex()[..16].to_owned()
    }

    /// Returns the number of documents; if short texts are left out, the most there can be.
    ///
    /// # Errors
    /// [`Error::File`] for files that cannot be read.
    pub fn documents(&self) -> Result<usize, Error> {
        match &self.corpus {
            CorpusSpec::Text(texts) => Ok(texts.windows.saturating_mul(texts.count()?)),
            CorpusSpec::SantaFe { documents, .. } | CorpusSpec::Gaussian { documents, .. } => Ok(*documents),
        }
    }

    fn fixed_documents(&self) -> Option<usize> {
        match &self.corpus {
            CorpusSpec::Text(_) => None,
            CorpusSpec::SantaFe { documents, .. } | CorpusSpec::Gaussian { documents, .. } => Some(*documents),
        }
    }

    /// Returns the plan over so many documents.
    ///
    /// # Errors
    /// As [`Plan::of`]; [`Error::Invalid`] where there are no texts, or one window of one text.
    pub fn plan(&self, documents: usize) -> Result<Plan, Error> {
        let per_text = match &self.corpus {
            CorpusSpec::Text(_) if documents == 0 => {
                let limit = "at least 1: the files have none, or none that is long enough";
                return Err(Error::invalid("number of texts", documents, limit));
            }
            CorpusSpec::Text(texts) if documents == 1 => {
                let limit = "at least 2 of a single text: windows are documents, and each needs a partner";
                return Err(Error::invalid("windows", texts.windows, limit));
            }
            CorpusSpec::Text(texts) => texts.windows,
            CorpusSpec::SantaFe { .. } | CorpusSpec::Gaussian { .. } => 1,
        };
        Plan::of(documents, Design { per_text, ..self.design() })
    }

    /// Returns a plan before texts are read: over as few documents as there can be, each measured as all will be.
    pub(crate) fn outline(&self) -> Result<Plan, Error> {
        let enough = self.measure.negatives.saturating_add(1).max(2);
        Plan::of(self.fixed_documents().unwrap_or(enough), self.design())
    }

    fn design(&self) -> Design {
        let (measure, default) = (&self.measure, Design::default());
        Design {
            splits: measure.splits.clone(),
            ratios: measure.ratios.clone(),
            window: measure.window.unwrap_or(default.window),
            negatives: measure.negatives,
            pairing: measure.pairing,
            seed: self.seed,
            resamples: measure.resamples,
            ..default
        }
    }
}
