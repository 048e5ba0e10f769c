//! Units of information.

use serde::{Deserialize, Serialize};

/// A unit of information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Nats: natural logarithms.
    #[default]
    Nats,
    /// Bits: logarithms to base 2.
    Bits,
}

impl Unit {
    /// Returns the unit's name: `nats` or `bits`.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Nats => "nats",
            Unit::Bits => "bits",
        }
    }

    /// Returns the size of one unit, in nats.
    pub(crate) fn nats(self) -> f64 {
        match self {
            Unit::Nats => 1.0,
            Unit::Bits => std::f64::consts::LN_2,
        }
    }
}
