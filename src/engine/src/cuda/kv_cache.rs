//! `PagedCache`: the KV cache in device memory. Its size is known before it is allocated.

use surprisal_kernels::Address;

use super::batch_plan::Capacity;
use super::gemm::ROW_TILE;
use super::memory::{Arena, DeviceRegion};
use super::model_shape::ModelShape;
use crate::backend::{BLOCK_TOKENS, BackendError};

/// The KV cache of all layers, and the hidden states.
#[derive(Clone, Debug)]
pub(super) struct PagedCache {
    pub(super) layers: Vec<LayerCache>,
    /// `[blocks + rows][hidden]` bf16: the hidden state kept with each block, then those of the current batch's rows.
    pub(super) hidden: DeviceRegion,
}

/// A layer's keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerCache {
    /// `[blocks][BLOCK_TOKENS][kv_heads][head]`: bf16, or e4m3 if there are scales.
    pub(super) keys: DeviceRegion,
    pub(super) values: DeviceRegion,
    /// `[blocks][BLOCK_TOKENS][kv_heads]` f32, for keys and for values; `None` if the cache is bf16.
    pub(super) scales: Option<(DeviceRegion, DeviceRegion)>,
}

impl LayerCache {
    /// Returns the layer's regions, each with its size in bytes per slot.
    pub(super) fn regions(&self, shape: &ModelShape) -> impl Iterator<Item = (DeviceRegion, usize)> {
        let keys_and_values = [self.keys, self.values].map(|region| (region, shape.slot_bytes()));
        let scale = shape.slot_scale_bytes();
        keys_and_values
            .into_iter()
            .chain(self.scales.into_iter().flat_map(move |(keys, values)| [(keys, scale), (values, scale)]))
    }

    /// Returns the addresses for kernels: keys, values, key scales and value scales. The scales' addresses are null if
    /// the cache is bf16.
    pub(super) fn addresses(&self) -> Result<[Address; 4], BackendError> {
        let whole = |region: DeviceRegion| region.checked_address(region.bytes());
        let (key_scales, value_scales) = match self.scales {
            Some((keys, values)) => (whole(keys)?, whole(values)?),
            None => (Address::NULL, Address::NULL),
        };
        Ok([whole(self.keys)?, whole(self.values)?, key_scales, value_scales])
    }
}

impl PagedCache {
    pub(super) fn lay_out(arena: &mut Arena, shape: &ModelShape, capacity: &Capacity) -> Self {
        let slots = capacity.blocks * BLOCK_TOKENS;
        let rows = capacity.blocks + capacity.rows.next_multiple_of(ROW_TILE);
        let mut half = |bytes: usize| arena.take(slots * bytes);
        let layers = (0..shape.layers).map(|_| LayerCache {
            keys: half(shape.slot_bytes()),
            values: half(shape.slot_bytes()),
            scales: shape.fp8_cache.then(|| (half(shape.slot_scale_bytes()), half(shape.slot_scale_bytes()))),
        });
        Self { layers: layers.collect(), hidden: arena.take(rows * shape.hidden * 2) }
    }

    /// Returns the size of one block in bytes, in all layers, including its hidden state.
    pub(super) fn block_bytes(shape: &ModelShape) -> usize {
        2 * shape.layers * BLOCK_TOKENS * (shape.slot_bytes() + shape.slot_scale_bytes()) + shape.hidden * 2
    }
}
