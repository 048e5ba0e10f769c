//! Curves of charts of estimates: points with error bars or a band, and a line.

use crate::axis::Axis;
use crate::drawing::{Item, Position, Shape, Style};
use crate::label::Label;
use crate::legend::{Entry, SAMPLE};
use crate::mark::Mark;
use crate::palette::Color;
use crate::text::precise;

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
    /// The position's name on hover; if empty, the number `x`.
    pub place: String,
}

/// Points, and a line.
#[derive(Clone, Debug)]
pub struct Curve {
    /// The color.
    pub color: Color,
    /// The name in the legend.
    pub label: String,
    /// The equation of the line, which the legend shows after the name.
    pub equation: Option<Label>,
    /// The text that the line shows on hover.
    pub title: String,
    /// The points, shown with marks. On a logarithmic axis, points that are not positive are not shown.
    pub points: Vec<Point>,
    /// The shape of the marks.
    pub mark: Mark,
    /// The horizontal shift of the marks, so that marks of different curves do not hide each other.
    pub shift: f64,
    /// `true` if a band joins the ends of the error bars, in place of bars.
    pub band: bool,
    /// The points of the line. Points off the y axis are omitted.
    pub line: Vec<(f64, f64)>,
    /// The width of the line.
    pub line_width: f64,
    /// `true` if the line is dashed.
    pub dashed: bool,
}

impl Curve {
    /// Creates a curve without points and without a line, for the caller to complete.
    pub fn new(color: Color, label: impl Into<String>) -> Self {
        let label = label.into();
        Self {
            color,
            equation: None,
            title: label.clone(),
            label,
            points: Vec::new(),
            mark: Mark::None,
            shift: 0.0,
            band: false,
            line: Vec::new(),
            line_width: 1.25,
            dashed: false,
        }
    }

    /// Returns the legend's entry.
    pub(crate) fn entry(&self) -> Entry {
        let (width, height) = SAMPLE;
        let line = Shape::line((1.0, height / 2.0), (width - 1.0, height / 2.0));
        let mut sample = vec![Item::Shape(line, self.line_style())];
        sample.extend(self.mark.draw((width / 2.0, height / 2.0), self.color));
        Entry { sample, name: self.label.clone(), rest: self.equation_suffix() }
    }

    /// Returns the equation after a colon, or nothing.
    pub(crate) fn equation_suffix(&self) -> Label {
        self.equation.as_ref().map_or_else(Label::default, |equation| Label::from(": ").append(equation))
    }

    fn line_style(&self) -> Style {
        Style::stroke(self.color, self.line_width).dashed(self.dashed.then_some([6.0, 4.0]))
    }

    /// Returns the points that the scale of the y axis can show.
    fn shown(&self, y: &Axis) -> impl DoubleEndedIterator<Item = &Point> {
        self.points.iter().filter(|point| y.can_show(point.value))
    }

    /// Draws the band, which is behind all lines and marks.
    pub(crate) fn draw_band(&self, x: &Axis, y: &Axis) -> Option<Item> {
        if !self.band {
            return None;
        }
        let end = |point: &Point, end: usize| (x.position(point.x), y.position(point.bar[end].max(y.low)));
        let upper = self.shown(y).map(|point| end(point, 1));
        let corners: Vec<Position> = upper.chain(self.shown(y).rev().map(|point| end(point, 0))).collect();
        let style = Style { faint: true, ..Style::fill(self.color) };
        (!corners.is_empty()).then_some(Item::Shape(Shape::Polygon(corners), style))
    }

    /// Draws the line, which shows its title on hover.
    pub(crate) fn draw_line(&self, x: &Axis, y: &Axis) -> Option<Item> {
        let shown = self.line.iter().filter(|(_, value)| y.contains(*value));
        let points: Vec<Position> = shown.map(|(at, value)| (x.position(*at), y.position(*value))).collect();
        if points.is_empty() {
            return None;
        }
        let line = Item::Shape(Shape::Lines(vec![points]), self.line_style());
        Some(Item::Group { offset: (0.0, 0.0), title: Some(self.title.clone()), items: vec![line] })
    }

    /// Draws the marks and their error bars. A mark shows its point, with this unit, on hover.
    pub(crate) fn draw_marks(&self, x: &Axis, y: &Axis, unit: &str) -> Vec<Item> {
        let mut items = Vec::new();
        for point in self.shown(y) {
            let Point { x: place, value, bar: [low, high], text, .. } = point;
            let at = (x.position(*place) + self.shift, y.position(*value));
            let Some(mark) = self.mark.draw(at, self.color) else { break };
            let mut group = Vec::new();
            if !self.band {
                let ([foot, head], (left, right)) =
                    ([low.max(y.low), *high].map(|end| y.position(end)), (at.0 - 3.0, at.0 + 3.0));
                let ends = [[(at.0, foot), (at.0, head)], [(left, head), (right, head)], [(left, foot), (right, foot)]];
                let bar = Shape::Lines(ends.map(Vec::from).to_vec());
                group.push(Item::Shape(bar, Style::stroke(self.color, 1.75)));
            }
            group.extend([mark, Item::HoverArea { center: at, radius: 11.0 }]);
            let place = if point.place.is_empty() { precise(*place) } else { point.place.clone() };
            let title = format!("{}, {place}: {text} {unit}", self.label);
            items.push(Item::Group { offset: (0.0, 0.0), title: Some(title), items: group });
        }
        items
    }
}
