//! Charts as SVG: logarithmic axes, intervals, curves, and titles that show on hover.

use std::fmt::Write as _;

use crate::report::escape::escape;
use crate::value::Estimate;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 50.0;

/// The legend of a chart that stands alone.
const LEGEND_COLUMNS: usize = 3;
const LEGEND_ROW: f64 = 22.0;

/// Colours, lines and text of charts, on light and on dark.
pub(crate) const STYLE: &str = include_str!("plot.css");

/// An error bar that reaches further down than this part of its value does not stretch the axis; it is cut there instead.
const SHOWN_PART: f64 = 0.4;

/// More labels than this on an axis run into each other.
const MOST_LABELS: usize = 14;

/// How a point is drawn. Each estimator has a shape of its own, so that colour is not needed to tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    None,
    Circle,
    Square,
    Triangle,
}

/// Points with their errors, and a line.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    /// The CSS class, which has the colour.
    pub(crate) class: &'static str,
    /// In the legend.
    pub(crate) label: String,
    /// What the line is, on hover.
    pub(crate) title: String,
    /// Shown with marks; those that are not positive have no place.
    pub(crate) points: Vec<(f64, Estimate)>,
    pub(crate) mark: Mark,
    /// How far the marks stand beside their place, so that none hides another.
    pub(crate) shift: f64,
    pub(crate) line: Vec<(f64, f64)>,
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) unit: &'static str,
    pub(crate) curves: Vec<Curve>,
}

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

    fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// 1, 2 and 5 times the powers of ten, or the powers alone where those are many.
    fn ticks(&self) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let ticks = |factors: &[f64]| -> Vec<f64> {
            let powers = (first..=last).flat_map(|power| factors.iter().map(move |f| f * 10_f64.powi(power)));
            powers.filter(|tick| self.holds(*tick)).collect()
        };
        let fine = ticks(&[1.0, 2.0, 5.0]);
        if fine.len() <= 12 { fine } else { ticks(&[1.0]) }
    }
}

impl Chart {
    /// The chart within a page that has its style.
    pub(crate) fn svg(&self) -> String {
        self.draw("", HEIGHT, "", "")
    }

    /// The chart as a file of its own: on a card, with its style, and its legend below.
    pub(crate) fn standalone(&self) -> String {
        let height = HEIGHT + LEGEND_ROW * self.curves.len().div_ceil(LEGEND_COLUMNS) as f64 + 16.0;
        let before = format!(
            "<style>\n{STYLE}</style>\n<rect class=\"card\" width=\"{WIDTH}\" height=\"{height}\" rx=\"10\"/>\n"
        );
        let entry = |(place, curve): (usize, &Curve)| {
            let column = (WIDTH - LEFT - RIGHT) / LEGEND_COLUMNS as f64;
            let x = LEFT + column * (place % LEGEND_COLUMNS) as f64;
            let y = HEIGHT + 8.0 + LEGEND_ROW * (place / LEGEND_COLUMNS) as f64;
            let (class, sample, label) = (curve.class, curve.sample(), escape(&curve.label));
            format!(
                "<g class=\"{class}\" transform=\"translate({x:.0} {y:.0})\">{sample}<text x=\"38\" y=\"12\">{label}</text></g>\n"
            )
        };
        let legend: String = self.curves.iter().enumerate().map(entry).collect();
        self.draw(" xmlns=\"http://www.w3.org/2000/svg\"", height, &before, &legend)
    }

