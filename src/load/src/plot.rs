//! Charts as SVG: lines with marks over a linear axis, up a linear or logarithmic one.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;

/// The legend stands between the title and the frame.
const LEGEND_ROW: f64 = 19.0;

/// Colours, lines and text of charts, on light and on dark.
pub(crate) const STYLE: &str = include_str!("plot.css");

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) label: String,
    /// The CSS class, which has the colour.
    pub(crate) class: &'static str,
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
    /// An `<svg>` element within a page or picture that has [`STYLE`].
    pub(crate) fn svg(&self) -> String {
        let (x, y, height) = (escape(&self.x), escape(&self.y), self.height());
        let mut svg = format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{y} against {x}\">\n\
             <text x=\"4\" y=\"16\">{y}</text>\n"
        );
        let points = || self.series.iter().flat_map(|series| &series.points).filter(|(_, y)| self.shown(*y));
        let Some(most_x) = points().map(|point| point.0).reduce(f64::max) else {
            return svg + "<text x=\"64\" y=\"80\">Nothing was answered.</text>\n</svg>\n";
        };
        let most_y = points().map(|point| point.1).fold(0.0, f64::max);
        let least_y = if self.logarithmic { points().map(|point| point.1).fold(f64::MAX, f64::min) } else { 0.0 };
        let (top, bottom) = (height - HEIGHT + TOP, height - BOTTOM);
        let x = Axis::linear(most_x, LEFT, WIDTH - RIGHT);
        let y = match self.logarithmic {
            true => Axis::logarithmic(least_y, most_y, bottom, top),
            false => Axis::linear(most_y, bottom, top),
        };
        self.frame(&mut svg, &x, &y);
        self.legend(&mut svg);
        for series in &self.series {
            series.draw(&mut svg, |point| self.shown(point.1).then(|| (x.place(point.0), y.place(point.1))));
        }
        svg + "</svg>\n"
    }

    /// How wide and high it is.
    pub(crate) fn size(&self) -> (f64, f64) {
        (WIDTH, self.height())
    }

    fn height(&self) -> f64 {
        HEIGHT + LEGEND_ROW * self.series.len().div_ceil(self.columns()) as f64
    }

    /// How many entries of the legend stand side by side, by the longest.
    fn columns(&self) -> usize {
        let longest = self.series.iter().map(|series| series.label.chars().count()).max().unwrap_or(0);
        ((WIDTH - LEFT - RIGHT) / (44.0 + 7.5 * longest as f64)).clamp(1.0, 6.0) as usize
    }

    fn legend(&self, svg: &mut String) {
        let (columns, width) = (self.columns(), (WIDTH - LEFT - RIGHT) / self.columns() as f64);
        for (place, series) in self.series.iter().enumerate() {
            let x = LEFT + width * (place % columns) as f64;
            let y = TOP + 6.0 + LEGEND_ROW * (place / columns) as f64;
            let (class, dash, label) = (series.class, series.dash(), escape(&series.label));
            let _ = writeln!(
                svg,
                "<g class=\"{class}\"><path class=\"line\"{dash} d=\"M{x:.0} {}h24\"/><text x=\"{:.0}\" y=\"{y}\">{label}</text></g>",
                y - 4.5,
                x + 30.0,
            );
        }
    }

    fn shown(&self, y: f64) -> bool {
        y.is_finite() && (y > 0.0 || !self.logarithmic)
    }

    fn frame(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, self.height() - BOTTOM);
        for tick in &y.ticks {
            let (at, label) = (y.place(*tick), short(*tick));
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
            let _ =
                writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 8.0, at + 4.5);
        }
        for tick in &x.ticks {
            let (at, label) = (x.place(*tick), short(*tick));
            let _ = writeln!(svg, "<path class=\"axis\" d=\"M{at:.1} {bottom}v5\"/>");
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 19.0);
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>");
        let (middle, foot, label) = (f64::midpoint(LEFT, right), bottom + 38.0, escape(&self.x));
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">{label}</text>");
    }
}

impl Series {
    fn dash(&self) -> &'static str {
        if self.dashed { " stroke-dasharray=\"5 4\"" } else { "" }
    }

    /// The line and its marks; each says its number on hover.
    fn draw(&self, svg: &mut String, at: impl Fn((f64, f64)) -> Option<(f64, f64)>) {
        let shown = self.points.iter().filter_map(|&point| Some((point, at(point)?)));
        let places: Vec<((f64, f64), (f64, f64))> = shown.collect();
        let path: Vec<String> = places.iter().map(|(_, (x, y))| format!("{x:.1} {y:.1}")).collect();
        let (class, label) = (self.class, escape(&self.label));
        let _ = writeln!(svg, "<g class=\"{class}\"><title>{label}</title>");
        if !path.is_empty() {
            let _ = writeln!(svg, "<path class=\"line\"{} d=\"M{}\"/>", self.dash(), path.join("L"));
        }
        for ((value_x, value_y), (x, y)) in places {
            let (value_x, value_y) = (short(value_x), short(value_y));
            let title = format!("<title>{label}, {value_x}: {value_y}</title>");
            let _ = writeln!(svg, "<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\">{title}</circle>");
        }
        let _ = writeln!(svg, "</g>");
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
            class: "first",
            dashed: true,
            points: vec![(1.0, 2.0), (2.0, 0.0), (4.0, 9.0)],
        };
        let mut chart = Chart { x: "load".into(), y: "ms".into(), logarithmic: true, series: vec![series] };
        assert_eq!(chart.svg().matches("<circle").count(), 2, "0 has no logarithm");
        assert!(chart.svg().contains("p99 &lt;b&gt;") && !chart.svg().contains("NaN"));
        chart.logarithmic = false;
        assert_eq!(chart.svg().matches("<circle").count(), 3);
        let one = chart.clone();
        chart.series.clear();
        assert!(chart.svg().contains("Nothing was answered"));
        // Entries of the legend are as far apart as the longest is wide.
        chart.series = (0..4).map(|_| one.series[0].clone()).collect();
        assert_eq!(chart.height() - one.height(), 0.0);
        chart.series.iter_mut().for_each(|series| series.label = "llamacpp, waited for, p99".into());
        assert_eq!(chart.height() - one.height(), LEGEND_ROW);
    }
}
