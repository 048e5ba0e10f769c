//! Charts of estimates on two logarithmic axes: marks with error bars, and curves.

use std::fmt::Write as _;

use crate::axis::Axis;
use crate::frame::{Frame, card};
use crate::mark::Mark;
use crate::text::{escape_quotes, precise};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 50.0;

/// The number of columns of a standalone chart's legend.
const LEGEND_COLUMNS: usize = 3;
const LEGEND_ROW: f64 = 22.0;

/// The lowest end of an error bar that the y axis must include, as a fraction of the bar's value. A longer bar may be
/// cut off at the axis.
const SHOWN_FRACTION: f64 = 0.4;

/// The maximum number of ticks at 1, 2 and 5 times powers of ten; with more, an axis shows only powers of ten.
const MAX_FINE_TICKS: usize = 12;

/// The maximum number of labels on an axis; more would overlap.
const MAX_LABELS: usize = 14;

/// An estimate with its error bar.
#[derive(Clone, Debug)]
pub struct Point {
    /// The position on the x axis.
    pub x: f64,
    /// The estimate.
    pub value: f64,
    /// The lower and upper ends of the error bar.
    pub bar: [f64; 2],
    /// The text that the mark shows on hover, without the unit.
    pub text: String,
}

/// Points with error bars, and a line.
#[derive(Clone, Debug)]
pub struct Curve {
    /// The CSS class, which gives the curve its color.
    pub class: &'static str,
    /// The name in the legend.
    pub label: String,
    /// The text that the line shows on hover.
    pub title: String,
    /// The points, shown with marks. Points that are not positive are not shown.
    pub points: Vec<Point>,
    /// The shape of the marks.
    pub mark: Mark,
    /// The horizontal shift of the marks, so that marks of different curves do not hide each other.
    pub shift: f64,
    /// The points of the line. Points off the y axis are omitted.
    pub line: Vec<(f64, f64)>,
}

/// A chart with two logarithmic axes.
#[derive(Clone, Debug)]
pub struct LogLogChart {
    /// The title, which a page shows above the chart.
    pub title: String,
    /// The label of the x axis.
    pub x: String,
    /// The label of the y axis.
    pub y: String,
    /// The unit of the estimates.
    pub unit: &'static str,
    /// The curves.
    pub curves: Vec<Curve>,
}

impl LogLogChart {
    /// Returns an `<svg>` element for a page with a [`style`](crate::style).
    pub fn svg(&self) -> String {
        self.draw("", HEIGHT, "", "")
    }

    /// Returns the chart as a standalone picture, with `style`, a card behind the chart and the legend below it.
    pub fn standalone(&self, style: &str) -> String {
        let height = HEIGHT + LEGEND_ROW * self.curves.len().div_ceil(LEGEND_COLUMNS) as f64 + 16.0;
        let column = (WIDTH - LEFT - RIGHT) / LEGEND_COLUMNS as f64;
        let mut legend = String::new();
        for (place, curve) in self.curves.iter().enumerate() {
            let x = LEFT + column * (place % LEGEND_COLUMNS) as f64;
            let y = HEIGHT + 8.0 + LEGEND_ROW * (place / LEGEND_COLUMNS) as f64;
            let (class, sample, label) = (curve.class, curve.sample(), escape_quotes(&curve.label));
            // Writing to a String cannot fail.
            let _ = writeln!(
                legend,
                "<g class=\"{class}\" transform=\"translate({x:.0} {y:.0})\">{sample}<text x=\"38\" y=\"12\">{label}</text></g>"
            );
        }
        self.draw(" xmlns=\"http://www.w3.org/2000/svg\"", height, &card(style, WIDTH, height), &legend)
    }

    /// Returns the legend as an HTML list with one entry per curve: its mark, line and label.
    pub fn legend(&self) -> String {
        let entry = |curve: &Curve| {
            format!(
                "<li class=\"{}\"><svg viewBox=\"0 0 30 14\" aria-hidden=\"true\">{}</svg>{}</li>\n",
                curve.class,
                curve.sample(),
                escape_quotes(&curve.label),
            )
        };
        format!("<ul class=\"legend\">\n{}</ul>\n", self.curves.iter().map(entry).collect::<String>())
    }

