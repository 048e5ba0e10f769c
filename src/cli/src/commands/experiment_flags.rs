//! The flags of an experiment on text files.

use std::path::PathBuf;

use clap::ValueEnum;
use surprisal_estimator::{CorpusSpec, Experiment, MeasureSpec, ModelSpec, TextCorpus, Unit};

use crate::arguments::parse_server;

/// The experiment's parameters, which an experiment file has instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct ExperimentFlags {
    /// A server; several of one model share the work [default: http://127.0.0.1:8000]
    #[arg(long, value_parser = parse_server)]
    url: Vec<String>,
    /// The id of the token before every text, for a model whose tokenizer adds none, such as Qwen's
    #[arg(long)]
    bos: Option<u32>,
    /// Windows taken from each text, spread evenly, none overlapping [default: 40]
    #[arg(long)]
    windows: Option<usize>,
    /// Tokens of the first part, for each point [default: 2,4,...,512]
    #[arg(long, value_delimiter = ',')]
    splits: Vec<usize>,
    /// L/l: how much longer both parts are than the first [default: 2]
    #[arg(long, value_delimiter = ',')]
    ratios: Vec<usize>,
    /// Which second part stands in the marginal term [default: same]
    #[arg(long, value_enum)]
    pairing: Option<PairingChoice>,
    /// n of the n-gram correction of the direct estimator; 0 for none [default: 2]
    #[arg(long)]
    ngram: Option<usize>,
    /// Seed of the random pairing [default: 1]
    #[arg(long)]
    seed: Option<u64>,
    /// Report in bits, not nats
    #[arg(long)]
    bits: bool,
}

/// The pairings of `--pairing`; see [`surprisal_estimator::Pairing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PairingChoice {
    /// The same one as in the conditional term: the least variance
    Same,
    /// Another document's, as in the L2M paper's scripts
    Crossed,
}

impl From<PairingChoice> for surprisal_estimator::Pairing {
    fn from(pairing: PairingChoice) -> Self {
        match pairing {
            PairingChoice::Same => Self::Same,
            PairingChoice::Crossed => Self::Crossed,
        }
    }
}

impl ExperimentFlags {
    /// Returns the experiment on these files.
    pub(crate) fn experiment(&self, files: &[PathBuf]) -> Experiment {
        let default = MeasureSpec::default();
        let texts = TextCorpus::of(files.to_vec());
        let servers = non_empty(&self.url, vec!["http://127.0.0.1:8000".to_owned()]);
        Experiment {
            title: "Bipartite mutual information".to_owned(),
            seed: self.seed.unwrap_or(1),
            unit: if self.bits { Unit::Bits } else { Unit::Nats },
            model: Some(ModelSpec { bos: self.bos, ..ModelSpec::at(servers) }),
            corpus: CorpusSpec::Text(TextCorpus { windows: self.windows.unwrap_or(texts.windows), ..texts }),
            measure: MeasureSpec {
                splits: non_empty(&self.splits, default.splits),
                ratios: non_empty(&self.ratios, default.ratios),
                pairing: self.pairing.map_or(default.pairing, Into::into),
                ngram: self.ngram.unwrap_or(default.ngram),
                ..MeasureSpec::default()
            },
        }
    }
}

/// Returns the given values, or the default if there are none.
fn non_empty<T: Clone>(values: &[T], default: Vec<T>) -> Vec<T> {
    if values.is_empty() { default } else { values.to_vec() }
}
