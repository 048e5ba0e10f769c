//! Load tests of servers that return log-probabilities.
//!
//! A [`Workload`] is a stream of requests in which each is a function of the seed and of its index, so two runs send the same
//! requests. A [`Load`] says when they are sent: each client after its last answer (closed loop), or at times that do not wait for
//! answers (open loop). In an open loop latency counts from the time a request was *due*, so that a server which stalls cannot
//! hide it. [`measure`] sends the requests to a [`Target`] (this project's server, or another in its own [`Dialect`]) and returns an
//! [`Outcome`]; outcomes make a [`Report`], and two reports a [`Comparison`].
//!
//! ```no_run
//! use surprisal_load::{Load, Options, Target, Workload, measure};
//!
//! # async fn example() -> Result<(), surprisal_load::Error> {
//! let target = Target::discover("http://127.0.0.1:8000".parse()?, None, None).await?;
//! let workload = Workload::Documents { length: 512 };
//! let outcome = measure(&target, &workload, Load::Closed { clients: 8 }, &Options::default(), &|_| {}).await?;
//! println!("{:.0} tokens scored a second", outcome.scored_tokens_per_second);
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod load;
mod measure;
mod outcome;
mod report;
mod workload;

pub use client::{Counters, Endpoint, Target};
pub use error::Error;
pub use load::Load;
pub use measure::{Options, Progress, measure};
pub use outcome::{Latency, Outcome, Repeats};
pub use report::{Comparison, FailureCounts, Ratio, Report};
pub use surprisal_dialect::Dialect;
pub use workload::{LatencyClass, PairRequest, Trace, TraceLine, Workload};
