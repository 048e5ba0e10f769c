//! Legends: for each curve a sample and a label, in columns.

use crate::drawing::{Anchor, FONT_SIZE, Item};
use crate::label::Label;

/// The size of a sample: a line with a mark.
pub(crate) const SAMPLE: (f64, f64) = (30.0, 14.0);

/// The height of a row.
const ROW: f64 = 20.0;

/// The space between a sample and its label, and the least space between columns.
const GAPS: [f64; 2] = [8.0, 20.0];

/// The factor by which another font may be wider than Helvetica.
const SLACK: f64 = 1.15;

/// An entry: the sample, drawn at the origin, the name, and the rest of its label.
pub(crate) struct Entry {
    pub(crate) sample: Vec<Item>,
    pub(crate) name: String,
    pub(crate) rest: Label,
}

/// Entries in as many columns as fit into a width.
pub(crate) struct Legend {
    entries: Vec<(Vec<Item>, Label)>,
    columns: usize,
    column_width: f64,
}

impl Legend {
    /// Lays out entries. The names of labels that are wider than `width` are cut off.
    pub(crate) fn new(entries: Vec<Entry>, width: f64) -> Self {
        let [label_gap, column_gap] = GAPS;
        let space = (width - SAMPLE.0 - label_gap) / SLACK;
        let label = |entry: Entry| (entry.sample, Label::named(&entry.name, &entry.rest, FONT_SIZE, space));
        let entries: Vec<(Vec<Item>, Label)> = entries.into_iter().map(label).collect();
        let longest = entries.iter().map(|(_, label)| label.width(FONT_SIZE)).fold(0.0, f64::max);
        let least = SAMPLE.0 + label_gap + SLACK * longest + column_gap;
        let columns = (((width + column_gap) / least) as usize).clamp(1, entries.len().max(1));
        Self { entries, columns, column_width: (width + column_gap) / columns as f64 }
    }

    pub(crate) fn height(&self) -> f64 {
        ROW * self.entries.len().div_ceil(self.columns) as f64
    }

    /// Draws the legend with its upper left corner at a position.
    pub(crate) fn draw(self, x: f64, y: f64) -> Vec<Item> {
        let mut items = Vec::new();
        for (index, (mut sample, label)) in self.entries.into_iter().enumerate() {
            let (column, row) = ((index % self.columns) as f64, (index / self.columns) as f64);
            sample.push(Item::text((SAMPLE.0 + GAPS[0], 12.0), Anchor::Start, label));
            items.push(Item::Group {
                offset: (x + self.column_width * column, y + ROW * row),
                title: None,
                items: sample,
            });
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legend(names: &[&str]) -> Legend {
        let entry = |name: &&str| Entry { sample: Vec::new(), name: (*name).to_owned(), rest: Label::from(": 2·L") };
        Legend::new(names.iter().map(entry).collect(), 780.0)
    }

    #[test]
    fn the_longest_entry_sets_the_columns() {
        assert_eq!(legend(&["a", "b", "c", "d", "e"]).height(), ROW);
        assert_eq!(legend(&["a", "b", "c", "a model with a rather long name, on the CPU"]).height(), 2.0 * ROW);
        let long = "x".repeat(300);
        let legend = legend(&[&long, "b"]);
        assert_eq!(legend.height(), 2.0 * ROW);
        assert!(legend.entries[0].1.width(FONT_SIZE) < 780.0 - SAMPLE.0);
    }
}
