//! The conclusions of a report: whether a power law describes the estimates, and what it would imply under the L2M
//! condition.
//!
//! The condition (Chen, Mayné i Comas, Jin, Luo and Soljačić, *L2M: Mutual Information Scaling Law for Long-Context
//! Language Modeling*, 2025): to keep the information that the beginning of a text has about the rest, the state that
//! a model carries forward must grow at least as fast as the mutual information.

use crate::estimate::{LocalExponent, Marginal, Sampling, Series, SeriesLaws};
use crate::fit::{Fit, FitMethod, Law, LawFit};
use crate::report::Report;
use crate::report::laws::p_value;

/// The beginning of the explanation for a missing conclusion.
const NO_CONCLUSION: &str =
    "No conclusion about the L2M condition (how a model's state must grow with the length of such texts):";

/// The number of texts below which intervals are indicative only: with so few, the variance between texts is uncertain
/// and its distribution unknown.
pub(crate) const FEW_TEXTS: usize = 10;

/// The difference in AICc from which another law counts as better than a power law: its weight of evidence is 20 times
/// as large (Burnham and Anderson, *Model Selection and Multimodel Inference*, 2002, section 2.6).
const BETTER: f64 = 6.0;

impl Report {
    /// Interprets the exponent at the smallest ratio, of the corrected estimate if it has a fit, or otherwise of the
    /// direct estimate; with [`Marginal::Averaged`], of the averaged estimate's limit. Draws a conclusion only if the
    /// data do not reject a power law, if no other law describes them better, and if the exponent's whole 95 % interval
    /// supports the conclusion. `None` if neither has a fit.
    pub fn reading(&self) -> Option<String> {
        let ratio = *self.ratios().first()?;
        let fit_of = |series| Some((series, self.fit_of(ratio, series, FitMethod::LeastSquares)?));
        let fitted = match self.marginal {
            Marginal::Bos => fit_of(Series::Corrected).or_else(|| fit_of(Series::Direct)),
            Marginal::Averaged => fit_of(Series::AveragedLimit),
        };
        let Some((series, fit)) = fitted else {
            let failure = (self.marginal == Marginal::Averaged).then(|| self.averaged_failure())?;
            return Some([Some(failure), self.scope()].into_iter().flatten().collect::<Vec<_>>().join(" "));
        };
        let mut sentences = vec![self.l2m_condition(fit, self.laws_of(ratio, series))];
        sentences.extend(self.saturation(ratio, series, fit));
        sentences.extend(self.scope());
        Some(sentences.join(" "))
    }

    /// Explains why the averaged estimate has no fit.
    fn averaged_failure(&self) -> String {
        let fewest = Marginal::FEWEST_CONTEXTS;
        let reason = match self.unrelated_contexts {
            Some(unrelated) if unrelated < fewest => format!(
                "the averaged estimate needs at least {fewest} contexts from other texts for each y, but some y have \
                 {unrelated}. Use more texts, or fewer windows from each, or `marginal = \"bos\"`."
            ),
            _ => "the averaged estimate has converged at too few lengths for a fit. Use more `negatives`, or \
                  `marginal = \"bos\"`."
                .to_owned(),
        };
        format!("{NO_CONCLUSION} {reason}")
    }

    /// Concludes what the exponent implies for the state of models, or explains why no conclusion can be drawn.
    fn l2m_condition(&self, fit: &Fit, laws: Option<&SeriesLaws>) -> String {
        let Some(interval) = fit.exponent_interval else {
            return format!(
                "{NO_CONCLUSION} the exponent has no 95 % interval. To get one, use more lengths with positive estimates, or, if \
                 `resamples` is 0, set it to 1000."
            );
        };
        let Some((laws, power)) = laws.and_then(|laws| Some((laws, laws.get(Law::Power)?))) else {
            return format!(
                "{NO_CONCLUSION} a power law cannot be tested. A test needs at least four lengths, and at least nine more \
                 texts than lengths, or windows if all come from one text."
            );
        };
        let best = laws.best().filter(|best| best.law != Law::Power);
        if power.is_rejected() {
            return format!("{NO_CONCLUSION} the data reject a power law ({}).{}", test(power), alternative(best));
        }
        match best {
            Some(best) if power.aicc - best.aicc > BETTER => format!(
                "{NO_CONCLUSION} a {} law, {}, describes the data better than a power law (AICc lower by {:.1}).",
                best.law.name(),
                best.law.formula(),
                power.aicc - best.aicc
            ),
            best => self.conclusion(fit.exponent, interval, power, best),
        }
    }

