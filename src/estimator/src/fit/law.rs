//! Laws of growth: the functions of the length that are fitted to estimates.

use serde::{Deserialize, Serialize};

/// A law of growth: mutual information as a function of the length `L`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// `A L^β`, with the parameters `A`, `β`.
    Power,
    /// `A L^β + c`, with the parameters `A`, `β`, `c`. With a negative `β`, it saturates at `c`.
    PowerWithBias,
    /// `a + b ln L`, with the parameters `a`, `b`.
    Logarithmic,
    /// `C (1 - exp(-(L/τ)^γ))`, with the parameters `C`, `τ`, `γ`: a power law far below `τ`, and constant far above.
    Saturating,
}

impl Law {
    /// All laws.
    pub const ALL: [Law; 4] = [Law::Power, Law::PowerWithBias, Law::Logarithmic, Law::Saturating];

    /// Returns the law's name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Law::Power => "power law",
            Law::PowerWithBias => "power law with bias",
            Law::Logarithmic => "logarithmic",
            Law::Saturating => "saturating",
        }
    }

    /// Returns the law's formula.
    pub fn formula(self) -> &'static str {
        match self {
            Law::Power => "A·L^β",
            Law::PowerWithBias => "A·L^β + c",
            Law::Logarithmic => "a + b·ln L",
            Law::Saturating => "C·(1 - exp(-(L/τ)^γ))",
        }
    }

    /// Returns the names of the parameters, in order.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Law::Power => &["A", "β"],
            Law::PowerWithBias => &["A", "β", "c"],
            Law::Logarithmic => &["a", "b"],
            Law::Saturating => &["C", "τ", "γ"],
        }
    }

    /// Returns the parameters that are information, by index. The others have no unit, or are lengths.
    pub(crate) fn information_parameters(self) -> &'static [usize] {
        match self {
            Law::Power | Law::Saturating => &[0],
            Law::PowerWithBias => &[0, 2],
            Law::Logarithmic => &[0, 1],
        }
    }

    /// Returns the law's value at `length`.
    ///
    /// # Panics
    /// If there are fewer parameters than the law has.
    pub fn at(self, parameters: &[f64], length: f64) -> f64 {
        let p = parameters;
        match self {
            Law::Power => p[0] * length.powf(p[1]),
            Law::PowerWithBias => p[0] * length.powf(p[1]) + p[2],
            Law::Logarithmic => p[0] + p[1] * length.ln(),
            Law::Saturating => -p[0] * (-(length / p[1]).powf(p[2])).exp_m1(),
        }
    }

    /// Returns the derivatives of the law's value at `length` by its parameters.
    pub(crate) fn gradient(self, parameters: &[f64], length: f64) -> Vec<f64> {
        let p = parameters;
        match self {
            Law::Power | Law::PowerWithBias => {
                let power = length.powf(p[1]);
                let mut gradient = vec![power, p[0] * power * length.ln()];
                gradient.resize(p.len(), 1.0);
                gradient
            }
            Law::Logarithmic => vec![1.0, length.ln()],
            Law::Saturating => {
                let ratio = (length / p[1]).powf(p[2]);
                let slope = p[0] * ratio * (-ratio).exp();
                vec![-(-ratio).exp_m1(), -slope * p[2] / p[1], slope * (length / p[1]).ln()]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_those_of_the_values() {
        for (law, parameters) in [
            (Law::Power, vec![2.0, 0.6]),
            (Law::PowerWithBias, vec![2.0, -0.6, 0.5]),
            (Law::Logarithmic, vec![1.0, 2.5]),
            (Law::Saturating, vec![10.0, 80.0, 0.7]),
        ] {
            assert_eq!(parameters.len(), law.parameters().len());
            for length in [4.0, 64.0, 1000.0] {
                for (index, slope) in law.gradient(&parameters, length).into_iter().enumerate() {
                    let moved = |by: f64| {
                        let mut parameters = parameters.clone();
                        parameters[index] += by;
                        law.at(&parameters, length)
                    };
                    let step = 1e-6 * parameters[index].abs();
                    let numeric = (moved(step) - moved(-step)) / (2.0 * step);
                    assert!((slope - numeric).abs() < 1e-6 * (1.0 + slope.abs()), "{law:?} {index} {slope} {numeric}");
                }
            }
        }
    }
}
