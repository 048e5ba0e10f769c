//! The chart of the entropy rate: surprisal by position with the fitted laws, and their limits.

use crate::estimate::{EntropyRate, OMITTED_POSITIONS, RateFit, RateFits};
use crate::fit::RateLaw;
use crate::number::significant;
use crate::report::Report;
use crate::report::chart_points::{Chart, Color, Curve, Mark, surprisal_chart, surprisal_curve, with_bars};

/// The laws are drawn to this multiple of the window, where the marks of their limits are.
const EXTENT: f64 = 8.0;

/// The horizontal distance between the marks of two limits, in pixels.
const MARK_DISTANCE: f64 = 10.0;

/// The number of points of each law.
const STEPS: usize = 80;

impl Report {
    /// Returns the chart; `None` if no law is fitted.
    pub(crate) fn entropy_rate_chart(&self) -> Option<Chart> {
        let rate = self.entropy_rate.as_ref()?;
        let fits = rate.fits.first()?;
        let mut surprisal = surprisal_curve(self, Color::SERIES[0], Mark::Circle, "mean surprisal of a token");
        // The first positions would flatten the rest.
        surprisal.points.retain(|point| point.x > 0.5 * OMITTED_POSITIONS as f64);
        surprisal.line.retain(|(position, _)| *position > 0.5 * OMITTED_POSITIONS as f64);
        let laws = fits.laws.iter().map(|fit| law_curve(rate, fits, fit));
        let title = format!("{}, entropy rate", self.title);
        let curves = std::iter::once(surprisal).chain(laws).collect();
        let chart = surprisal_chart(title, self.unit.name(), curves);
        Some(Chart { x: format!("{}; marks at the right end: the limits h", chart.x), ..chart })
    }
}

/// Returns the curve of a law, and a mark at its limit if the data determine it.
fn law_curve(rate: &EntropyRate, fits: &RateFits, fit: &RateFit) -> Curve {
    let (color, mark, place) = match fit.law {
        RateLaw::Constant => (Color::SERIES[5], Mark::Circle, 1.5),
        RateLaw::Power => (Color::SERIES[1], Mark::Square, 0.5),
        RateLaw::PowerLog => (Color::SERIES[2], Mark::Triangle, -0.5),
        RateLaw::Stretched => (Color::SERIES[3], Mark::Square, -1.5),
    };
    let last = EXTENT * rate.window as f64;
    let ratio = (last / fits.first as f64).ln();
    let position = |step: usize| fits.first as f64 * (ratio * step as f64 / STEPS as f64).exp();
    let line = (0..=STEPS).map(|step| (position(step), fit.at(position(step)))).collect();
    let doubt = fits.rate_doubt(fit);
    let limit = if doubt.is_none() { with_bars(&[(last, fit.rate.token)]) } else { Vec::new() };
    let label = match doubt {
        None => format!("{}: h = {}", fit.law.name(), significant(fit.rate.token.value, 3)),
        Some(doubt) => format!("{}: h not determined ({doubt})", fit.law.name()),
    };
    let shift = MARK_DISTANCE * place;
    Curve { line, points: limit, mark, shift, dashed: doubt.is_some(), ..Curve::new(color, label) }
}
