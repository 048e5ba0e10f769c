//! The experiment file: corpus, model and measurement settings in TOML. All keys are checked before any query is sent.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::corpus::TextCorpus;
use crate::error::Error;
use crate::estimate::{Correction, Marginal};
use crate::plan::{Design, PAPER_SPLITS, Pairing, Plan};
use crate::source::{ApiKey, HttpOptions, Routing, ScoringDialect};
use crate::statistics::EntropyMethod;
use crate::unit::Unit;

/// An experiment. Every field except the corpus has a default.
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
    /// Heading of the report.
    #[serde(default = "title")]
    pub title: String,
    /// Seed for sampled texts and documents, the choice of partners, and the bootstrap.
    #[serde(default)]
    pub seed: u64,
    /// Unit of information in the report.
    #[serde(default)]
    pub unit: Unit,
    /// Servers of the model; `None` to compute exact log-probabilities from the process that generates the corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSpec>,
    /// Source of the documents.
    pub corpus: CorpusSpec,
    /// Measurement settings.
    #[serde(default)]
    pub measure: MeasureSpec,
}

fn title() -> String {
    "Bipartite mutual information".to_owned()
}

/// The servers of a model, and options for requests to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSpec {
    /// Address of a server: `http://host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Addresses of several servers of the same model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Policy that chooses a server for each request.
    pub routing: Routing,
    /// API dialect of the servers.
    pub api: ScoringDialect,
    /// Name of the model, for servers that serve several; `None` for the first model in a server's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Id of the BOS token to put before every sequence; `None` if the server adds BOS. A surprisal server adds BOS if
    /// the model's tokenizer does; other servers never add it to token ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bos: Option<u32>,
    /// Environment variable that contains the servers' API key; `None` for `SURPRISAL_API_KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
}

/// The default environment variable for the servers' API key.
const API_KEY_ENV: &str = "SURPRISAL_API_KEY";

impl ModelSpec {
    /// Returns the specification of surprisal servers at these addresses.
    pub fn at(urls: Vec<String>) -> Self {
        Self { urls, ..Self::default() }
    }

    /// Returns the addresses of all servers.
    pub fn servers(&self) -> Vec<String> {
        self.url.iter().chain(&self.urls).cloned().collect()
    }

    /// Returns the options for requests, with the API key from the environment.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `api_key_env` names a variable that is unset or empty.
    pub fn options(&self) -> Result<HttpOptions, Error> {
        let variable = self.api_key_env.as_deref().unwrap_or(API_KEY_ENV);
        let api_key = ApiKey::from_env(variable);
        if let (None, Some(variable)) = (&api_key, &self.api_key_env) {
            return Err(Error::invalid("model.api_key_env", variable, "a variable that is set and not empty"));
        }
        Ok(HttpOptions { api: self.api, model: self.name.clone(), bos: self.bos, api_key, ..HttpOptions::default() })
    }

    fn check(&self) -> Result<(), Error> {
        if self.servers().is_empty() {
            return Err(Error::invalid("model.url", "missing", "set, unless model.urls is set"));
        }
        if let (Some(url), [_, ..]) = (&self.url, &self.urls[..]) {
            let value = format!("{url}, and model.urls is {}", self.urls.join(", "));
            return Err(Error::invalid("model.url", value, "omitted if model.urls lists the addresses"));
        }
        Ok(())
    }
}

/// The source of the documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CorpusSpec {
    /// Texts in files.
    Text(TextCorpus),
    /// Samples of the [`SantaFe`](crate::process::SantaFe) process.
    SantaFe {
        /// Number of documents.
        documents: usize,
        /// Number of symbols; there are twice as many token ids, plus BOS.
        symbols: usize,
        /// Exponent of Zipf's law.
        exponent: f64,
        /// Probability that the oracle assigns to the wrong value of a symbol whose value is already known.
        doubt: f64,
    },
    /// Samples of a [`Gaussian`](crate::process::Gaussian) process.
    Gaussian {
        /// Number of documents.
        documents: usize,
        /// Maximum length of a sequence, in values.
        length: usize,
        /// Exponent of the growth of mutual information.
        exponent: f64,
        /// Scale factor of the mutual information.
        strength: f64,
    },
}

