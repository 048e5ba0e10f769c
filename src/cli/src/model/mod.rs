//! The served model: finding its files, and loading it into an engine on a device.
//!
//! Start with [`LoadedModel::load`](loaded::LoadedModel::load). `location.rs` finds the model's files, `device.rs`
//! starts the native engine on the CPU or, through `gpu.rs`, on GPUs, and `reload.rs` lets that engine reload its
//! model.

mod device;
#[cfg(feature = "cuda")]
mod gpu;
pub(crate) mod loaded;
pub(crate) mod location;
mod reload;
