//! Drawings: shapes and texts, from which `svg` and `pdf` make pictures.

use crate::label::Label;
use crate::palette::Color;

/// The font size of every text.
pub(crate) const FONT_SIZE: f64 = 13.0;

/// The opacity of a faint fill.
pub(crate) const FAINT: f64 = 0.16;

/// A position: to the right and down from the upper left corner.
pub(crate) type Position = (f64, f64);

/// A finished chart, or several, ready to be written as a picture.
///
/// ```
/// # use surprisal_chart::{Color, Line, LineChart};
/// # let line = Line::new(Color::SERIES[0], "completed", vec![(1.0, 12.5), (2.0, 24.0)]);
/// # let chart = LineChart { x: "clients".into(), y: "requests/s".into(), logarithmic: false, lines: vec![line] };
/// let drawing = chart.drawing();
/// assert!(drawing.svg().starts_with("<svg xmlns=") && drawing.pdf().starts_with(b"%PDF-"));
/// ```
#[derive(Clone, Debug)]
pub struct Drawing {
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// A sentence for those who cannot see the drawing.
    pub(crate) description: String,
    pub(crate) items: Vec<Item>,
}

impl Drawing {
    /// Returns one drawing of several, from top to bottom, with `gap` above, below and between them.
    pub(crate) fn stack(drawings: Vec<Self>, gap: f64) -> Self {
        let mut stack = Self { width: 0.0, height: gap, description: String::new(), items: Vec::new() };
        for drawing in drawings {
            stack.width = stack.width.max(drawing.width);
            stack.items.push(Item::Group { offset: (0.0, stack.height), title: None, items: drawing.items });
            stack.height += drawing.height + gap;
            if !stack.description.is_empty() {
                stack.description += "; ";
            }
            stack.description += &drawing.description;
        }
        stack
    }
}

/// A part of a drawing.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A shape and its colors.
    Shape(Shape, Style),
    /// A text.
    Text(Text),
    /// Items that are moved by `offset`, and that show `title` on hover.
    Group { offset: Position, title: Option<String>, items: Vec<Item> },
    /// An invisible disk that shows the title of its group on hover.
    HoverArea { center: Position, radius: f64 },
}

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// Open lines, each through its points.
    Lines(Vec<Vec<Position>>),
    /// A closed polygon.
    Polygon(Vec<Position>),
    Circle {
        center: Position,
        radius: f64,
    },
}

impl Shape {
    /// Returns a straight line.
    pub(crate) fn line(from: Position, to: Position) -> Self {
        Self::Lines(vec![vec![from, to]])
    }
}

/// The colors of a shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) fill: Option<Color>,
    pub(crate) stroke: Option<Stroke>,
    /// `true` if the shape is a mark, which changes its outline on hover.
    pub(crate) mark: bool,
    /// `true` if the fill lets most of what is behind it through.
    pub(crate) faint: bool,
}

impl Style {
    /// Returns the style of a line.
    pub(crate) fn stroke(color: Color, width: f64) -> Self {
        let stroke = Some(Stroke { color, width, dash: None });
        Self { fill: None, stroke, mark: false, faint: false }
    }

    /// Returns the style of a filled shape.
    pub(crate) fn fill(color: Color) -> Self {
        Self { fill: Some(color), stroke: None, mark: false, faint: false }
    }

    /// Returns this style with dashed lines; `None` for solid ones.
    pub(crate) fn dashed(mut self, dash: Option<[f64; 2]>) -> Self {
        if let Some(stroke) = &mut self.stroke {
            stroke.dash = dash;
        }
        self
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Stroke {
    pub(crate) color: Color,
    pub(crate) width: f64,
    /// The lengths of dashes and of the gaps between them.
    pub(crate) dash: Option<[f64; 2]>,
}

/// The part of a text that is at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Text {
    /// The position of the baseline.
    pub(crate) at: Position,
    pub(crate) anchor: Anchor,
    pub(crate) label: Label,
}

impl Item {
    /// Returns a text in the color of labels.
    pub(crate) fn text(at: Position, anchor: Anchor, label: Label) -> Self {
        Self::Text(Text { at, anchor, label })
    }
}
