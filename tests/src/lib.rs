//! End-to-end tests over a real socket, the f64 reference, and golden fixtures.
