//! Rotary frequencies (Su et al., 2021) and their extensions to longer contexts, as the transformers library computes
//! them.
//!
//! Every value that transformers rounds to f32 is rounded here too, because checkpoints are trained with exactly these
//! numbers.

use std::f64::consts::PI;

/// The scaling of rotary frequencies. Pair `i` of a head's dimensions is rotated by the angle `position * frequency_i`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Frequencies `theta^(-2i / head_dim)`.
    Default,
    /// All frequencies divided by a factor (position interpolation; Chen et al., 2023).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: frequencies of long wavelengths are divided by a factor, and those of short wavelengths are kept,
    /// with a smooth transition in between.
    Llama3 {
        /// The divisor of the frequencies of long wavelengths.
        factor: f64,
        /// The field `low_freq_factor`: wavelengths above `original / low` are long.
        low: f64,
        /// The field `high_freq_factor`: wavelengths below `original / high` are short.
        high: f64,
        /// The context length of pretraining, in tokens.
        original: f64,
    },
    /// YaRN (Peng et al., 2023): low frequencies are divided by a factor, and attention scores are scaled.
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// The context length of pretraining, in tokens.
        original: f64,
        /// The number of rotations over `original` tokens above which a frequency is kept.
        beta_fast: f64,
        /// The number of rotations over `original` tokens below which a frequency is divided by `factor`.
        beta_slow: f64,
        /// The factor that multiplies cosines and sines.
        attention_factor: f64,
        /// `true` if the transition begins and ends at whole dimensions.
        truncate: bool,
    },
}

impl RopeScaling {
    /// Returns the frequency of each pair of a head's dimensions, in radians per token: `head_dim / 2` values.
    pub fn frequencies(&self, theta: f64, head_dim: usize) -> Vec<f32> {
        let powers = (0..head_dim / 2).map(|i| theta.powf(f64::from(2.0 * i as f32 / head_dim as f32)) as f32);
        match *self {
            Self::Default => powers.map(|power| 1.0 / power).collect(),
            Self::Linear { factor } => powers.map(|power| 1.0 / power / factor as f32).collect(),
            Self::Llama3 { factor, low, high, original } => powers
                .map(|power| llama3(1.0 / power, factor as f32, low as f32, high as f32, original as f32))
                .collect(),
            Self::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => {
                let (first, last) = yarn_ramp(theta, head_dim, original, [beta_fast, beta_slow], truncate);
                let blend = |(i, power): (usize, f32)| {
                    let kept = 1.0 - ((i as f32 - first as f32) / (last - first) as f32).clamp(0.0, 1.0);
                    1.0 / (factor as f32 * power) * (1.0 - kept) + 1.0 / power * kept
                };
                powers.enumerate().map(blend).collect()
            }
        }
    }

    /// Returns the factor that multiplies cosines and sines: 1 except for YaRN.
    pub fn attention_factor(&self) -> f64 {
        match *self {
            Self::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        }
    }
}

/// Returns the indices of the first and the last pair of dimensions in YaRN's transition from kept to divided
/// frequencies.
fn yarn_ramp(theta: f64, head_dim: usize, original: f64, betas: [f64; 2], truncate: bool) -> (f64, f64) {
    let [first, last] =
        betas.map(|rotations| head_dim as f64 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln()));
    let (first, last) = if truncate { (first.floor(), last.ceil()) } else { (first, last) };
    let (first, last) = (first.max(0.0), last.min(head_dim as f64 - 1.0));
    (first, if first == last { last + 0.001 } else { last })
}

/// Scales a frequency as Llama 3.1 does.
fn llama3(frequency: f32, factor: f32, low: f32, high: f32, original: f32) -> f32 {
    let wavelength = (2.0 * PI) as f32 / frequency;
    if wavelength > original / low {
        return frequency / factor;
    }
    if wavelength < original / high {
        return frequency;
    }
    let smooth = (original / wavelength - low) / (high - low);
    (1.0 - smooth) * frequency / factor + smooth * frequency
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the formulas. For theta 500000 and head_dim 8, the unscaled frequencies are 500000^(-i/4).
    #[test]
    fn frequencies_follow_their_formulas() {
        let llama3 = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 64.0 };
        let yarn = RopeScaling::Yarn {
            factor: 4.0,
            original: 512.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.138_629_4,
            truncate: true,
        };
        for (scaling, want) in [
            (RopeScaling::Default, [1.0, 0.037_606_03, 0.001_414_213_6, 5.318_296e-5]),
            (RopeScaling::Linear { factor: 4.0 }, [0.25, 0.009_401_508, 0.000_353_553_4, 1.329_574e-5]),
        ] {
            for (got, want) in scaling.frequencies(500_000.0, 8).into_iter().zip(want) {
                assert!((got - want).abs() < 1e-6 * want, "{scaling:?}: {got} {want}");
            }
        }
        let long = llama3.frequencies(500_000.0, 8);
        assert_eq!((long[0], long[3]), (1.0, RopeScaling::Default.frequencies(500_000.0, 8)[3] / 8.0));
        assert_eq!(yarn.attention_factor(), 1.138_629_4);
        let parts = yarn.frequencies(500_000.0, 64);
        let plain = RopeScaling::Default.frequencies(500_000.0, 64);
        assert_eq!(parts[0], plain[0]);
        assert!((parts[31] - plain[31] / 4.0).abs() < 1e-12);
    }
}