    /// The chart's element, with so much before and after what is in it.
    fn draw(&self, attributes: &str, height: f64, before: &str, after: &str) -> String {
        let mut svg = format!(
            "<svg class=\"plot\"{attributes} viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}: {} against {}, \
             both axes logarithmic\">\n{before}",
            escape(&self.title),
            escape(&self.y),
            escape(&self.x),
        );
        match self.axes() {
            Some((x, y)) => {
                svg += &self.frame(&x, &y);
                svg.extend(self.curves.iter().map(|curve| curve.line(&x, &y)));
                svg.extend(self.curves.iter().map(|curve| curve.marks(&x, &y, self.unit)));
            }
            None => {
                let (x, y) = (WIDTH / 2.0, HEIGHT / 2.0);
                let _ =
                    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">No estimate is positive.</text>");
            }
        }
        svg + after + "</svg>\n"
    }

    /// The legend: one entry a curve, with its mark and line.
    pub(crate) fn legend(&self) -> String {
        let entry = |curve: &Curve| {
            format!(
                "<li class=\"{}\"><svg viewBox=\"0 0 30 14\" aria-hidden=\"true\">{}</svg>{}</li>\n",
                curve.class,
                curve.sample(),
                escape(&curve.label),
            )
        };
        format!("<ul class=\"legend\">\n{}</ul>\n", self.curves.iter().map(entry).collect::<String>())
    }

    /// Axes that hold every positive point; `None` if there is none.
    fn axes(&self) -> Option<(Axis, Axis)> {
        let all = || self.curves.iter().flat_map(|curve| &curve.points).filter(|(_, e)| e.value > 0.0);
        let lows = all().map(|(_, e)| bar(e)[0].max(e.value * SHOWN_PART));
        let highs = all().map(|(_, e)| bar(e)[1]);
        let (low, high) = (lows.reduce(f64::min)?, highs.reduce(f64::max)?);
        let places = || self.curves.iter().flat_map(|curve| &curve.points).map(|(x, _)| *x);
        let (first, last) = (places().reduce(f64::min)?, places().reduce(f64::max)?);
        let x = Axis::new(first, last, 1.35, LEFT, WIDTH - RIGHT);
        let y = Axis::new(low, high, 1.2, HEIGHT - BOTTOM, TOP);
        Some((x, y))
    }

    /// Grid, axes, ticks, their labels.
    fn frame(&self, x: &Axis, y: &Axis) -> String {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut svg = String::new();
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
            let (tx, ty) = (LEFT - 8.0, at + 4.5);
            let _ = writeln!(svg, "<text x=\"{tx}\" y=\"{ty:.1}\" text-anchor=\"end\">{}</text>", short(tick));
        }
        for tick in self.x_ticks(x) {
            let (at, ty) = (x.place(tick), bottom + 20.0);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>");
            let _ = writeln!(svg, "<path class=\"axis\" d=\"M{at:.1} {bottom}v5\"/>");
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{ty}\" text-anchor=\"middle\">{}</text>", short(tick));
        }
        let (middle, foot) = (f64::midpoint(LEFT, right), HEIGHT - 8.0);
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>");
        let x_label = escape(&self.x);
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">{x_label}</text>");
        let _ = writeln!(svg, "<text x=\"4\" y=\"14\">{}</text>", escape(&self.y));
        svg
    }

    /// The places of points; where those are very many, round numbers.
    fn x_ticks(&self, x: &Axis) -> Vec<f64> {
        let mut places: Vec<f64> = self.curves.iter().flat_map(|curve| &curve.points).map(|(x, _)| *x).collect();
        places.sort_unstable_by(f64::total_cmp);
        places.dedup();
        if places.len() > 4 * MOST_LABELS {
            return x.ticks();
        }
        let every = places.len().div_ceil(MOST_LABELS);
        places.into_iter().step_by(every).collect()
    }
}

impl Curve {
    /// Line and mark as the legend shows them, 30 wide and 14 high.
    fn sample(&self) -> String {
        format!("<path class=\"line\" d=\"M1 7H29\"/>{}", draw_mark(self.mark, 15.0, 7.0))
    }

    fn line(&self, x: &Axis, y: &Axis) -> String {
        let shown = self.line.iter().filter(|(_, value)| y.holds(*value));
        let path: Vec<String> =
            shown.map(|(at, value)| format!("{:.1} {:.1}", x.place(*at), y.place(*value))).collect();
        if path.is_empty() {
            return String::new();
        }
        let (class, title, path) = (self.class, escape(&self.title), path.join("L"));
        format!("<g class=\"{class}\"><title>{title}</title><path class=\"line\" d=\"M{path}\"/></g>\n")
    }

    fn marks(&self, x: &Axis, y: &Axis, unit: &str) -> String {
        if self.mark == Mark::None {
            return String::new();
        }
        let point = |(place, estimate): &(f64, Estimate)| {
            let (at, height) = (x.place(*place) + self.shift, y.place(estimate.value));
            let [low, high] = bar(estimate);
            let (foot, head) = (y.place(low.max(y.low)), y.place(high));
            let (left, mark) = (at - 3.0, draw_mark(self.mark, at, height));
            let label = escape(&self.label);
            format!(
                "<g class=\"point\"><title>{label}, {}: {estimate} {unit}</title>\
                 <path class=\"bar\" d=\"M{at:.1} {foot:.1}V{head:.1}M{left:.1} {head:.1}h6M{left:.1} {foot:.1}h6\"/>{mark}\
                 <circle class=\"hit\" cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"11\"/></g>\n",
                short(*place),
            )
        };
        let shown = self.points.iter().filter(|(_, estimate)| estimate.value > 0.0);
        format!("<g class=\"{}\">\n{}</g>\n", self.class, shown.map(point).collect::<String>())
    }
}

/// The ends of an error bar: the interval, or else one standard error.
fn bar(estimate: &Estimate) -> [f64; 2] {
    estimate.interval.unwrap_or([estimate.value - estimate.error, estimate.value + estimate.error])
}

fn draw_mark(mark: Mark, x: f64, y: f64) -> String {
    match mark {
        Mark::None => String::new(),
        Mark::Circle => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"),
        Mark::Square => {
            let (left, top) = (x - 4.0, y - 4.0);
            format!("<rect class=\"mark\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"8\" height=\"8\"/>")
        }
        Mark::Triangle => {
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
