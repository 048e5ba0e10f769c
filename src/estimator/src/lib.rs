//! The estimation client: estimates the mutual information between the two parts of a text from a language model's
//! log-probabilities.
//!
//! Data flows one way. A corpus ([`TextCorpus`], or samples of a [`Process`]) yields documents. A [`Plan`] lists the
//! queries about them. A [`LogprobSource`] (a server over HTTP, or an exact source) answers the queries. [`run`]
//! computes [`Estimates`] from the answers. A [`Report`] shows the estimates with their power-law [`Fit`]s. [`execute`]
//! runs all these steps for an [`Experiment`] file. Information is in nats, unless a report is converted to bits.
//!
//! The mutual information of a [`Process`] ([`SantaFe`], [`Gaussian`]) is known in closed form, so all steps can be
//! checked without a model:
//!
//! ```
//! use rand::SeedableRng;
//! use surprisal_estimator::{ExactSource, LogprobSource, Pairing, Plan, Report, SantaFe, run};
//!
//! let process = SantaFe::new(256, 1.5, 1e-3)?;
//! let plan = Plan::new(200, &[4, 8, 16, 32], Pairing::Same, 1)?;
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
//! let documents: Vec<_> = (0..plan.documents()).map(|_| process.sample(plan.window(), &mut rng)).collect();
//!
//! let source = ExactSource::new(process.clone());
//! let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! let estimates = runtime.block_on(run(&source, &documents, &plan, None, |progress| {
//!     eprintln!("{} of {} queries", progress.queries, progress.total_queries);
//! }))?;
//!
//! let report = Report::new("Santa Fe", source.model(), &estimates).with_truth(&process);
//! println!("{}", report.table());
//! let longest = report.rows[3];
//! let (direct, truth) = (longest.estimates.direct, process.direct_limit(32, 32));
//! assert!((direct.value - truth).abs() < 4.0 * direct.error);
//! # Ok::<(), surprisal_estimator::Error>(())
//! ```

mod corpus;
mod error;
mod estimate;
mod files;
mod fit;
mod number;
mod plan;
mod process;
mod progress_log;
mod report;
mod run;
mod source;
mod spec;
mod statistics;
mod store;
mod unit;
mod value;

pub use corpus::{CorpusIdentity, CorpusStatistics, Counted, Format, Omission, Spacing, TextCorpus, TokenizedText};
pub use error::Error;
pub use estimate::{
    BlockInformation, Bootstrap, ConsistencyCheck, ConsistencyTest, ContextCurve, ContextPoint, Convergence,
    ConvergencePoint, Correction, Divergence, DocumentTerms, DocumentWindow, EntropyRate, Estimates, EstimatesSoFar,
    ExponentInterval, HalvesDifference, LocalExponent, Marginal, OMITTED_POSITIONS, PairingErrors, PointEstimate,
    PointSoFar, PointTerms, PositionBin, RateDoubt, RateFit, RateFits, Sampling, Series, SeriesLaws, SeriesSoFar,
    TextUnit, UnitRates,
};
pub use fit::{Fit, FitMethod, Law, LawFit, RateLaw};
pub use plan::{Cost, Design, PAPER_SPLITS, Pairing, Plan, PlannedQuery, Point, ShardIndex, WindowSize};
pub use process::{ExactSource, Gaussian, Process, SantaFe};
pub use report::{
    Comparison, Difference, DivergenceBin, ExponentDifference, Report, Row, SeriesFit, SurprisalDifference, WindowPart,
};
pub use run::{Progress, execute, execute_shard, run, run_resumable, run_shard};
pub use source::{
    ApiKey, HttpOptions, HttpSource, LogprobSource, Model, Replicas, RetryPolicy, Routing, ScoreQuery, ScoringDialect,
    Tokenize, TokensAndOffsets,
};
pub use spec::{CorpusSpec, Experiment, MeasureSpec, ModelSpec};
pub use statistics::{
    Baseline, EntropyBias, EntropyMethod, NgramEntropy, Spectrum, TokenStore, TokenTexts, TwoPoint, TwoPointEstimate,
    shuffle_tokens,
};
pub use store::{AnswerStore, Merged, merge};
pub use unit::Unit;
pub use value::Estimate;
