//! An experiment conducted: documents from its corpus, answers from its model, a report.

use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::corpus::{Documents, Texts};
use crate::error::Error;
use crate::estimate::Correction;
use crate::plan::ShardIndex;
use crate::process::{ExactSource, Gaussian, Process, SantaFe};
use crate::report::Report;
use crate::run::{Progress, answer, run, run_kept};
use crate::source::{LogprobSource, Replicas};
use crate::spec::{CorpusSpec, Experiment};
use crate::statistics::{NgramEntropy, TokenStore, TwoPoint};
use crate::store::Answers;

impl Experiment {
    /// Conducts the experiment. With a folder, a model's answers are kept in it as they come ([`Answers`]), and none that is there
    /// is asked for again.
    ///
    /// `progress` is called once before the first answer and after every batch of answers.
    ///
    /// # Errors
    /// What [`check`](Self::check) refuses; a corpus that cannot be read or is too short; what the model's server fails with.
    pub async fn conduct(&self, folder: Option<&Path>, progress: impl FnMut(Progress) + Send) -> Result<Report, Error> {
        self.check()?;
        match &self.corpus {
            CorpusSpec::Text(texts) => {
                let source = self.connect().await?;
                let documents = self.documents_of(texts, &source).await?;
                self.measure(&source, documents, folder, progress).await
            }
            &CorpusSpec::SantaFe { documents, symbols, exponent, doubt } => {
                let process = SantaFe::new(symbols, exponent, doubt)?;
                let windows = self.sample(&process, documents)?;
                let note = format!("{documents} samples of the {}, exponent {exponent}", process.name());
                let mut texts = TokenStore::default();
                windows.iter().try_for_each(|window| texts.push(window))?;
                let ln_p = windows.iter().map(|window| process.log_probability(window)).collect::<Result<_, _>>()?;
                let documents = Documents { texts, windows, note, statistics: None, ln_p: Some(ln_p) };
                let report = match &self.model {
                    Some(_) => self.measure(&self.connect().await?, documents, folder, progress).await?,
                    None => self.measure(&ExactSource::new(process.clone()), documents, None, progress).await?,
                };
                Ok(report.with_truth(&process))
            }
            &CorpusSpec::Gaussian { documents, length, exponent, strength } => {
                let process = Gaussian::new(length, exponent, strength)?;
                let windows = self.sample(&process, documents)?;
                let plan = self.plan(documents)?;
                let source = ExactSource::new(process.clone());
                let estimates = run(&source, &windows, &plan, None, progress).await?;
                let model = LogprobSource::<f64>::model(&source);
                let report = Report::new(&self.title, model, &estimates).with_cost(plan.cost()).with_truth(&process);
                Ok(self.finish(report, format!("{documents} samples of the {}", process.name())))
            }
        }
    }

    /// Asks the model one part of what the experiment asks, and keeps the answers in a folder; the [`Answers`]' own folder is
    /// returned. Once [`merge`](crate::store::merge) has put all parts together, [`conduct`](Self::conduct) asks for nothing more.
    ///
    /// # Errors
    /// As [`conduct`](Self::conduct); [`Error::Invalid`] for an experiment that asks no server.
    pub async fn answer(
        &self,
        folder: &Path,
        part: ShardIndex,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<PathBuf, Error> {
        self.check()?;
        if self.model.is_none() {
            return Err(Error::invalid("model", "missing", "given where an experiment is answered in parts"));
        }
        let source = self.connect().await?;
        let windows = match &self.corpus {
            CorpusSpec::Text(texts) => self.documents_of(texts, &source).await?.windows,
            &CorpusSpec::SantaFe { documents, symbols, exponent, doubt } => {
                self.sample(&SantaFe::new(symbols, exponent, doubt)?, documents)?
            }
            CorpusSpec::Gaussian { .. } => {
                return Err(Error::invalid("corpus.kind", "gaussian", "one of tokens"));
            }
        };
        let plan = self.plan(windows.len())?;
        let answers = Answers::open(folder, source.model(), &windows, &plan, self)?;
        answer(&source, &windows, &plan, part, &answers, progress).await?;
        Ok(answers.folder().to_owned())
    }

    async fn connect(&self) -> Result<Replicas, Error> {
        let model = self.model.clone().unwrap_or_default();
        let servers = Replicas::connect(&model.servers(), model.routing, model.options()?).await?;
        servers.check_bos().await?;
        Ok(servers)
    }

    fn sample<P: Process>(&self, process: &P, documents: usize) -> Result<Vec<Vec<P::Symbol>>, Error> {
        let window = self.plan(documents)?.window();
        if window > process.longest() {
            let limit = process.longest() + 1;
            return Err(Error::TooLong { needed: window + 1, model: process.name(), limit });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        Ok((0..documents).map(|_| process.sample(window, &mut rng)).collect())
    }

    async fn documents_of(&self, texts: &Texts, server: &Replicas) -> Result<Documents, Error> {
        let length = self.outline()?.window();
        texts.documents(&texts.tokens(server)?, self.seed, length, self.measure.entropy).await
    }

    async fn measure<S: LogprobSource>(
        &self,
        source: &S,
        documents: Documents,
        folder: Option<&Path>,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<Report, Error> {
        let measure = &self.measure;
        let Documents { windows, texts, note, statistics, ln_p } = documents;
        let correction = match measure.ngram {
            0 => None,
            n => {
                let entropy = NgramEntropy::of(measure.entropy, &texts, n)?;
                Some(Correction { entropy, weight: measure.ngram_weight })
            }
        };
        let plan = self.plan(windows.len())?;
        let estimates = match folder {
            Some(folder) => {
                let answers = Answers::open(folder, source.model(), &windows, &plan, self)?;
                run_kept(source, &windows, &plan, correction, &answers, progress).await?
            }
            None => run(source, &windows, &plan, correction, progress).await?,
        };
        let mut report = Report::new(&self.title, source.model(), &estimates).with_cost(plan.cost());
        report.corpus = statistics;
        if let Some(ln_p) = ln_p {
            report = report.with_divergence(estimates.divergence(&ln_p));
        }
        if !measure.two_point.is_empty() {
            report = report.with_two_point(TwoPoint::of(&texts, &measure.two_point, measure.entropy)?);
        }
        Ok(self.finish(report, note))
    }

    fn finish(&self, report: Report, corpus: String) -> Report {
        let mut report = report.with_note(format!("Corpus: {corpus}")).in_unit(self.unit);
        (report.config, report.seed) = (Some(self.digest()), Some(self.seed));
        report
    }
}
