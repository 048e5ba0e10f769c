//! A server on a free port.
