//! Line charts with a linear x axis, and a linear or logarithmic y axis.

use std::fmt::Write as _;

use crate::axis::Axis;
use crate::frame::{Frame, card};
use crate::text::{escape, short};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;

/// The height of a row of the legend, which is between the y axis's label and the plot.
const LEGEND_ROW: f64 = 19.0;

/// The space above, below and between the charts of a stack.
const STACK_GAP: f64 = 8.0;

/// A line with a mark at each point.
#[derive(Clone, Debug)]
pub struct Line {
    /// The name in the legend.
    pub label: String,
    /// The CSS class, which gives the line its color.
    pub class: &'static str,
    /// `true` if the line is dashed.
    pub dashed: bool,
    /// The points `(x, y)`, in the order in which the line connects them.
    pub points: Vec<(f64, f64)>,
}

/// A chart of lines.
#[derive(Clone, Debug)]
pub struct LineChart {
    /// The label of the x axis.
    pub x: String,
    /// The label of the y axis.
    pub y: String,
    /// `true` if the y axis is logarithmic; then values that are not positive are not shown.
    pub logarithmic: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

impl LineChart {
    /// Returns an `<svg>` element for a page or picture with a [`style`](crate::style).
    pub fn svg(&self) -> String {
        let (x, y, height) = (escape(&self.x), escape(&self.y), self.height());
        let mut svg = format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{y} against {x}\">\n\
             <text x=\"4\" y=\"16\">{y}</text>\n"
        );
        match self.axes() {
            Some((x_axis, y_axis)) => {
                self.frame().draw(&mut svg, &x_axis, &x_axis.ticks, &y_axis, &x);
                self.draw_legend(&mut svg);
                for line in &self.lines {
                    let shown = line.points.iter().filter(|(_, y)| self.shows(*y));
                    line.draw(
                        &mut svg,
                        shown.map(|&(x, y)| ((x, y), (x_axis.position(x), y_axis.position(y)))).collect(),
                    );
                }
            }
            None => svg += "<text x=\"64\" y=\"80\">No data.</text>\n",
        }
        svg + "</svg>\n"
    }

    /// Returns a standalone picture of charts stacked vertically, with `style` and a card behind the charts.
    pub fn stack<'a>(charts: impl IntoIterator<Item = &'a LineChart>, style: &str) -> String {
        let (mut parts, mut height) = (String::new(), STACK_GAP);
        for chart in charts {
            let high = chart.height();
            let sized = format!("<svg y=\"{height}\" width=\"{WIDTH}\" height=\"{high}\" ");
            parts += &chart.svg().replacen("<svg ", &sized, 1);
            height += high + STACK_GAP;
        }
        let card = card(style, WIDTH, height);
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\">\n{card}{parts}</svg>\n")
    }

    /// Returns axes that contain every point that is shown; `None` if no point is shown.
    fn axes(&self) -> Option<(Axis, Axis)> {
        let points = || self.lines.iter().flat_map(|line| &line.points).filter(|(_, y)| self.shows(*y));
        let frame = self.frame();
        let most_x = points().map(|point| point.0).reduce(f64::max)?;
        let most_y = points().map(|point| point.1).fold(0.0, f64::max);
        let upwards = [frame.bottom, frame.top];
        let y = match self.logarithmic {
            true => {
                let least_y = points().map(|point| point.1).fold(f64::MAX, f64::min);
                Axis::logarithmic([least_y, most_y], 1.2, upwards, usize::MAX)
            }
            false => Axis::linear(most_y, upwards),
        };
        Some((Axis::linear(most_x, [frame.left, frame.right]), y))
    }

    fn frame(&self) -> Frame {
        let height = self.height();
        Frame {
            left: LEFT,
            right: WIDTH - RIGHT,
            top: height - HEIGHT + TOP,
            bottom: height - BOTTOM,
            x_grid: false,
            tick_drop: 19.0,
            label_drop: 38.0,
            number: short,
        }
    }

    fn height(&self) -> f64 {
        HEIGHT + LEGEND_ROW * self.lines.len().div_ceil(self.legend_columns()) as f64
    }

    /// Returns the number of columns of the legend, given its longest entry.
    fn legend_columns(&self) -> usize {
        let longest = self.lines.iter().map(|line| line.label.chars().count()).max().unwrap_or(0);
        ((WIDTH - LEFT - RIGHT) / (44.0 + 7.5 * longest as f64)).clamp(1.0, 6.0) as usize
    }

    fn draw_legend(&self, svg: &mut String) {
        let (columns, width) = (self.legend_columns(), (WIDTH - LEFT - RIGHT) / self.legend_columns() as f64);
        for (place, line) in self.lines.iter().enumerate() {
            let x = LEFT + width * (place % columns) as f64;
            let y = TOP + 6.0 + LEGEND_ROW * (place / columns) as f64;
            let (class, dash, label) = (line.class, line.dash(), escape(&line.label));
            let _ = writeln!(
                svg,
                "<g class=\"{class}\"><path class=\"line\"{dash} d=\"M{x:.0} {}h24\"/><text x=\"{:.0}\" y=\"{y}\">{label}</text></g>",
                y - 4.5,
                x + 30.0,
            );
        }
    }

    /// Returns `true` if the y axis can show a value.
    fn shows(&self, y: f64) -> bool {
        y.is_finite() && (y > 0.0 || !self.logarithmic)
    }
}

impl Line {
    fn dash(&self) -> &'static str {
        if self.dashed { " stroke-dasharray=\"5 4\"" } else { "" }
    }

    /// Draws the line and its marks, given each point and its position. A mark shows its values on hover.
    fn draw(&self, svg: &mut String, points: Vec<((f64, f64), (f64, f64))>) {
        let path: Vec<String> = points.iter().map(|(_, (x, y))| format!("{x:.1} {y:.1}")).collect();
        let (class, label) = (self.class, escape(&self.label));
        let _ = writeln!(svg, "<g class=\"{class}\"><title>{label}</title>");
        if !path.is_empty() {
            let _ = writeln!(svg, "<path class=\"line\"{} d=\"M{}\"/>", self.dash(), path.join("L"));
        }
        for ((value_x, value_y), (x, y)) in points {
            let (value_x, value_y) = (short(value_x), short(value_y));
            let title = format!("<title>{label}, {value_x}: {value_y}</title>");
            let _ = writeln!(svg, "<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\">{title}</circle>");
        }
        let _ = writeln!(svg, "</g>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_that_can_be_shown_has_a_mark() {
        let line = Line {
            label: "p99 <b>".into(),
            class: "first",
            dashed: true,
            points: vec![(1.0, 2.0), (2.0, 0.0), (4.0, 9.0)],
        };
        let mut chart = LineChart { x: "load".into(), y: "ms".into(), logarithmic: true, lines: vec![line] };
        assert_eq!(chart.svg().matches("<circle").count(), 2, "a logarithmic axis cannot show 0");
        assert!(chart.svg().contains("p99 &lt;b&gt;") && !chart.svg().contains("NaN"));
        chart.logarithmic = false;
        assert_eq!(chart.svg().matches("<circle").count(), 3);
        let one = chart.clone();
        chart.lines.clear();
        assert!(chart.svg().contains("No data"));
        // The longest entry sets the width of the legend's columns.
        chart.lines = (0..4).map(|_| one.lines[0].clone()).collect();
        assert_eq!(chart.height() - one.height(), 0.0);
        chart.lines.iter_mut().for_each(|line| line.label = "llamacpp, including queueing, p99".into());
        assert_eq!(chart.height() - one.height(), LEGEND_ROW);
    }
}
