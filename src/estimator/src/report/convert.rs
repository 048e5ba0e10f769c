//! Conversion of a report to another unit. Every report is first built in nats.

use crate::estimate::PairingErrors;
use crate::fit::{Fit, LawFit};
use crate::report::Report;
use crate::statistics::{NgramEntropy, TwoPoint};
use crate::unit::Unit;
use crate::value::Estimate;

impl Report {
    /// Converts all information values to `unit`. Exponents and weights have no unit and do not change.
    #[must_use]
    pub fn in_unit(mut self, unit: Unit) -> Self {
        if unit == self.unit {
            return self;
        }
        let factor = self.unit.nats() / unit.nats();
        for row in &mut self.rows {
            let estimates = &mut row.estimates;
            scale(&mut estimates.direct, factor);
            estimates.corrected.iter_mut().for_each(|estimate| scale(estimate, factor));
            scale(&mut estimates.vclub, factor);
            let PairingErrors { same, crossed } = &mut estimates.pairing_errors;
            for value in [same, crossed].into_iter().chain(&mut row.truth).chain(&mut row.vclub_limit) {
                *value *= factor;
            }
        }
        self.fits.iter_mut().for_each(|fit| scale_fit(&mut fit.fit, factor));
        self.laws.iter_mut().flat_map(|laws| &mut laws.laws).for_each(|law| scale_law(law, factor));
        self.nll.iter_mut().chain(&mut self.divergence).for_each(|estimate| scale(estimate, factor));
        let unigrams = self.corpus.as_mut().map(|corpus| &mut corpus.unigrams);
        for NgramEntropy { nats, error, .. } in self.ngram_entropy.iter_mut().chain(unigrams) {
            *nats *= factor;
            *error *= factor;
        }
        if let Some(TwoPoint { entropy, points, fit, additive, .. }) = &mut self.two_point {
            scale(entropy, factor);
            points.iter_mut().for_each(|point| scale(&mut point.estimate, factor));
            fit.iter_mut().chain(additive).for_each(|fit| scale_fit(fit, factor));
        }
        self.unit = unit;
        self
    }
}

fn scale(estimate: &mut Estimate, factor: f64) {
    estimate.value *= factor;
    estimate.error *= factor;
    estimate.interval = estimate.interval.map(|ends| ends.map(|end| end * factor));
}

fn scale_fit(fit: &mut Fit, factor: f64) {
    fit.amplitude *= factor;
    for value in [&mut fit.amplitude_error, &mut fit.bias].into_iter().flatten() {
        *value *= factor;
    }
}

fn scale_law(LawFit { law, parameters, errors, .. }: &mut LawFit, factor: f64) {
    for &index in law.information_parameters() {
        parameters[index] *= factor;
        errors.iter_mut().for_each(|errors| errors[index] *= factor);
    }
}
