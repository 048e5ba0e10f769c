//! The model that is served: found, loaded, and run by an engine on a device.
//!
//! Start with [`LoadedModel::load`](loaded::LoadedModel::load). `location.rs` finds the model's files, `device.rs` starts the native
//! engine on the CPU or, through `gpu.rs`, on GPUs, and `reload.rs` gives that engine the means to load its model again.

mod device;
#[cfg(feature = "cuda")]
mod gpu;
pub(crate) mod loaded;
pub(crate) mod location;
mod reload;
