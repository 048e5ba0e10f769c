//! Marks: the shapes of points in a chart.

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
    /// Returns the mark's element, centered at a position.
    pub(crate) fn draw(self, x: f64, y: f64) -> String {
        match self {
            Self::None => String::new(),
            Self::Circle => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"),
            Self::Square => {
                let (left, top) = (x - 4.0, y - 4.0);
                format!("<rect class=\"mark\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"8\" height=\"8\"/>")
            }
            Self::Triangle => {
                let top = y - 5.5;
                format!("<path class=\"mark\" d=\"M{x:.1} {top:.1}l5.2 9h-10.4z\"/>")
            }
        }
    }
}
