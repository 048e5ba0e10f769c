//! `surprisal estimate`: bipartite mutual information of text files under a running server's model.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use surprisal_estimator::{
    Corpus, Correction, HttpOptions, HttpSource, LogprobSource, NgramEntropy, Plan, Report, Spacing,
};

use crate::block_on;
use crate::error::Error;
use crate::progress::TokenBar;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Text files (UTF-8)
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Windows taken from each file, spread evenly, none overlapping
    #[arg(long, default_value_t = 40)]
    windows: usize,
    /// Tokens of the first half, for each point; the second half is as long (L = 2 l)
    #[arg(long, value_delimiter = ',', default_values_t = [2, 4, 8, 16, 32, 64, 128, 256, 512])]
    splits: Vec<usize>,
    /// Which second half stands in the marginal term
    #[arg(long, value_enum, default_value_t = Pairing::Same)]
    pairing: Pairing,
    /// n of the n-gram correction of the direct estimator
    #[arg(long, default_value_t = 2)]
    ngram: usize,
    /// Seed of the random pairing
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print what would be asked and what that saves, and stop
    #[arg(long)]
    explain: bool,
    /// Folder for report.html and report.json
    #[arg(long, default_value = "surprisal-report")]
    out: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// See [`surprisal_estimator::Pairing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pairing {
    /// The same one as in the conditional term: the least variance
    Same,
    /// Another document's, as in the L2M paper's scripts
    Crossed,
}

impl From<Pairing> for surprisal_estimator::Pairing {
    fn from(pairing: Pairing) -> Self {
        match pairing {
            Pairing::Same => Self::Same,
            Pairing::Crossed => Self::Crossed,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let documents = args.windows.saturating_mul(args.files.len());
    let plan = Plan::new(documents, &args.splits, args.pairing.into(), args.seed)?;
    if args.explain {
        println!("{plan}");
        return Ok(());
    }
    let report = block_on(measure(args, &plan))?;
    write(&report, &args.out)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

async fn measure(args: &Args, plan: &Plan) -> Result<Report, Error> {
    let source = HttpSource::connect(&args.url, HttpOptions::default()).await?;
    let mut documents = Vec::new();
    let mut texts = Vec::new();
    for file in &args.files {
        let corpus = Corpus::read(&source, file).await?;
        documents.extend(corpus.windows(args.windows, plan.window(), Spacing::Even)?);
        texts.push(corpus);
    }
    let entropy = NgramEntropy::of_texts(texts.iter().map(Corpus::tokens), args.ngram)?;
    let mut bar = TokenBar::new("scoring");
    let correction = Some(Correction::new(entropy));
    let estimates =
        surprisal_estimator::run(&source, &documents, plan, correction, |progress| bar.update(progress)).await?;
    let names: Vec<String> = args.files.iter().map(|file| file.display().to_string()).collect();
    let tokens: usize = texts.iter().map(|corpus| corpus.tokens().len()).sum();
    Ok(Report::new("Bipartite mutual information", source.model(), &estimates)
        .with_note(format!("Corpus: {} ({tokens} tokens)", names.join(", ")))
        .with_note(format!(
            "{} windows of {} tokens from each file, pairing seed {}",
            args.windows,
            plan.window(),
            args.seed
        )))
}

/// Writes report.html and report.json into a folder.
pub(crate) fn write(report: &Report, out: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(out)?;
    report.write_html(&out.join("report.html"))?;
    report.write_json(&out.join("report.json"))?;
    eprintln!("wrote {}", out.join("report.html").display());
    Ok(())
}