    /// Concludes from an exponent and its interval. `rival` is the law with the smallest AICc, unless it is the power
    /// law.
    fn conclusion(&self, exponent: f64, [low, high]: [f64; 2], power: &LawFit, rival: Option<&LawFit>) -> String {
        let holds = |growth: f64| match () {
            () if high <= growth => "satisfies this condition",
            () if low > growth => "does not satisfy this condition",
            () => "may or may not satisfy this condition (the data are inconclusive)",
        };
        let rival = rival.map_or_else(String::new, |rival| {
            format!(
                " A {} law, {}, describes the data at least as well (AICc lower by {:.1}), so the exponent may not hold \
                 for longer texts.",
                rival.law.name(),
                rival.law.formula(),
                power.aicc - rival.aicc
            )
        });
        format!(
            "L2M condition, according to this model: the data do not reject a power law ({}). To model such texts, a \
             model's state must grow with their length L at least as fast as L^{exponent:.3} (95 % interval of the \
             exponent: {low:.3} to {high:.3}). A key-value cache, which grows as L, {}; a fixed-size state in a \
             fixed-size model {}.{rival}",
            test(power),
            holds(1.0),
            holds(0.0),
        )
    }

    /// Reports that the estimates stop growing at the longest lengths, if they do: if the last local exponent is
    /// below the fitted one, and its interval contains 0 or negative exponents, but not the fitted one.
    fn saturation(&self, ratio: usize, series: Series, fit: &Fit) -> Option<String> {
        let of_series = |local: &&LocalExponent| (local.ratio, local.series) == (ratio, series);
        let last = self.local_exponents.iter().rfind(of_series)?;
        let [low, high] = last.interval?;
        (low <= 0.0 && high < fit.exponent).then(|| {
            format!(
                "From L = {} to {}, the estimate hardly grows: the local exponent is {:.3} ({low:.3} to {high:.3}), less \
                 than the fitted exponent, {:.3}. The model may make no use of longer contexts. Such saturation is a \
                 property of the model, not of the texts.",
                last.from, last.to, last.exponent, fit.exponent
            )
        })
    }

    /// Returns the effective number of texts, rounded; `None` for one text, whose windows are the sample, and if the
    /// report does not record the number of texts.
    pub(crate) fn effective_texts_rounded(&self) -> Option<usize> {
        let texts = self.texts.filter(|&texts| texts > 1)?;
        Some(self.effective_texts.map_or(texts, |effective| (effective.round() as usize).min(texts)))
    }

    /// States the population that errors, intervals and tests are about; `None` if the report does not record the number
    /// of texts.
    pub(crate) fn scope(&self) -> Option<String> {
        let (texts, documents) = (self.texts?, self.documents);
        if texts == 1 {
            return Some(format!(
                "All {documents} windows come from one text: errors, intervals and tests apply to that text, not to texts \
                 in general."
            ));
        }
        let effective = self.effective_texts_rounded()?;
        let count = match effective < texts {
            true => format!("{texts} texts, which count as {effective}, because some have more windows than others"),
            false => format!("{texts} texts"),
        };
        let mut sentences = Vec::new();
        if texts < documents {
            sentences.push(format!("Errors and intervals are clustered by text ({count}; {documents} windows)."));
        }
        if effective < FEW_TEXTS {
            sentences.push(match effective < texts {
                true => format!(
                    "The effective number of texts is {effective}, so intervals are only indicative. Use more texts, or \
                     texts of similar length, for at least {FEW_TEXTS}."
                ),
                false => format!("With {texts} texts, intervals are indicative only: use at least {FEW_TEXTS}."),
            });
        }
        sentences.extend(self.related_contexts());
        if texts < documents && self.laws.iter().any(|laws| laws.sampling == Sampling::Within) {
            let test = "There are too few texts to test laws over texts, so the tests apply to these texts only.";
            sentences.push(test.to_owned());
        }
        (!sentences.is_empty()).then(|| sentences.join(" "))
    }

    /// States that some contexts are from the text of their `y`; `None` if none are, or if the report does not record it.
    fn related_contexts(&self) -> Option<String> {
        let (negatives, unrelated) = (self.negatives?, self.unrelated_contexts?);
        (unrelated < negatives).then(|| {
            let averaged = match unrelated {
                _ if negatives == 1 => "",
                0 | 1 => ", and there is no averaged marginal",
                _ => ", and the averaged marginal uses fewer contexts",
            };
            format!(
                "Some y have contexts from their own text: only {unrelated} of {negatives} are from other texts. vCLUB may \
                 therefore be too small{averaged}."
            )
        })
    }
}

/// Returns the test of a law as text.
fn test(fit: &LawFit) -> String {
    format!("T² = {:.1}, {} degrees of freedom, {}", fit.chi2, fit.dof, p_value(fit.p))
}

/// Names the law that describes the data best, unless that law is also rejected.
fn alternative(best: Option<&LawFit>) -> String {
    match best.filter(|best| !best.is_rejected()) {
        Some(best) => format!(
            " Of the laws that were fitted, a {} law, {}, describes them best ({}).",
            best.law.name(),
            best.law.formula(),
            test(best)
        ),
        None => " None of the laws that were fitted describes them.".to_owned(),
    }
}
