//! The report's plot: SVG with logarithmic axes, error bars, fits, and titles that show on hover.

use std::fmt::Write as _;

use crate::html::escape;
use crate::{Estimate, Fit, Report, Series};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 50.0;

/// An error bar that reaches further down than this part of its value does not stretch the axis; it is cut there instead.
const SHOWN_PART: f64 = 0.4;

/// More labels than this on an axis run into each other.
const MOST_LABELS: usize = 14;

/// A logarithmic axis from values to places on the page.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis that holds `low` to `high`, and a margin of `margin` times either end.
    fn new(low: f64, high: f64, margin: f64, from: f64, to: f64) -> Self {
        Self { low: low / margin, high: high * margin, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value / self.low).ln() / (self.high / self.low).ln();
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// 1, 2 and 5 times the powers of ten, or the powers alone where those are many.
    fn ticks(&self) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let ticks = |factors: &[f64]| -> Vec<f64> {
            let powers = (first..=last).flat_map(|power| factors.iter().map(move |f| f * 10_f64.powi(power)));
            powers.filter(|tick| (self.low..=self.high).contains(tick)).collect()
        };
        let fine = ticks(&[1.0, 2.0, 5.0]);
        if fine.len() <= 12 { fine } else { ticks(&[1.0]) }
    }
}

/// The plot of a report. A series keeps its colour (class) and its mark; what is not positive has no place on it.
pub(crate) fn svg(report: &Report) -> String {
    let mut svg = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}: mutual information in nats \
         against length in tokens, both axes logarithmic; the numbers are in the table below\">\n",
        escape(&report.title)
    );
    match axes(report) {
        Some((x, y)) => {
            svg += &frame(report, &x, &y);
            for series in report.series() {
                svg += &lines(report, series, &x, &y);
            }
            for series in report.series() {
                svg += &points(report, series, &x, &y);
            }
        }
        None => {
            let (x, y) = (WIDTH / 2.0, HEIGHT / 2.0);
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">No estimate is positive.</text>");
        }
    }
    svg + "</svg>\n"
}

/// The legend: one entry a series, with its mark and line.
pub(crate) fn legend(report: &Report) -> String {
    let entry = |series: Series| {
        let line = "<path class=\"line\" d=\"M1 7H29\"/>";
        let mark = mark(series, 15.0, 7.0);
        format!(
            "<li class=\"{}\"><svg viewBox=\"0 0 30 14\" aria-hidden=\"true\">{line}{mark}</svg>{}</li>\n",
            class(series),
            label(series),
        )
    };
    format!("<ul class=\"legend\">\n{}</ul>\n", report.series().into_iter().map(entry).collect::<String>())
}

fn class(series: Series) -> &'static str {
    match series {
        Series::Truth => "truth",
        Series::Direct => "direct",
        Series::Corrected => "corrected",
        Series::Vclub => "vclub",
        Series::VclubLimit => "vclub-limit",
    }
}

fn label(series: Series) -> &'static str {
    match series {
        Series::Truth => "truth",
        Series::Direct => "direct estimate",
        Series::Corrected => "direct, n-gram corrected",
        Series::Vclub => "vCLUB estimate",
        Series::VclubLimit => "what vCLUB converges to",
    }
}

/// Axes that hold every positive point; `None` if there is none.
fn axes(report: &Report) -> Option<(Axis, Axis)> {
    let series = report.series().into_iter();
    let points: Vec<_> = series.flat_map(|series| report.points(series)).filter(|(_, e)| e.value > 0.0).collect();
    let lows = points.iter().map(|(_, e)| (e.value - e.error).max(e.value * SHOWN_PART));
    let highs = points.iter().map(|(_, e)| e.value + e.error);
    let (low, high) = (lows.reduce(f64::min)?, highs.reduce(f64::max)?);
    let lengths = || report.rows.iter().map(|row| row.estimates.length as f64);
    let (first, last) = (lengths().reduce(f64::min)?, lengths().reduce(f64::max)?);
    let x = Axis::new(first, last, 1.35, LEFT, WIDTH - RIGHT);
    let y = Axis::new(low, high, 1.2, HEIGHT - BOTTOM, TOP);
    Some((x, y))
}

