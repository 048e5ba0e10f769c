//! Charts of estimates over a logarithmic x axis: marks with error bars, bands, and curves.

use crate::axis::Axis;
use crate::curve::{Curve, Point};
use crate::drawing::{Anchor, Drawing, Item};
use crate::frame::{Frame, tick_label};
use crate::label::Label;
use crate::legend::{Legend, SAMPLE};
use crate::svg::icon;
use crate::text::escape_quotes;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 50.0;

/// The space above and below a picture's legend.
const LEGEND_GAP: f64 = 8.0;

/// The lowest end of an error bar that the y axis must include, as a fraction of the bar's value. A longer bar may be
/// cut off at the axis.
const SHOWN_FRACTION: f64 = 0.4;

/// The maximum number of ticks at 1, 2 and 5 times powers of ten; with more, an axis shows only powers of ten.
const MAX_FINE_TICKS: usize = 12;

/// The maximum number of ticks at the points.
const MAX_POINT_TICKS: usize = 56;

/// The longest side of an error bar that a linear y axis must include, as a multiple of the median side of its curve.
const SHOWN_SIDES: f64 = 3.0;

/// The scale of a chart's y axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Logarithmic; values that are not positive are not shown.
    #[default]
    Logarithmic,
    /// Linear, over the range of the values. Error bars that are much longer than the others of their curve may be cut
    /// off.
    Linear,
}

/// A chart with a logarithmic x axis.
#[derive(Clone, Debug)]
pub struct EstimateChart {
    /// The title, which a page shows above the chart.
    pub title: String,
    /// The label of the x axis.
    pub x: String,
    /// The label of the y axis.
    pub y: String,
    /// The unit of the estimates.
    pub unit: &'static str,
    /// The scale of the y axis.
    pub scale: Scale,
    /// The curves.
    pub curves: Vec<Curve>,
}

impl EstimateChart {
    /// Returns an `<svg>` element for a [`page`](crate::page), without a legend.
    pub fn svg(&self) -> String {
        self.plot().embedded()
    }

    /// Returns the chart with its legend below it.
    pub fn drawing(&self) -> Drawing {
        let mut drawing = self.plot();
        let legend = Legend::new(self.curves.iter().map(Curve::entry).collect(), WIDTH - LEFT - RIGHT);
        drawing.height += legend.height() + 2.0 * LEGEND_GAP;
        drawing.items.extend(legend.draw(LEFT, HEIGHT + LEGEND_GAP));
        drawing
    }

    /// Returns the legend as an HTML list with one entry per curve: its mark, line, name and equation.
    pub fn legend(&self) -> String {
        let entry = |curve: &Curve| {
            let icon = icon(&curve.entry().sample, SAMPLE.0, SAMPLE.1);
            format!("<li>{icon}{}{}</li>\n", escape_quotes(&curve.label), curve.equation_suffix().html())
        };
        format!("<ul class=\"legend\">\n{}</ul>\n", self.curves.iter().map(entry).collect::<String>())
    }

    /// Returns the chart without its legend.
    fn plot(&self) -> Drawing {
        let mut items = Vec::new();
        match self.axes() {
            Some((x, y)) => {
                items.extend(FRAME.draw(&x, &self.x_ticks(&x), &y, &self.x));
                items.push(Item::text((4.0, 14.0), Anchor::Start, Label::from(self.y.as_str())));
                items.extend(self.curves.iter().filter_map(|curve| curve.draw_band(&x, &y)));
                items.extend(self.curves.iter().filter_map(|curve| curve.draw_line(&x, &y)));
                items.extend(self.curves.iter().flat_map(|curve| curve.draw_marks(&x, &y, self.unit)));
            }
            None => {
                let text =
                    if self.scale == Scale::Linear { "No estimates." } else { "No estimate is positive." }.into();
                items.push(Item::text((WIDTH / 2.0, HEIGHT / 2.0), Anchor::Middle, text));
            }
        }
        let axes = match self.scale {
            Scale::Logarithmic => "both axes logarithmic",
            Scale::Linear => "x axis logarithmic",
        };
        let description = format!("{}: {} against {}, {axes}", self.title, self.y, self.x);
        Drawing { width: WIDTH, height: HEIGHT, description, items }
    }

    /// Returns axes that contain every point that the scale can show; `None` if there is none.
    fn axes(&self) -> Option<(Axis, Axis)> {
        let all = || self.curves.iter().flat_map(|curve| &curve.points);
        let first = all().map(|point| point.x).reduce(f64::min)?;
        let last = all().map(|point| point.x).reduce(f64::max)?;
        let x = Axis::logarithmic([first, last], 1.35, [FRAME.left, FRAME.right], MAX_FINE_TICKS);
        let upwards = [FRAME.bottom, FRAME.top];
        let y = match self.scale {
            Scale::Logarithmic => {
                let positive = || all().filter(|point| point.value > 0.0);
                let low = positive().map(|point| point.bar[0].max(point.value * SHOWN_FRACTION)).reduce(f64::min)?;
                let high = positive().map(|point| point.bar[1]).reduce(f64::max)?;
                Axis::logarithmic([low, high], 1.2, upwards, MAX_FINE_TICKS)
            }
            Scale::Linear => {
                let ends = || self.curves.iter().flat_map(|curve| shown_bars(&curve.points));
                let low = ends().map(|[low, _]| low).reduce(f64::min)?;
                let high = ends().map(|[_, high]| high).reduce(f64::max)?;
                Axis::linear_range([low, high], upwards)
            }
        };
        Some((x, y))
    }

