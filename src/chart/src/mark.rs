//! Marks: the shapes of points in a chart.

use crate::drawing::{Item, Position, Shape, Stroke, Style};
use crate::palette::Color;

/// The shape of a point. Each series has a different shape, so that series can be told apart without color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No mark: the series is a line.
    None,
    /// A circle.
    Circle,
    /// A square.
    Square,
    /// A triangle that points up.
    Triangle,
}

impl Mark {
    /// Returns the mark in a color, centered at a position, with an outline that separates it from what is behind it.
    pub(crate) fn draw(self, (x, y): Position, color: Color) -> Option<Item> {
        let shape = match self {
            Self::None => return None,
            Self::Circle => Shape::Circle { center: (x, y), radius: 4.5 },
            Self::Square => {
                Shape::Polygon(vec![(x - 4.0, y - 4.0), (x + 4.0, y - 4.0), (x + 4.0, y + 4.0), (x - 4.0, y + 4.0)])
            }
            Self::Triangle => Shape::Polygon(vec![(x, y - 5.5), (x + 5.2, y + 3.5), (x - 5.2, y + 3.5)]),
        };
        let outline = Stroke { color: Color::CARD, width: 1.0, dash: None };
        Some(Item::Shape(shape, Style { stroke: Some(outline), mark: true, ..Style::fill(color) }))
    }
}
