//! The flags that describe an experiment on texts.

use std::path::PathBuf;

use clap::ValueEnum;
use surprisal_estimator::{CorpusSpec, Experiment, Format, MeasureSpec, ModelSpec, TextCorpus, Unit};

use crate::arguments::parse_server;

/// Parameters of an experiment that has no experiment file.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct ExperimentFlags {
    /// Server address; repeat the flag to share the work among servers that serve the same model [default:
    /// http://127.0.0.1:8000]
    #[arg(long, value_parser = parse_server)]
    url: Vec<String>,
    /// Id of the token that begins every text (BOS), for models whose tokenizer adds none, such as Qwen's
    #[arg(long)]
    bos: Option<u32>,
    /// Format of named files and of files with unknown extensions: text, jsonl, json, csv, tsv or parquet [default: from
    /// the extensions]
    #[arg(long)]
    format: Option<Format>,
    /// Encoding of files without a byte-order mark, such as utf-16le or windows-1252 [default: utf-8]
    #[arg(long)]
    encoding: Option<String>,
    /// Field (JSON) or column (CSV, TSV, Parquet) that contains the text [default: text]
    #[arg(long)]
    field: Option<String>,
    /// Windows per text, evenly spaced and without overlap [default: 40]
    #[arg(long)]
    windows: Option<usize>,
    /// Lengths of the first part (l), in tokens, comma-separated [default: 2,4,8,...,512]
    #[arg(long, value_delimiter = ',')]
    splits: Vec<usize>,
    /// Ratios L/l of the total length to the length of the first part, comma-separated [default: 2]
    #[arg(long, value_delimiter = ',')]
    ratios: Vec<usize>,
    /// Second part to use in the marginal term of the direct estimate [default: same]
    #[arg(long, value_enum)]
    pairing: Option<PairingChoice>,
    /// Order n of the n-gram correction to the direct estimate; 0 disables it [default: 2]
    #[arg(long)]
    ngram: Option<usize>,
    /// Seed for the pairing and the bootstrap [default: 1]
    #[arg(long)]
    seed: Option<u64>,
    /// Report bits instead of nats
    #[arg(long)]
    bits: bool,
}

/// The pairings of `--pairing`; see [`surprisal_estimator::Pairing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PairingChoice {
    /// The second part of the same document, for the least variance
    Same,
    /// The second part of another document, as in the L2M paper's scripts
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
    /// Returns the experiment on these texts.
    pub(crate) fn experiment(&self, files: &[PathBuf]) -> Experiment {
        let default = MeasureSpec::default();
        let texts = TextCorpus::of(files.to_vec());
        let servers = non_empty(&self.url, vec!["http://127.0.0.1:8000".to_owned()]);
        Experiment {
            title: "Bipartite mutual information".to_owned(),
            seed: self.seed.unwrap_or(1),
            unit: if self.bits { Unit::Bits } else { Unit::Nats },
            model: Some(ModelSpec { bos: self.bos, ..ModelSpec::at(servers) }),
            corpus: CorpusSpec::Text(TextCorpus {
                format: self.format,
                encoding: self.encoding.clone(),
                field: self.field.clone().unwrap_or(texts.field),
                windows: self.windows.unwrap_or(texts.windows),
                ..texts
            }),
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
