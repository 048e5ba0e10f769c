//! Load on a server.
