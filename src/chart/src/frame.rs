//! The frame of a chart: grid, axes, ticks and labels.

use std::fmt::Write as _;

use crate::axis::Axis;

/// The edges of a chart's plot area, and the style of its axes.
pub(crate) struct Frame {
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
    /// `true` if the ticks of the x axis have grid lines.
    pub(crate) x_grid: bool,
    /// The distance from the bottom edge to the baseline of the tick labels.
    pub(crate) tick_drop: f64,
    /// The distance from the bottom edge to the baseline of the x axis's label.
    pub(crate) label_drop: f64,
    /// The function that formats the numbers at the ticks.
    pub(crate) number: fn(f64) -> String,
}

impl Frame {
    /// Draws the axes, their ticks and `x_label`, which must already be escaped.
    pub(crate) fn draw(&self, svg: &mut String, x: &Axis, x_ticks: &[f64], y: &Axis, x_label: &str) {
        let &Self { left, right, top, bottom, .. } = self;
        // Writing to a String cannot fail.
        for &tick in &y.ticks {
            let (at, label) = (y.position(tick), (self.number)(tick));
            let (text_x, text_y) = (left - 8.0, at + 4.5);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/>");
            let _ = writeln!(svg, "<text x=\"{text_x}\" y=\"{text_y:.1}\" text-anchor=\"end\">{label}</text>");
        }
        for &tick in x_ticks {
            let (at, label, text_y) = (x.position(tick), (self.number)(tick), bottom + self.tick_drop);
            if self.x_grid {
                let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {top}V{bottom}\"/>");
            }
            let _ = writeln!(svg, "<path class=\"axis\" d=\"M{at:.1} {bottom}v5\"/>");
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{text_y}\" text-anchor=\"middle\">{label}</text>");
        }
        let (middle, foot) = (f64::midpoint(left, right), bottom + self.label_drop);
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>");
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">{x_label}</text>");
    }
}

/// Returns the beginning of a standalone picture: its style, and the card (a rectangle) behind the chart.
pub(crate) fn card(style: &str, width: f64, height: f64) -> String {
    format!("<style>\n{style}</style>\n<rect class=\"card\" width=\"{width}\" height=\"{height}\" rx=\"10\"/>\n")
}
