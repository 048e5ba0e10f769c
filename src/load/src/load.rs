//! Loads: the times at which requests are sent.

use std::fmt;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use surprisal_chart::short;

use crate::error::Error;

/// The amount of load, in a closed loop (number of clients) or an open loop (rate).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub enum Load {
    /// A closed loop: each client sends its next request when its last request is answered.
    Closed {
        /// Number of clients, which is also the number of requests in flight.
        clients: usize,
    },
    /// An open loop with equal intervals between requests. It does not wait for answers.
    Constant {
        /// Requests per second.
        rate: f64,
    },
    /// An open loop with exponentially distributed intervals, like requests from independent clients.
    Poisson {
        /// Mean number of requests per second.
        rate: f64,
    },
}

impl Load {
    /// Returns whether the send times are fixed in advance (open loop).
    pub fn is_open(self) -> bool {
        self.rate().is_some()
    }

    /// Returns the offered requests per second of an open loop; `None` for a closed loop.
    pub fn rate(self) -> Option<f64> {
        match self {
            Load::Closed { .. } => None,
            Load::Constant { rate } | Load::Poisson { rate } => Some(rate),
        }
    }

    pub(crate) fn check(self) -> Result<(), Error> {
        match self {
            Load::Closed { clients: 0 } => Err(Error::invalid("clients", 0, "at least 1")),
            Load::Closed { .. } => Ok(()),
            Load::Constant { rate } | Load::Poisson { rate } if rate > 0.0 && rate.is_finite() => Ok(()),
            Load::Constant { rate } | Load::Poisson { rate } => {
                Err(Error::invalid("rate", rate, "a finite number of requests per second above 0"))
            }
        }
    }

    /// Returns the send times of an open loop, measured from its start; empty for a closed loop.
    pub(crate) fn arrivals(self, seed: u64) -> impl Iterator<Item = Duration> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut at = 0.0;
        let mut next = move || match self {
            Load::Closed { .. } => None,
            Load::Constant { rate } => {
                let next = at + 1.0 / rate;
                Some(std::mem::replace(&mut at, next))
            }
            Load::Poisson { rate } => {
                // 1 - u is never 0, so the logarithm is finite.
                at -= (1.0 - rng.random::<f64>()).ln() / rate;
                Some(at)
            }
        };
        std::iter::from_fn(move || next().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Load::Closed { clients: 1 } => write!(f, "1 client"),
            Load::Closed { clients } => write!(f, "{clients} clients"),
            Load::Constant { rate } => write!(f, "{} requests/s, even", short(*rate)),
            Load::Poisson { rate } => write!(f, "{} requests/s, Poisson", short(*rate)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The intervals of a Poisson process have mean 1/rate and standard deviation 1/rate.
    #[test]
    fn arrivals_have_the_expected_rate_and_spread() {
        let even: Vec<f64> = Load::Constant { rate: 4.0 }.arrivals(1).take(4).map(|at| at.as_secs_f64()).collect();
        assert_eq!(even, [0.0, 0.25, 0.5, 0.75]);
        let poisson = Load::Poisson { rate: 50.0 };
        let times: Vec<f64> = poisson.arrivals(7).take(20_001).map(|at| at.as_secs_f64()).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 50.0 - 1.0).abs() < 0.03, "{mean}");
        assert!((variance.sqrt() * 50.0 - 1.0).abs() < 0.05, "{variance}");
        assert!(poisson.arrivals(7).take(100).eq(poisson.arrivals(7).take(100)), "a seed fixes the arrivals");
        assert!(Load::Closed { clients: 3 }.arrivals(1).next().is_none());
    }

    #[test]
    fn invalid_loads_are_rejected() {
        for load in [Load::Closed { clients: 0 }, Load::Poisson { rate: 0.0 }, Load::Constant { rate: f64::NAN }] {
            assert!(load.check().is_err(), "{load}");
        }
    }
}