    /// Returns the chart's element, with `before` and `after` around its content.
    fn draw(&self, attributes: &str, height: f64, before: &str, after: &str) -> String {
        let (title, x_label, y_label) = (escape_quotes(&self.title), escape_quotes(&self.x), escape_quotes(&self.y));
        let mut svg = format!(
            "<svg class=\"plot\"{attributes} viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
             aria-label=\"{title}: {y_label} against {x_label}, both axes logarithmic\">\n{before}"
        );
        match self.axes() {
            Some((x, y)) => {
                FRAME.draw(&mut svg, &x, &self.x_ticks(&x), &y, &x_label);
                let _ = writeln!(svg, "<text x=\"4\" y=\"14\">{y_label}</text>");
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

    /// Returns axes that contain every positive point; `None` if no point is positive.
    fn axes(&self) -> Option<(Axis, Axis)> {
        let all = || self.curves.iter().flat_map(|curve| &curve.points);
        let positive = || all().filter(|point| point.value > 0.0);
        let low = positive().map(|point| point.bar[0].max(point.value * SHOWN_FRACTION)).reduce(f64::min)?;
        let high = positive().map(|point| point.bar[1]).reduce(f64::max)?;
        let first = all().map(|point| point.x).reduce(f64::min)?;
        let last = all().map(|point| point.x).reduce(f64::max)?;
        let x = Axis::logarithmic([first, last], 1.35, [FRAME.left, FRAME.right], MAX_FINE_TICKS);
        let y = Axis::logarithmic([low, high], 1.2, [FRAME.bottom, FRAME.top], MAX_FINE_TICKS);
        Some((x, y))
    }

    /// Returns the ticks of the x axis: the x values of all points, of every n-th point if there are many, or round
    /// numbers if there are very many.
    fn x_ticks(&self, x: &Axis) -> Vec<f64> {
        let mut places: Vec<f64> = self.curves.iter().flat_map(|curve| &curve.points).map(|point| point.x).collect();
        places.sort_unstable_by(f64::total_cmp);
        places.dedup();
        if places.len() > 4 * MAX_LABELS {
            return x.ticks.clone();
        }
        let every = places.len().div_ceil(MAX_LABELS);
        places.into_iter().step_by(every).collect()
    }
}

const FRAME: Frame = Frame {
    left: LEFT,
    right: WIDTH - RIGHT,
    top: TOP,
    bottom: HEIGHT - BOTTOM,
    x_grid: true,
    tick_drop: 20.0,
    label_drop: BOTTOM - 8.0,
    number: precise,
};

impl Curve {
    /// Returns the line and the mark of a legend entry, 30 wide and 14 high.
    fn sample(&self) -> String {
        format!("<path class=\"line\" d=\"M1 7H29\"/>{}", self.mark.draw(15.0, 7.0))
    }

    fn line(&self, x: &Axis, y: &Axis) -> String {
        let shown = self.line.iter().filter(|(_, value)| y.contains(*value));
        let path: Vec<String> =
            shown.map(|(at, value)| format!("{:.1} {:.1}", x.position(*at), y.position(*value))).collect();
        if path.is_empty() {
            return String::new();
        }
        let (class, title, path) = (self.class, escape_quotes(&self.title), path.join("L"));
        format!("<g class=\"{class}\"><title>{title}</title><path class=\"line\" d=\"M{path}\"/></g>\n")
    }

    fn marks(&self, x: &Axis, y: &Axis, unit: &str) -> String {
        if self.mark == Mark::None {
            return String::new();
        }
        let mut svg = format!("<g class=\"{}\">\n", self.class);
        let label = escape_quotes(&self.label);
        for Point { x: place, value, bar: [low, high], text } in self.points.iter().filter(|point| point.value > 0.0) {
            let (at, height) = (x.position(*place) + self.shift, y.position(*value));
            let (foot, head) = (y.position(low.max(y.low)), y.position(*high));
            let (left, mark, place) = (at - 3.0, self.mark.draw(at, height), precise(*place));
            let _ = writeln!(
                svg,
                "<g class=\"point\"><title>{label}, {place}: {text} {unit}</title>\
                 <path class=\"bar\" d=\"M{at:.1} {foot:.1}V{head:.1}M{left:.1} {head:.1}h6M{left:.1} {foot:.1}h6\"/>{mark}\
                 <circle class=\"hit\" cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"11\"/></g>"
            );
        }
        svg + "</g>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> LogLogChart {
        let point = |(i, &value): (usize, &f64)| Point {
            x: f64::from(1 << i),
            value,
            bar: [value - 0.5, value + 0.5],
            text: format!("{value:.1} ± 0.5"),
        };
        let curve = Curve {
            class: "first",
            label: "Ann's <estimate>".into(),
            title: "fit".into(),
            points: values.iter().enumerate().map(point).collect(),
            mark: Mark::Square,
            shift: 0.0,
            line: vec![(1.0, 1.0), (4.0, 1e9)],
        };
        LogLogChart { title: "t".into(), x: "L".into(), y: "I".into(), unit: "nats", curves: vec![curve] }
    }

    #[test]
    fn positive_points_have_marks_and_the_rest_have_none() {
        let svg = chart(&[1.0, -1.0, 4.0]).svg();
        assert_eq!((svg.matches("<rect").count(), svg.matches("class=\"bar\"").count()), (2, 2));
        assert!(svg.contains("<title>Ann&#39;s &lt;estimate&gt;, 4: 4.0 ± 0.5 nats</title>"), "{svg}");
        assert!(!svg.contains("NaN"));
        assert!(chart(&[-1.0]).svg().contains("No estimate is positive"));
    }

    #[test]
    fn a_standalone_chart_has_its_style_and_legend() {
        let svg = chart(&[1.0]).standalone(".first { --c: red; }\n");
        assert!(svg.contains("xmlns=") && svg.contains("<style>\n.first { --c: red; }\n</style>"), "{svg}");
        assert!(svg.contains("viewBox=\"0 0 860 518\"") && svg.contains("<text x=\"38\" y=\"12\">Ann&#39;s"), "{svg}");
    }
}
