//! `PanelMatrix`: activations in panels of 32 columns, so that tasks write disjoint contiguous memory.

use std::ops::Range;
use std::slice::ChunksMut;

/// Columns per panel.
pub(crate) const PANEL_WIDTH: usize = 32;

/// One row of a panel.
pub(crate) type PanelRow = [f32; PANEL_WIDTH];

/// Returns the number of panels that hold `columns` columns.
pub(crate) fn panels_for(columns: usize) -> usize {
    columns.div_ceil(PANEL_WIDTH)
}

/// A matrix of `rows` x (`panels` * 32) values, stored panel by panel.
#[derive(Clone, Debug, Default)]
pub(crate) struct PanelMatrix {
    rows: usize,
    panels: usize,
    /// The panels' rows; may be longer than needed after [`reshape`](PanelMatrix::reshape).
    data: Vec<PanelRow>,
}

impl PanelMatrix {
    pub(crate) fn zeros(rows: usize, panels: usize) -> Self {
        Self { rows, panels, data: vec![[0.0; PANEL_WIDTH]; rows * panels] }
    }

    /// Changes the size and leaves the values unspecified. Reuses allocated memory.
    pub(crate) fn reshape(&mut self, rows: usize, panels: usize) {
        (self.rows, self.panels) = (rows, panels);
        self.data.resize(self.data.len().max(rows * panels), [0.0; PANEL_WIDTH]);
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn panels(&self) -> usize {
        self.panels
    }

    /// Returns all rows of one panel.
    pub(crate) fn panel(&self, panel: usize) -> &[PanelRow] {
        &self.data[panel * self.rows..][..self.rows]
    }

    /// Returns all rows of all panels.
    pub(crate) fn all(&self) -> &[PanelRow] {
        &self.data[..self.rows * self.panels]
    }

    fn all_mut(&mut self) -> &mut [PanelRow] {
        &mut self.data[..self.rows * self.panels]
    }

    /// Returns the values of the given panels.
    pub(crate) fn values_mut(&mut self, panels: Range<usize>) -> &mut [f32] {
        self.data[panels.start * self.rows..panels.end * self.rows].as_flattened_mut()
    }

    pub(crate) fn into_values(mut self) -> Vec<f32> {
        self.data.truncate(self.rows * self.panels);
        self.data.into_flattened()
    }

    /// Returns the first `panels` panels and, separately, the rest.
    pub(crate) fn split_mut(&mut self, panels: usize) -> (&mut [PanelRow], &mut [PanelRow]) {
        let first = panels * self.rows;
        self.all_mut().split_at_mut(first)
    }

    pub(crate) fn panels_mut(&mut self) -> ChunksMut<'_, PanelRow> {
        let rows = self.rows.max(1);
        self.all_mut().chunks_mut(rows)
    }

    pub(crate) fn row(&self, panel: usize, row: usize) -> &PanelRow {
        &self.data[panel * self.rows + row]
    }

    pub(crate) fn row_mut(&mut self, panel: usize, row: usize) -> &mut PanelRow {
        &mut self.data[panel * self.rows + row]
    }

    /// Keeps the first `panels` panels.
    pub(crate) fn truncate(&mut self, panels: usize) {
        self.panels = self.panels.min(panels);
    }

    /// Returns a copy of the given rows, in the given order.
    pub(crate) fn gather(&self, rows: &[usize]) -> Self {
        let data = (0..self.panels()).flat_map(|p| rows.iter().map(move |&row| *self.row(p, row))).collect();
        Self { rows: rows.len(), panels: self.panels, data }
    }
}
