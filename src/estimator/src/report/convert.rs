//! Conversion of a report to another unit. Every report is first built in nats.

use crate::estimate::{EntropyRate, PairingErrors};
use crate::fit::{Fit, LawFit};
use crate::report::Report;
use crate::statistics::{Baseline, NgramEntropy, TwoPoint};
use crate::unit::Unit;

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
            estimates.direct.scale(factor);
            estimates.corrected.iter_mut().for_each(|estimate| estimate.scale(factor));
            estimates.vclub.scale(factor);
            let averaged = [&mut estimates.averaged, &mut estimates.averaged_limit, &mut estimates.info_nce];
            averaged.into_iter().flatten().for_each(|estimate| estimate.scale(factor));
            let PairingErrors { same, crossed } = &mut estimates.pairing_errors;
            for value in [same, crossed].into_iter().chain(&mut row.truth).chain(&mut row.vclub_limit) {
                *value *= factor;
            }
        }
        for curve in &mut self.context_curves {
            curve.points.iter_mut().for_each(|point| point.estimate.scale(factor));
            curve.limit_error.iter_mut().for_each(|error| *error *= factor);
        }
        self.consistency.iter_mut().for_each(|check| check.difference.scale(factor));
        let converging = self.convergence.iter_mut().flat_map(|of_series| &mut of_series.points);
        converging.for_each(|point| point.estimate.scale(factor));
        self.halves.iter_mut().for_each(|halves| halves.difference.scale(factor));
        self.fits.iter_mut().for_each(|fit| scale_fit(&mut fit.fit, factor));
        self.laws.iter_mut().flat_map(|laws| &mut laws.laws).for_each(|law| scale_law(law, factor));
        let divergences = self.divergence_bins.iter_mut().map(|of_bin| (&mut of_bin.bin, &mut of_bin.truth));
        for (bin, truth) in divergences {
            bin.estimate.scale(factor);
            truth.iter_mut().for_each(|truth| *truth *= factor);
        }
        let bins = self.nll_bins.iter_mut().map(|bin| &mut bin.estimate);
        self.nll.iter_mut().chain(bins).chain(&mut self.divergence).for_each(|estimate| estimate.scale(factor));
        self.entropy_rate.iter_mut().for_each(|rate| scale_rate(rate, factor));
        let unigrams = self.corpus.as_mut().map(|corpus| &mut corpus.unigrams);
        for NgramEntropy { nats, error, bias, .. } in self.ngram_entropy.iter_mut().chain(unigrams) {
            *nats *= factor;
            *error *= factor;
            bias.iter_mut().for_each(|bias| bias.scale(factor));
        }
        self.two_point.iter_mut().for_each(|two_point| scale_two_point(two_point, factor));
        self.unit = unit;
        self
    }
}

fn scale_two_point(two_point: &mut TwoPoint, factor: f64) {
    let TwoPoint { entropy, points, fit, additive, paper, difference_fit, bias, .. } = two_point;
    entropy.scale(factor);
    for point in points {
        point.estimate.scale(factor);
        point.bias.iter_mut().for_each(|bias| bias.scale(factor));
        if let Some(Baseline { value, error, spread, difference }) = &mut point.baseline {
            [value, error, spread].into_iter().for_each(|number| *number *= factor);
            difference.scale(factor);
        }
    }
    bias.iter_mut().for_each(|bias| bias.scale(factor));
    let fits = fit.iter_mut().chain(additive).chain(paper).chain(difference_fit);
    fits.for_each(|fit| scale_fit(fit, factor));
}

fn scale_rate(rate: &mut EntropyRate, factor: f64) {
    rate.information().for_each(|estimate| estimate.scale(factor));
    for fit in rate.fits.iter_mut().flat_map(|fits| &mut fits.laws) {
        let amplitude = fit.amplitude.iter_mut().filter(|_| fit.law.has_information_amplitude());
        amplitude.for_each(|amplitude| *amplitude *= factor);
    }
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
