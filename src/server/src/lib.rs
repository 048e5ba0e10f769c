//! The HTTP server: routes, admission, metrics.
