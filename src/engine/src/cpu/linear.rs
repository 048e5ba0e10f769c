//! `Linear`: a linear layer, and the sum of its output over ranks.

use super::compute::{ComputeMode, WriteMode};
use super::gemm::{GemmInput, multiply, partial_sums};
use super::math;
use super::packed_matrix::PackedMatrix;
use super::panel_matrix::{PANEL_WIDTH, PanelMatrix, PanelRow};
use crate::parallel::communicator::{RankCommunicator, RankLost};

/// Maximum number of values per term of an all-reduce, but at least one panel.
const REDUCE_VALUES: usize = 1 << 20;

/// A weight matrix and, in some models, a bias.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) weights: PackedMatrix,
    pub(super) bias: Option<Vec<PanelRow>>,
}

impl Linear {
    /// Computes `out (+)= x weights^T + bias` on this rank only.
    pub(super) fn apply(&self, compute: ComputeMode, x: &PanelMatrix, out: &mut PanelMatrix, write: WriteMode) {
        multiply(compute, x, &self.weights, out, write);
        if let Some(bias) = &self.bias {
            math::add_bias(out, bias);
        }
    }

    /// Adds the product, summed over ranks, and the bias to `out`. Each rank passes its columns of `x`; `None` if it
    /// has no columns.
    ///
    /// Ranks add the sum of each depth block in rank order, which is the order in which a single rank adds its own
    /// blocks.
    pub(super) fn add_across_ranks(
        &self,
        compute: ComputeMode,
        x: Option<&PanelMatrix>,
        out: &mut PanelMatrix,
        communicator: &mut RankCommunicator,
    ) -> Result<(), RankLost> {
        let Some(communicator) = communicator else {
            if let Some(x) = x {
                self.apply(compute, x, out, WriteMode::Add);
            }
            return Ok(());
        };
        let (rows, panels) = (out.rows(), out.panels());
        let x = x.map(|x| GemmInput::new(compute, x));
        let step = (REDUCE_VALUES / (rows.max(1) * PANEL_WIDTH)).max(1);
        for first in (0..panels).step_by(step) {
            let range = first..panels.min(first + step);
            let terms = match &x {
                Some(x) => partial_sums(compute, x, rows, &self.weights, range.clone()),
                None => Vec::new(),
            };
            communicator.all_reduce(out.values_mut(range), terms)?;
        }
        if let Some(bias) = &self.bias {
            math::add_bias(out, bias);
        }
        Ok(())
    }
}
