//! The units of information.

use serde::{Deserialize, Serialize};

/// A unit of information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Natural logarithms.
    #[default]
    Nats,
    /// Logarithms to base 2.
    Bits,
}

impl Unit {
    /// `nats` or `bits`.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Nats => "nats",
            Unit::Bits => "bits",
        }
    }

    /// One of it, in nats.
    pub(crate) fn nats(self) -> f64 {
        match self {
            Unit::Nats => 1.0,
            Unit::Bits => std::f64::consts::LN_2,
        }
    }
}