/// Grid, axes, ticks, their labels.
fn frame(report: &Report, x: &Axis, y: &Axis) -> String {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut svg = String::new();
    for tick in y.ticks() {
        let at = y.place(tick);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
        let (tx, ty) = (LEFT - 8.0, at + 4.5);
        let _ = writeln!(svg, "<text x=\"{tx}\" y=\"{ty:.1}\" text-anchor=\"end\">{}</text>", short(tick));
    }
    let every = report.rows.len().div_ceil(MOST_LABELS);
    for row in report.rows.iter().step_by(every) {
        let length = row.estimates.length;
        let (at, ty) = (x.place(length as f64), bottom + 20.0);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>");
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{at:.1} {bottom}v5\"/>");
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{ty}\" text-anchor=\"middle\">{length}</text>");
    }
    let (middle, foot) = (f64::midpoint(LEFT, right), HEIGHT - 8.0);
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>");
    let _ =
        writeln!(svg, "<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">L, tokens in x and y together</text>");
    let _ = writeln!(svg, "<text x=\"4\" y=\"14\">I(x; y) in nats</text>");
    svg
}

/// What is known exactly as a line through its points; an estimate's fit as a line from end to end.
fn lines(report: &Report, series: Series, x: &Axis, y: &Axis) -> String {
    let exact = matches!(series, Series::Truth | Series::VclubLimit);
    let fit = report.fits.iter().find(|fit| fit.series == series).map(|fit| &fit.fit);
    let curve: Vec<(f64, f64)> = match fit {
        Some(fit) if !exact => fit_curve(report, fit, y),
        _ if exact => report.points(series).iter().map(|(length, e)| (*length, e.value)).collect(),
        _ => return String::new(),
    };
    let place = |(length, value): &(f64, f64)| format!("{:.1} {:.1}", x.place(*length), y.place(*value));
    let path: Vec<String> = curve.iter().filter(|(_, value)| *value > 0.0).map(place).collect();
    if path.is_empty() {
        return String::new();
    }
    let title = match fit {
        Some(fit) => escape(&format!("{}: fit {fit}", label(series))),
        None => label(series).to_owned(),
    };
    let class = class(series);
    format!("<g class=\"{class}\"><title>{title}</title><path class=\"line\" d=\"M{}\"/></g>\n", path.join("L"))
}

/// The part of the fit between the first and the last length that lies on the page.
fn fit_curve(report: &Report, fit: &Fit, y: &Axis) -> Vec<(f64, f64)> {
    let at = |length: usize| (length as f64, fit.at(length as f64));
    let lengths = report.rows.iter().map(|row| row.estimates.length);
    lengths.map(at).filter(|(_, value)| (y.low..=y.high).contains(value)).collect()
}

/// Marks with error bars, a little beside each other so that none hides another.
fn points(report: &Report, series: Series, x: &Axis, y: &Axis) -> String {
    let shift = match series {
        Series::Truth | Series::VclubLimit => return String::new(),
        Series::Direct => -5.0,
        Series::Corrected => 5.0,
        Series::Vclub => 0.0,
    };
    let point = |(length, estimate): &(f64, Estimate)| {
        let (at, place) = (x.place(*length) + shift, y.place(estimate.value));
        let low = (estimate.value - estimate.error).max(y.low);
        let (foot, head) = (y.place(low), y.place(estimate.value + estimate.error));
        format!(
            "<g class=\"point\"><title>{}, L = {length}: {estimate} nats</title>\
             <path class=\"bar\" d=\"M{at:.1} {foot:.1}V{head:.1}M{:.1} {head:.1}h6M{:.1} {foot:.1}h6\"/>{}\
             <circle class=\"hit\" cx=\"{at:.1}\" cy=\"{place:.1}\" r=\"11\"/></g>\n",
            label(series),
            at - 3.0,
            at - 3.0,
            mark(series, at, place),
        )
    };
    let shown = report.points(series);
    let shown = shown.iter().filter(|(_, estimate)| estimate.value > 0.0);
    format!("<g class=\"{}\">\n{}</g>\n", class(series), shown.map(point).collect::<String>())
}

/// Each estimator has a shape of its own, so that colour is not needed to tell them apart.
fn mark(series: Series, x: f64, y: f64) -> String {
    match series {
        Series::Truth | Series::VclubLimit => String::new(),
        Series::Direct => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"),
        Series::Corrected => {
            let (left, top) = (x - 4.0, y - 4.0);
            format!("<rect class=\"mark\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"8\" height=\"8\"/>")
        }
        Series::Vclub => {
            let top = y - 5.5;
            format!("<path class=\"mark\" d=\"M{x:.1} {top:.1}l5.2 9h-10.4z\"/>")
        }
    }
}

/// `0.05`, `2`, `5000`, without trailing zeros or rounding noise.
fn short(tick: f64) -> String {
    let text = format!("{tick:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
