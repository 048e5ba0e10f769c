//! Execution of an experiment file: documents from its corpus, answers from its model, and a report.

use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::corpus::{Documents, IdentityHasher, TextCorpus, WindowPlace};
use crate::error::Error;
use crate::estimate::Correction;
use crate::plan::ShardIndex;
use crate::process::{ExactSource, Gaussian, Process, SantaFe};
use crate::report::Report;
use crate::run::{Progress, run, run_resumable, run_shard};
use crate::source::{LogprobSource, Replicas};
use crate::spec::{CorpusSpec, Experiment};
use crate::statistics::{EntropyMethod, NgramEntropy, TokenStore, TwoPoint};
use crate::store::AnswerStore;

/// Executes an experiment and returns its report. If `folder` is given, the server's answers are saved there as they
/// arrive ([`AnswerStore`]), and queries that have a saved answer are not sent again.
///
/// `progress` is called once before the first answer and after every batch of answers. Its estimates are in the
/// experiment's unit.
///
/// # Errors
/// The errors of [`Experiment::check`]; a corpus that cannot be read or is too short; the errors of the model's server.
pub async fn execute(
    experiment: &Experiment,
    folder: Option<&Path>,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Report, Error> {
    experiment.check()?;
    let progress = |update: Progress| progress(update.in_unit(experiment.unit));
    match &experiment.corpus {
        CorpusSpec::Text(corpus) => {
            let source = connect(experiment).await?;
            let method = Some(experiment.measure.entropy);
            let documents = read_documents(experiment, corpus, &source, method).await?;
            measure(experiment, &source, documents, folder, progress).await
        }
        &CorpusSpec::SantaFe { documents, symbols, exponent, doubt } => {
            let process = SantaFe::new(symbols, exponent, doubt)?;
            let samples = sample(experiment, &process, documents)?;
            let note = format!("{documents} samples of the {}, exponent {exponent}", process.name());
            let documents = sampled_documents(&process, samples, note)?;
            let report = match &experiment.model {
                Some(_) => measure(experiment, &connect(experiment).await?, documents, folder, progress).await?,
                None => {
                    let report =
                        measure(experiment, &ExactSource::new(process.clone()), documents, None, progress).await?;
                    report.with_exact_divergence(|tokens| process.divergence(tokens))
                }
            };
            Ok(report.with_truth(&process))
        }
        &CorpusSpec::Gaussian { documents, length, exponent, strength } => {
            let process = Gaussian::new(length, exponent, strength)?;
            measure_gaussian(experiment, process, documents, progress).await
        }
    }
}

/// Scores one shard of an experiment's queries, saves the answers in a folder below `folder`, and returns the path of
/// that folder. Once [`merge`](crate::store::merge) has combined the answers to all shards, [`execute`] computes the
/// report without sending a query.
///
/// # Errors
/// The errors of [`execute`]; [`Error::Invalid`] for an experiment without a server.
pub async fn execute_shard(
    experiment: &Experiment,
    folder: &Path,
    shard: ShardIndex,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<PathBuf, Error> {
    experiment.check()?;
    let progress = |update: Progress| progress(update.in_unit(experiment.unit));
    if experiment.model.is_none() {
        return Err(Error::invalid("model", "missing", "set for an experiment that is divided into shards"));
    }
    let source = connect(experiment).await?;
    let documents = match &experiment.corpus {
        CorpusSpec::Text(corpus) => read_documents(experiment, corpus, &source, None).await?,
        &CorpusSpec::SantaFe { documents, symbols, exponent, doubt } => {
            let process = SantaFe::new(symbols, exponent, doubt)?;
            sampled_documents(&process, sample(experiment, &process, documents)?, String::new())?
        }
        CorpusSpec::Gaussian { .. } => {
            return Err(Error::invalid("corpus.kind", "gaussian", "a kind whose documents consist of tokens"));
        }
    };
    let windows = &documents.windows;
    let plan = experiment.plan_of_texts(documents.whole_texts())?;
    let mut store = AnswerStore::open(folder, source.model(), windows, &plan, experiment)?;
    store.save_documents(&documents)?;
    run_shard(&source, windows, &plan, shard, &store, progress).await?;
    Ok(store.folder().to_owned())
}

/// Connects to the experiment's servers.
async fn connect(experiment: &Experiment) -> Result<Replicas, Error> {
    let model = experiment.model.clone().unwrap_or_default();
    let servers = Replicas::connect(&model.servers(), model.routing, model.options()?).await?;
    servers.check_bos().await?;
    Ok(servers)
}

/// Reads and tokenizes the texts of a corpus, and cuts windows out of them. Counts tokens only if there is a method for
/// their entropies.
async fn read_documents(
    experiment: &Experiment,
    corpus: &TextCorpus,
    server: &Replicas,
    method: Option<EntropyMethod>,
) -> Result<Documents, Error> {
    let length = experiment.outline()?.window();
    corpus.documents(&corpus.tokenizer(server)?, experiment.seed, length, method).await
}

/// Samples documents of one window each from a process.
fn sample<P: Process>(experiment: &Experiment, process: &P, documents: usize) -> Result<Vec<Vec<P::Symbol>>, Error> {
    let plan = experiment.plan(documents)?;
    let (needed, limit) = (plan.longest_sequence(), process.longest() + 1);
    if needed > limit {
        return Err(Error::TooLong { needed, model: process.name(), limit });
    }
    let window = plan.window();
    let mut rng = ChaCha8Rng::seed_from_u64(experiment.seed);
    Ok((0..documents).map(|_| process.sample(window, &mut rng)).collect())
}

/// Converts samples of a process to documents. Each sample is a separate text.
fn sampled_documents(process: &SantaFe, samples: Vec<Vec<u32>>, note: String) -> Result<Documents, Error> {
    let mut texts = TokenStore::default();
    let (mut ln_p, mut places) = (Vec::with_capacity(samples.len()), Vec::with_capacity(samples.len()));
    let mut identity = IdentityHasher::default();
    for (text, sample) in samples.iter().enumerate() {
        texts.push(sample)?;
        ln_p.push(process.log_probabilities(sample)?);
        places.push(WindowPlace { text, ranges: None });
        let content: Vec<u8> = sample.iter().flat_map(|token| token.to_le_bytes()).collect();
        identity.add_text(&content, sample);
        identity.add_windows(&[0]);
    }
    Ok(Documents {
        texts,
        windows: samples,
        places,
        origins: Vec::new(),
        identity: identity.finish(note.clone()),
        note,
        statistics: None,
        omissions: Vec::new(),
        ln_p: Some(ln_p),
    })
}

/// Scores documents of tokens and builds the report.
async fn measure<S: LogprobSource>(
    experiment: &Experiment,
    source: &S,
    documents: Documents,
    folder: Option<&Path>,
    progress: impl FnMut(Progress) + Send,
) -> Result<Report, Error> {
    let measure = &experiment.measure;
    let correction = match measure.ngram {
        0 => None,
        n => {
            let entropy = NgramEntropy::of(measure.entropy, &documents.texts, n)?;
            Some(Correction { entropy, weight: measure.ngram_weight })
        }
    };
    let mut plan = experiment.plan_of_texts(documents.whole_texts())?;
    if let Some(sizes) = documents.sizes() {
        plan = plan.with_sizes(sizes)?;
    }
    let estimates = match folder {
        Some(folder) => {
            let mut store = AnswerStore::open(folder, source.model(), &documents.windows, &plan, experiment)?;
            store.save_documents(&documents)?;
            run_resumable(source, &documents.windows, &plan, correction, &store, progress).await?
        }
        None => run(source, &documents.windows, &plan, correction, progress).await?,
    };
    let Documents { texts, identity, note, statistics, omissions, ln_p, .. } = documents;
    let mut report = Report::new(&experiment.title, source.model(), &estimates).with_cost(plan.cost());
    (report.corpus, report.left_out, report.identity) = (statistics, omissions, Some(identity));
    if let Some(ln_p) = ln_p {
        report = report.with_divergence(&estimates.divergence(&ln_p));
    }
    if !measure.two_point.is_empty() {
        let two_point = TwoPoint::of(&texts, &measure.two_point, measure.entropy)?;
        report = report.with_two_point(two_point.with_baseline(&texts, measure.shuffles, experiment.seed)?);
    }
    Ok(finish(experiment, report, &note))
}

/// Scores documents of real numbers with the Gaussian process itself as the model, and builds the report.
async fn measure_gaussian(
    experiment: &Experiment,
    process: Gaussian,
    documents: usize,
    progress: impl FnMut(Progress) + Send,
) -> Result<Report, Error> {
    let samples = sample(experiment, &process, documents)?;
    let plan = experiment.plan(documents)?;
    let source = ExactSource::new(process.clone());
    let estimates = run(&source, &samples, &plan, None, progress).await?;
    let model = LogprobSource::<f64>::model(&source);
    let mut report = Report::new(&experiment.title, model, &estimates).with_cost(plan.cost()).with_truth(&process);
    let note = format!("{documents} samples of the {}", process.name());
    let mut identity = IdentityHasher::default();
    for sample in &samples {
        let content: Vec<u8> = sample.iter().flat_map(|value| value.to_le_bytes()).collect();
        identity.add_text(&content, &[]);
        identity.add_windows(&[0]);
    }
    report.identity = Some(identity.finish(note.clone()));
    // Densities of real numbers have no entropy rate in the sense of symbols: they may be negative.
    report.entropy_rate = None;
    Ok(finish(experiment, report, &note))
}

/// Adds the facts that every report has: the origin of the documents, and the experiment's unit, digest and seed.
fn finish(experiment: &Experiment, report: Report, corpus: &str) -> Report {
    let mut report = report.with_note(format!("Corpus: {corpus}")).in_unit(experiment.unit);
    report.marginal = experiment.measure.marginal;
    report.config = Some(experiment.digest());
    report.negatives = Some(experiment.measure.negatives);
    report.seed = Some(experiment.seed);
    report
}
