//! Telemetry: metrics, log lines and traces.
//!
//! Start with `observe`, the middleware around every request. `metrics` has the server's counters and reads the
//! engine's.

#[cfg(feature = "otlp")]
pub(crate) mod export;
pub(crate) mod metrics;
pub(crate) mod observe;
pub(crate) mod trace;

use std::sync::Arc;

/// The metrics, and the exporter of spans. Clones share both.
#[derive(Clone)]
pub(crate) struct Telemetry {
    pub(crate) metrics: Arc<metrics::Metrics>,
    #[cfg(feature = "otlp")]
    pub(crate) spans: Option<Arc<export::SpanExport>>,
}

impl Telemetry {
    pub(crate) fn new(metrics: metrics::Metrics) -> Self {
        Self {
            metrics: Arc::new(metrics),
            #[cfg(feature = "otlp")]
            spans: None,
        }
    }

    /// Returns `true` if spans are exported.
    pub(crate) fn exports_spans(&self) -> bool {
        #[cfg(feature = "otlp")]
        return self.spans.is_some();
        #[cfg(not(feature = "otlp"))]
        false
    }
}