    /// Returns the ticks of the x axis: the x values of all points, or round numbers if there are very many or if some
    /// are not whole numbers.
    fn x_ticks(&self, x: &Axis) -> Vec<f64> {
        let mut places: Vec<f64> = self.curves.iter().flat_map(|curve| &curve.points).map(|point| point.x).collect();
        places.sort_unstable_by(f64::total_cmp);
        places.dedup();
        let are_names = places.len() <= MAX_POINT_TICKS && places.iter().all(|place| place.fract() == 0.0);
        if are_names { places } else { x.ticks.clone() }
    }
}

/// Returns the ends of the error bars that a linear axis must include.
fn shown_bars(points: &[Point]) -> Vec<[f64; 2]> {
    let sides = |point: &Point| [point.value - point.bar[0], point.bar[1] - point.value];
    let mut all: Vec<f64> = points.iter().flat_map(sides).filter(|side| side.is_finite()).collect();
    all.sort_unstable_by(f64::total_cmp);
    let longest = all.get(all.len() / 2).map_or(0.0, |median| SHOWN_SIDES * median);
    let finite = points.iter().filter(|point| point.value.is_finite());
    let shown = |point: &Point| {
        let [below, above] = sides(point).map(|side| side.min(longest));
        [point.value - below, point.value + above]
    };
    finite.map(shown).collect()
}

const FRAME: Frame = Frame {
    left: LEFT,
    right: WIDTH - RIGHT,
    top: TOP,
    bottom: HEIGHT - BOTTOM,
    x_grid: true,
    tick_drop: 20.0,
    label_drop: BOTTOM - 8.0,
    number: tick_label,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::Point;
    use crate::mark::Mark;
    use crate::palette::Color;

    fn chart(values: &[f64]) -> EstimateChart {
        let point = |(i, &value): (usize, &f64)| Point {
            x: f64::from(1 << i),
            value,
            bar: [value - 0.5, value + 0.5],
            text: format!("{value:.1} ± 0.5"),
            place: String::new(),
        };
        let curve = Curve {
            equation: Some(Label::from("2.00·L").raised("0.5")),
            points: values.iter().enumerate().map(point).collect(),
            mark: Mark::Square,
            line: vec![(1.0, 1.0), (4.0, 1e9)],
            ..Curve::new(Color::SERIES[0], "Ann's <estimate>")
        };
        let scale = Scale::Logarithmic;
        EstimateChart { title: "t".into(), x: "L".into(), y: "I".into(), unit: "nats", scale, curves: vec![curve] }
    }

    #[test]
    fn positive_points_have_marks_and_the_rest_have_none() {
        let svg = chart(&[1.0, -1.0, 4.0]).svg();
        assert_eq!((svg.matches("class=\"mark\"").count(), svg.matches("stroke-width=\"1.75\"").count()), (2, 2));
        assert!(svg.contains("<title>Ann&#39;s &lt;estimate&gt;, 4: 4.0 ± 0.5 nats</title>"), "{svg}");
        assert!(!svg.contains("NaN"));
        assert!(chart(&[-1.0]).svg().contains("No estimate is positive"));
    }

    #[test]
    fn legends_show_equations_with_superscripts() {
        let chart = chart(&[1.0]);
        assert!(chart.legend().contains("Ann&#39;s &lt;estimate&gt;: 2.00·L<sup>0.5</sup></li>"));
        let svg = chart.drawing().svg();
        assert!(svg.contains("&lt;estimate&gt;: 2.00·L<tspan dy=\"-4.7\" font-size=\"9.4\">0.5</tspan>"), "{svg}");
        assert!(svg.contains("viewBox=\"0 0 860 516\""), "{svg}");
    }

    #[test]
    fn a_band_replaces_the_error_bars() {
        let mut chart = chart(&[1.0, 4.0]);
        chart.curves[0].band = true;
        let svg = chart.svg();
        assert_eq!((svg.matches("fill-opacity").count(), svg.matches("stroke-width=\"1.75\"").count()), (1, 0));
    }

    #[test]
    fn a_linear_axis_shows_all_points_and_cuts_off_long_bars() {
        let mut chart = chart(&[1.0, -1.0, 4.0]);
        chart.scale = Scale::Linear;
        let svg = chart.svg();
        assert_eq!(svg.matches("class=\"mark\"").count(), 3);
        assert!(svg.contains(">0</text>") && svg.contains(">-2</text>") && !svg.contains("NaN"), "{svg}");
        chart.curves[0].points[0].bar = [-1000.0, 1000.0];
        let [below, above] = shown_bars(&chart.curves[0].points)[0];
        assert_eq!([below, above], [1.0 - 1.5, 1.0 + 1.5]);
        chart.curves[0].points.clear();
        assert!(chart.svg().contains("No estimates."));
    }
}