/// The measurement settings. The defaults are those of the L2M paper, with `L/ℓ = 2` and the same `y` in both terms of
/// the direct estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeasureSpec {
    /// Splits `ℓ` (numbers of tokens in `x`), in increasing order.
    pub splits: Vec<usize>,
    /// Ratios `L/ℓ`, in increasing order.
    pub ratios: Vec<usize>,
    /// Maximum tokens in a document; points with a longer `L` are omitted. `None` for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Number of contexts from other documents after which each `y` is scored, for vCLUB.
    pub negatives: usize,
    /// Splits at which to test additivity: the `y` of two unrelated documents are also scored together. Empty for no
    /// test.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additivity: Vec<usize>,
    /// Choice of the `y` in the direct estimate's marginal term.
    pub pairing: Pairing,
    /// Marginal term of the estimate from which the report draws its conclusion.
    #[serde(skip_serializing_if = "Marginal::is_bos")]
    pub marginal: Marginal,
    /// Number of bootstrap resamples of the documents for confidence intervals; 0 for no intervals.
    pub resamples: usize,
    /// Tokens per n-gram in the n-gram correction; 0 for no correction.
    pub ngram: usize,
    /// Weight of the n-gram entropy in the correction, from 0 to 1.
    pub ngram_weight: f64,
    /// Estimator of the entropies of tokens, pairs and n-grams.
    pub entropy: EntropyMethod,
    /// Distances, in tokens, at which to compute the corpus's two-point mutual information; empty to omit it.
    pub two_point: Vec<usize>,
    /// Number of shuffles of the tokens for the baseline of two-point information: 0 for no baseline, otherwise at least
    /// 2. Each takes as long as two-point information itself.
    #[serde(skip_serializing_if = "is_default_shuffles")]
    pub shuffles: usize,
}

/// The default number of shuffles.
const SHUFFLES: usize = 4;

/// Returns `true` for the default, which the digest of an experiment omits.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_default_shuffles(shuffles: &usize) -> bool {
    *shuffles == SHUFFLES
}

impl Default for MeasureSpec {
    fn default() -> Self {
        let design = Design::default();
        Self {
            splits: PAPER_SPLITS.to_vec(),
            ratios: design.ratios,
            window: None,
            negatives: design.negatives,
            additivity: design.additivity,
            pairing: design.pairing,
            marginal: Marginal::default(),
            resamples: design.resamples,
            ngram: 2,
            ngram_weight: Correction::PAPER_WEIGHT,
            entropy: EntropyMethod::default(),
            two_point: Vec::new(),
            shuffles: SHUFFLES,
        }
    }
}

