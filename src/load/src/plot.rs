//! Charts as SVG: lines with marks over a linear axis, up a linear or logarithmic one.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 46.0;

/// Colours that are told apart in print and by most eyes, on light and on dark.
const COLOURS: [&str; 4] = ["#3b7dd8", "#d9792b", "#4a9e5c", "#b0508f"];

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) label: String,
    /// Which colour.
    pub(crate) colour: usize,
    pub(crate) dashed: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) logarithmic: bool,
    pub(crate) series: Vec<Series>,
}

impl Chart {
    /// An `<svg>` element, readable on light and on dark.
    pub(crate) fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{y} against \
             {x}\" font-family=\"system-ui,sans-serif\" font-size=\"13\" fill=\"#808890\">\n",
            x = escape(&self.x),
            y = escape(&self.y),
        );
        let points = || self.series.iter().flat_map(|series| &series.points).filter(|(_, y)| self.shown(*y));
        let Some(most_x) = points().map(|point| point.0).reduce(f64::max) else { return svg + "</svg>\n" };
        let most_y = points().map(|point| point.1).fold(0.0, f64::max);
        let least_y = if self.logarithmic { points().map(|point| point.1).fold(f64::MAX, f64::min) } else { 0.0 };
        let x = Axis::linear(most_x, LEFT, WIDTH - RIGHT);
        let y = match self.logarithmic {
            true => Axis::logarithmic(least_y, most_y, HEIGHT - BOTTOM, TOP),
            false => Axis::linear(most_y, HEIGHT - BOTTOM, TOP),
        };
        self.frame(&mut svg, &x, &y);
        for (place, series) in self.series.iter().enumerate() {
            series.draw(&mut svg, place, |point| self.shown(point.1).then(|| (x.place(point.0), y.place(point.1))));
        }
        svg + "</svg>\n"
    }

    fn shown(&self, y: f64) -> bool {
        y.is_finite() && (y > 0.0 || !self.logarithmic)
    }

    fn frame(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in &y.ticks {
            let (at, label) = (y.place(*tick), short(*tick));
            let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#80808040\"/>");
            let _ =
                writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 8.0, at + 4.5);
        }
        for tick in &x.ticks {
            let (at, label) = (x.place(*tick), short(*tick));
            let _ = writeln!(svg, "<path d=\"M{at:.1} {bottom}v5\" stroke=\"#808890\"/>");
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 19.0);
        }
        let _ = writeln!(svg, "<path d=\"M{LEFT} {bottom}H{right}\" stroke=\"#808890\"/>");
        let middle = f64::midpoint(LEFT, right);
        let _ = writeln!(
            svg,
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 8.0,
            escape(&self.x)
        );
        let _ = writeln!(svg, "<text x=\"4\" y=\"14\">{}</text>", escape(&self.y));
    }
}

impl Series {
    /// The line, its marks, and its place in the legend.
    fn draw(&self, svg: &mut String, place: usize, at: impl Fn((f64, f64)) -> Option<(f64, f64)>) {
        let colour = COLOURS[self.colour % COLOURS.len()];
        let dash = if self.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let places: Vec<(f64, f64)> = self.points.iter().filter_map(|&point| at(point)).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let label = escape(&self.label);
        let _ = writeln!(svg, "<g><title>{label}</title>");
        if !path.is_empty() {
            let path = path.join("L");
            let _ = writeln!(svg, "<path d=\"M{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>");
        }
        for ((x, y), (value_x, value_y)) in places.iter().zip(self.points.iter().filter(|&&point| at(point).is_some()))
        {
            let (value_x, value_y) = (short(*value_x), short(*value_y));
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{label}, {value_x}: {value_y}</title></circle>"
            );
        }
        let width = (WIDTH - LEFT - RIGHT) / 4.0;
        let (x, y) = (LEFT + 90.0 + width * 0.9 * (place % 4) as f64, 14.0 + 16.0 * (place / 4) as f64);
        let _ = writeln!(svg, "<path d=\"M{x:.0} {}h22\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>", y - 4.0);
        let _ = writeln!(svg, "<text x=\"{:.0}\" y=\"{y}\">{label}</text></g>", x + 27.0);
    }
}

/// From values to places on the page.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// From 0 to a round number not below `most`.
    fn linear(most: f64, from: f64, to: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let power = 10f64.powf((most / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| most / step <= 5.0);
        let step = step.unwrap_or(most);
        let steps = (most / step).ceil();
        let ticks = (0..=steps as u32).map(|i| f64::from(i) * step).collect();
        Self { low: 0.0, high: steps * step, from, to, logarithmic: false, ticks }
    }

    /// A little more than `low` to `high`, with 1, 2 and 5 times the powers of ten.
    fn logarithmic(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, high) = (low / 1.2, high * 1.2);
        let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let ticks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power)));
        let ticks = ticks.filter(|tick| (low..=high).contains(tick)).collect();
        Self { low, high, from, to, logarithmic: true, ticks }
    }

    fn place(&self, value: f64) -> f64 {
        let part = match self.logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.from + part * (self.to - self.from)
    }
}

/// `0.05`, `2`, `5000`, without rounding noise.
pub(crate) fn short(value: f64) -> String {
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 1.0 {
        2
    } else {
        4
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Text as it may stand in HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_every_point_at_round_numbers() {
        let axis = Axis::linear(47.0, 0.0, 100.0);
        assert_eq!(axis.ticks, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!((axis.place(0.0), axis.place(25.0)), (0.0, 50.0));
        let axis = Axis::logarithmic(3.0, 150.0, 100.0, 0.0);
        assert_eq!(axis.ticks, [5.0, 10.0, 20.0, 50.0, 100.0]);
        assert!(axis.place(150.0) > 0.0 && axis.place(3.0) < 100.0);
        assert_eq!([0.05, 2.0, 1234.5, 0.0].map(short), ["0.05", "2", "1234", "0"]);
    }

    #[test]
    fn a_chart_has_a_mark_for_each_point_that_can_be_shown() {
        let series = Series {
            label: "p99 <b>".into(),
            colour: 0,
            dashed: true,
            points: vec![(1.0, 2.0), (2.0, 0.0), (4.0, 9.0)],
        };
        let mut chart = Chart { x: "load".into(), y: "ms".into(), logarithmic: true, series: vec![series] };
        assert_eq!(chart.svg().matches("<circle").count(), 2, "0 has no logarithm");
        assert!(chart.svg().contains("p99 &lt;b&gt;") && !chart.svg().contains("NaN"));
        chart.logarithmic = false;
        assert_eq!(chart.svg().matches("<circle").count(), 3);
        chart.series.clear();
        assert!(chart.svg().ends_with("</svg>\n"));
    }
}
