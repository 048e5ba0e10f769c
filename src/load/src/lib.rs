//! Load tests of servers that return log-probabilities.
//!
//! A [`Workload`] is a stream of requests. The seed and the request's index determine each request, so two runs send
//! the same requests. A [`Load`] determines when the requests are sent. In a closed loop, each client sends its next
//! request after the answer to the last; in an open loop, requests are sent at times that do not depend on answers. In
//! an open loop, latency counts from the time a request was *due*, so that a server cannot hide a stall. [`measure`]
//! sends the requests to a [`Target`] (a surprisal server, or another server in its own [`Dialect`]) and returns an
//! [`Outcome`]. A [`Report`] collects outcomes, and a [`Comparison`] compares two reports.
//!
//! ```no_run
//! use surprisal_load::{Load, Options, Target, Workload, measure};
//!
//! # async fn example() -> Result<(), surprisal_load::Error> {
//! let target = Target::discover("http://127.0.0.1:8000".parse()?, None, None).await?;
//! let workload = Workload::Documents { length: 512 };
//! let outcome = measure(&target, &workload, Load::Closed { clients: 8 }, &Options::default(), &|_| {}).await?;
//! println!("{:.0} tokens scored/s", outcome.scored_tokens_per_second);
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
