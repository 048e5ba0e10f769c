//! Benchmarks of kernels, of the whole model, and of the server.
