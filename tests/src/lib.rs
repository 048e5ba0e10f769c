//! Code shared by the end-to-end tests: random checkpoints, an independent float64 Llama, and a server on a free port.

pub mod faulty;
pub mod golden;
pub mod large;
pub mod reference;
pub mod server;
pub mod tiny;
pub mod trained;
