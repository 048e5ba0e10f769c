//! The frame of a chart: grid, axes, ticks and labels.

use crate::axis::Axis;
use crate::drawing::{Anchor, FONT_SIZE, Item, Shape, Style};
use crate::label::Label;
use crate::palette::Color;
use crate::text::{precise, without_trailing_zeros};

/// The least space between two labels of the x axis.
const LABEL_GAP: f64 = 8.0;

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
    pub(crate) number: fn(f64) -> Label,
}

impl Frame {
    /// Draws the axes, their ticks and the label of the x axis. Omits ticks of the x axis whose labels would overlap.
    pub(crate) fn draw(&self, x: &Axis, x_ticks: &[f64], y: &Axis, x_label: &str) -> Vec<Item> {
        let &Self { left, right, top, bottom, .. } = self;
        let line = |color, from, to| Item::Shape(Shape::line(from, to), Style::stroke(color, 1.0));
        let (mut items, mut free_from) = (Vec::new(), f64::NEG_INFINITY);
        for &tick in &y.ticks {
            let at = y.position(tick);
            items.push(line(Color::GRID, (left, at), (right, at)));
            items.push(Item::text((left - 8.0, at + 4.5), Anchor::End, (self.number)(tick)));
        }
        for &tick in x_ticks {
            let (at, label) = (x.position(tick), (self.number)(tick));
            let half = label.width(FONT_SIZE) / 2.0;
            if at - half < free_from {
                continue;
            }
            free_from = at + half + LABEL_GAP;
            if self.x_grid {
                items.push(line(Color::GRID, (at, top), (at, bottom)));
            }
            items.push(line(Color::SOFT, (at, bottom), (at, bottom + 5.0)));
            items.push(Item::text((at, bottom + self.tick_drop), Anchor::Middle, label));
        }
        items.push(line(Color::SOFT, (left, bottom), (right, bottom)));
        items.push(Item::text((f64::midpoint(left, right), bottom + self.label_drop), Anchor::Middle, x_label.into()));
        items
    }
}

/// Returns the label of a tick: a number with at most nine decimals, or a multiple of a power of ten if the number is
/// very large or very small.
pub(crate) fn tick_label(value: f64) -> Label {
    if value == 0.0 || (1e-4..1e6).contains(&value.abs()) {
        return precise(value).as_str().into();
    }
    let scientific = format!("{value:.3e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let factor = match without_trailing_zeros(digits.to_owned()).as_str() {
        "1" => String::new(),
        digits => format!("{digits}·"),
    };
    Label::from(format!("{factor}10").as_str()).raised(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_large_and_very_small_ticks_are_powers_of_ten() {
        let ticks = [0.0, 1e-4, 1024.0, 5.0 * 1e-7, 1e13];
        assert_eq!(ticks.map(|tick| tick_label(tick).to_string()), ["0", "0.0001", "1024", "5·10^-7", "10^13"]);
    }
}