impl Experiment {
    /// Reads an experiment file.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read; the errors of [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Parses an experiment from TOML. Errors name `path`. The paths of the corpus's files are relative to the folder
    /// of `path`.
    ///
    /// # Errors
    /// [`Error::Experiment`] for unknown, missing and mistyped keys, and for values that [`check`](Self::check)
    /// rejects.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Experiment { path: path.to_owned(), reason: reason.trim_end().to_owned() };
        let mut experiment: Self = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if let (CorpusSpec::Text(texts), Some(folder)) = (&mut experiment.corpus, path.parent()) {
            texts.relative_to(folder);
        }
        experiment.check().map_err(|error| wrong(error.to_string()))?;
        Ok(experiment)
    }

    /// Checks that the values are valid and consistent, as far as possible without the corpus's files and the model.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the key, its value and its limit.
    pub fn check(&self) -> Result<(), Error> {
        self.model.as_ref().map_or(Ok(()), ModelSpec::check)?;
        self.check_corpus()?;
        let measure = &self.measure;
        if !(0.0..=1.0).contains(&measure.ngram_weight) {
            return Err(Error::invalid("measure.ngram_weight", measure.ngram_weight, "from 0 to 1"));
        }
        let plan = self.outline()?;
        let smallest = plan.points().iter().map(|point| point.length() - point.split).min().unwrap_or_default();
        if measure.ngram > smallest {
            let limit = format!("at most {smallest}, the length of the shortest y");
            return Err(Error::invalid("measure.ngram", measure.ngram, limit));
        }
        if measure.marginal == Marginal::Averaged && measure.negatives < Marginal::FEWEST_CONTEXTS {
            let limit = format!("at least {} for marginal = \"averaged\"", Marginal::FEWEST_CONTEXTS);
            return Err(Error::invalid("measure.negatives", measure.negatives, limit));
        }
        if let Some(distance) = measure.two_point.iter().find(|&&distance| distance == 0) {
            return Err(Error::invalid("measure.two_point", distance, "at least 1"));
        }
        if measure.shuffles == 1 {
            return Err(Error::invalid("measure.shuffles", 1, "0, or at least 2"));
        }
        Ok(())
    }

    /// Checks the corpus, and that the model and the measurement settings fit its kind.
    fn check_corpus(&self) -> Result<(), Error> {
        let measure = &self.measure;
        match &self.corpus {
            CorpusSpec::Text(_) if self.model.is_none() => {
                Err(Error::invalid("model", "missing", "set for a corpus of texts"))
            }
            CorpusSpec::Text(texts) => texts.check(),
            CorpusSpec::SantaFe { .. } => Ok(()),
            CorpusSpec::Gaussian { .. } if self.model.is_some() => {
                Err(Error::invalid("model", "set", "omitted for Gaussian documents, which have no tokens"))
            }
            CorpusSpec::Gaussian { .. } if measure.ngram > 0 => {
                Err(Error::invalid("measure.ngram", measure.ngram, "0 for Gaussian documents"))
            }
            CorpusSpec::Gaussian { .. } if !measure.two_point.is_empty() => {
                Err(Error::invalid("measure.two_point", "set", "omitted for Gaussian documents"))
            }
            CorpusSpec::Gaussian { .. } => Ok(()),
        }
    }

    /// Returns 16 hex digits of a hash of the experiment. The hash excludes the servers' addresses, routing and API key
    /// variable, and the folders of the corpus's files, so the same experiment has the same digest on any machine.
    pub fn digest(&self) -> String {
        let mut essence = self.clone();
        if let Some(ModelSpec { api, name, bos, .. }) = essence.model.take() {
            essence.model = Some(ModelSpec { api, name, bos, ..ModelSpec::default() });
        }
        if let CorpusSpec::Text(texts) = &mut essence.corpus {
            texts.without_folders();
        }
        // Serializing numbers, strings and lists of them cannot fail.
        let json = serde_json::to_vec(&essence).unwrap_or_default();
        blake3::hash(&json).to_hex()[..16].to_owned()
    }

    /// Returns the number of documents. It is an upper bound if short texts are skipped or texts are sampled.
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

    /// Returns the plan for this number of documents, as if the corpus did not cut texts into pieces.
    ///
    /// # Errors
    /// The errors of [`Plan::of`]; [`Error::Invalid`] if there are no texts, or only one window of one text.
    pub fn plan(&self, documents: usize) -> Result<Plan, Error> {
        let windows = match &self.corpus {
            CorpusSpec::Text(texts) => texts.windows.max(1),
            CorpusSpec::SantaFe { .. } | CorpusSpec::Gaussian { .. } => 1,
        };
        self.plan_of_texts((0..documents).map(|document| document / windows))
    }

    /// Returns the plan as far as the files determine it without a tokenizer, with at least as many documents as that of
    /// a run. Pieces of one text count as one text, except for a sample without a test of additivity, which reads no file.
    ///
    /// # Errors
    /// Those of [`documents`](Self::documents) and [`plan`](Self::plan).
    pub fn expected_plan(&self) -> Result<Plan, Error> {
        match &self.corpus {
            CorpusSpec::Text(texts) => self.plan_of_texts(texts.expected_texts(!self.measure.additivity.is_empty())?),
            CorpusSpec::SantaFe { .. } | CorpusSpec::Gaussian { .. } => self.plan(self.documents()?),
        }
    }

    /// Returns the plan for documents from these texts, one entry per document.
    pub(crate) fn plan_of_texts(&self, texts: impl IntoIterator<Item = usize>) -> Result<Plan, Error> {
        let texts: Vec<usize> = texts.into_iter().collect();
        match &self.corpus {
            CorpusSpec::Text(_) if texts.is_empty() => {
                let limit = "at least 1: the files contain no texts, or only texts that are too short";
                Err(Error::invalid("number of texts", 0, limit))
            }
            CorpusSpec::Text(corpus) if texts.len() == 1 => {
                let limit = "at least 2 for a single text, because each window needs a partner";
                Err(Error::invalid("windows", corpus.windows, limit))
            }
            _ => Plan::of_texts(texts, self.design()),
        }
    }

    /// Returns a preliminary plan, before texts are read. For a corpus of texts, this plan has the fewest documents
    /// that the settings allow. Its points and window are those of the final plan.
    pub(crate) fn outline(&self) -> Result<Plan, Error> {
        // The test of additivity needs four texts.
        let enough = self.measure.negatives.saturating_add(1).max(4);
        Plan::of(self.fixed_documents().unwrap_or(enough), self.design())
    }

    fn design(&self) -> Design {
        let (measure, default) = (&self.measure, Design::default());
        Design {
            splits: measure.splits.clone(),
            ratios: measure.ratios.clone(),
            window: measure.window.unwrap_or(default.window),
            negatives: measure.negatives,
            additivity: measure.additivity.clone(),
            pairing: measure.pairing,
            seed: self.seed,
            resamples: measure.resamples,
        }
    }
}
