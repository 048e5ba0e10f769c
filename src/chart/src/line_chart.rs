//! Line charts with a linear x axis, and a linear or logarithmic y axis.

use crate::axis::Axis;
use crate::drawing::{Anchor, Drawing, Item, Position, Shape, Style};
use crate::frame::Frame;
use crate::label::Label;
use crate::legend::{Entry, Legend, SAMPLE};
use crate::palette::Color;
use crate::text::short;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;

/// The space above, below and between the charts of a stack.
const STACK_GAP: f64 = 8.0;

/// A line with a mark at each point.
#[derive(Clone, Debug)]
pub struct Line {
    /// The name in the legend.
    pub label: String,
    /// The color.
    pub color: Color,
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
    /// Returns an `<svg>` element for a [`page`](crate::page), with the legend.
    pub fn svg(&self) -> String {
        self.drawing().embedded()
    }

    /// Returns one drawing of charts, stacked vertically.
    pub fn stack<'a>(charts: impl IntoIterator<Item = &'a LineChart>) -> Drawing {
        Drawing::stack(charts.into_iter().map(Self::drawing).collect(), STACK_GAP)
    }

    /// Returns the chart, with the legend between the y axis's label and the plot.
    pub fn drawing(&self) -> Drawing {
        let legend = Legend::new(self.lines.iter().map(Line::entry).collect(), WIDTH - LEFT - RIGHT);
        let height = HEIGHT + legend.height();
        let frame = frame(height);
        let mut items = vec![Item::text((4.0, 16.0), Anchor::Start, Label::from(self.y.as_str()))];
        match self.axes(&frame) {
            Some((x, y)) => {
                items.extend(frame.draw(&x, &x.ticks, &y, &self.x));
                items.extend(legend.draw(LEFT, TOP - 6.0));
                for line in &self.lines {
                    let shown = line.points.iter().filter(|(_, y)| self.shows(*y));
                    items.push(line.draw(shown.map(|&(at, value)| ((at, value), (x.position(at), y.position(value))))));
                }
            }
            None => items.push(Item::text((LEFT, 80.0), Anchor::Start, "No data.".into())),
        }
        Drawing { width: WIDTH, height, description: format!("{} against {}", self.y, self.x), items }
    }

    /// Returns axes that contain every point that is shown; `None` if no point is shown.
    fn axes(&self, frame: &Frame) -> Option<(Axis, Axis)> {
        let points = || self.lines.iter().flat_map(|line| &line.points).filter(|(_, y)| self.shows(*y));
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

    /// Returns `true` if the y axis can show a value.
    fn shows(&self, y: f64) -> bool {
        y.is_finite() && (y > 0.0 || !self.logarithmic)
    }
}

/// Returns the frame of a chart with a height, which includes its legend.
fn frame(height: f64) -> Frame {
    Frame {
        left: LEFT,
        right: WIDTH - RIGHT,
        top: height - HEIGHT + TOP,
        bottom: height - BOTTOM,
        x_grid: false,
        tick_drop: 19.0,
        label_drop: 38.0,
        number: |value| short(value).as_str().into(),
    }
}

impl Line {
    /// Creates a solid line.
    pub fn new(color: Color, label: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { label: label.into(), color, dashed: false, points }
    }

    fn style(&self) -> Style {
        Style::stroke(self.color, 2.0).dashed(self.dashed.then_some([5.0, 4.0]))
    }

    fn entry(&self) -> Entry {
        let (width, height) = SAMPLE;
        let line = Shape::line((1.0, height / 2.0), (width - 1.0, height / 2.0));
        Entry { sample: vec![Item::Shape(line, self.style())], name: self.label.clone(), rest: Label::default() }
    }

    /// Draws the line and its marks, given each point and its position. A mark shows its values on hover.
    fn draw(&self, points: impl Iterator<Item = ((f64, f64), Position)>) -> Item {
        let (mut line, mut marks) = (Vec::new(), Vec::new());
        for ((x, y), center) in points {
            line.push(center);
            let mark = Item::Shape(Shape::Circle { center, radius: 3.5 }, Style::fill(self.color));
            let title = Some(format!("{}, {}: {}", self.label, short(x), short(y)));
            marks.push(Item::Group { offset: (0.0, 0.0), title, items: vec![mark] });
        }
        let mut items = Vec::new();
        if !line.is_empty() {
            items.push(Item::Shape(Shape::Lines(vec![line]), self.style()));
        }
        items.append(&mut marks);
        Item::Group { offset: (0.0, 0.0), title: Some(self.label.clone()), items }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_that_can_be_shown_has_a_mark() {
        let points = vec![(1.0, 2.0), (2.0, 0.0), (4.0, 9.0)];
        let line = Line { dashed: true, ..Line::new(Color::SERIES[0], "p99 <b>", points) };
        let mut chart = LineChart { x: "load".into(), y: "ms".into(), logarithmic: true, lines: vec![line] };
        assert_eq!(chart.svg().matches("<circle").count(), 2, "a logarithmic axis cannot show 0");
        assert!(chart.svg().contains("p99 &lt;b&gt;") && !chart.svg().contains("NaN"));
        chart.logarithmic = false;
        assert_eq!(chart.svg().matches("<circle").count(), 3);
        chart.lines.clear();
        assert!(chart.svg().contains("No data"));
    }
}
