//! The estimation client: how much one half of a text tells about the other, by a language model's log-probabilities.
//!
//! Data flows one way: a [`Corpus`] gives documents; a [`Plan`] says what to ask about them; a [`LogprobSource`] (a
//! server over HTTP, or the built-in exact one) answers; [`run`] makes [`Estimates`] of the answers; a [`Report`] shows
//! them with their [`Fit`]s. All information is in nats, until a report is asked for bits.
//!
//! A [`Process`] ([`SantaFe`], [`Gaussian`]) has a mutual information known in closed form, so the whole way can be checked without a model:
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

mod additive;
mod answers;
mod api;
mod bootstrap;
mod compare;
mod conduct;
mod corpus;
mod cost;
mod count;
mod csv;
mod documents;
mod entropy;
mod error;
mod estimate;
mod experiment;
mod figures;
mod files;
mod fit;
mod gaussian;
mod html;
mod http;
mod merge;
mod partners;
mod plan;
mod plot;
mod process;
mod replicas;
mod report;
mod retry;
mod run;
mod santa_fe;
mod shard;
mod source;
mod step;
mod terms;
mod texts;
mod token_store;
mod two_point;
mod unit;

pub use answers::Answers;
pub use api::Api;
pub use bootstrap::Bootstrap;
pub use compare::Comparison;
pub use corpus::{Corpus, Spacing};
pub use cost::Cost;
pub use documents::CorpusStatistics;
pub use entropy::{EntropyMethod, NgramEntropy, Spectrum};
pub use error::Error;
pub use estimate::{Correction, Estimate, Estimates, ExponentInterval, PairingErrors, PointEstimate};
pub use experiment::{CorpusSpec, Experiment, Measure, ModelSpec};
pub use fit::{Fit, Method};
pub use gaussian::Gaussian;
pub use http::{ApiKey, HttpOptions, HttpSource};
pub use merge::{Merged, Part, merge};
pub use plan::{Design, PAPER_SPLITS, Pairing, Plan, Point};
pub use process::{ExactSource, Process};
pub use replicas::{Replicas, Routing};
pub use report::{Report, Row, Series, SeriesFit};
pub use retry::Retry;
pub use run::{Progress, answer, run, run_kept};
pub use santa_fe::SantaFe;
pub use source::{LogprobSource, Model, ScoreQuery, Tokenize};
pub use step::Step;
pub use texts::Texts;
pub use token_store::{TokenStore, TokenTexts};
pub use two_point::{TwoPoint, TwoPointEstimate};
pub use unit::Unit;
