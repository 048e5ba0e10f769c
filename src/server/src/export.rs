//! Spans of requests, sent to an OpenTelemetry collector by OTLP over HTTP.
//!
//! One span a request, with the trace, span and parent that its `traceparent` headers name, and the attributes of the
//! semantic conventions for HTTP servers (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>).

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor};

use crate::trace::Trace;

/// Where a collector is named, as OpenTelemetry's specification has it.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// A collector that cannot be sent to.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be exported: {0}")]
pub struct ExportError(#[from] opentelemetry_otlp::ExporterBuildError);

/// Sends spans in batches from a thread of its own; what is left is sent when a server ends, or when it is dropped.
#[derive(Debug)]
pub struct SpanExport {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

/// A request that was answered, or not.
pub(crate) struct RequestSpan<'a> {
    pub(crate) trace: Trace,
    pub(crate) method: &'a str,
    pub(crate) route: &'a str,
    pub(crate) status: u16,
    pub(crate) problem: Option<&'static str>,
    pub(crate) elapsed: Duration,
}

impl SpanExport {
    /// To the collector that the environment names (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT`), if
    /// it does; the specification's other variables (headers, timeout, service name, batches) hold too.
    ///
    /// # Errors
    /// [`ExportError`] if the endpoint is no address.
    pub fn from_env() -> Result<Option<Self>, ExportError> {
        let named = ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        if !named {
            return Ok(None);
        }
        Ok(Some(Self::with(SpanExporter::builder().with_http().build()?)))
    }

    /// To a collector's address, such as `http://localhost:4318/v1/traces`.
    ///
    /// # Errors
    /// [`ExportError`] if it is no address.
    pub fn to(endpoint: &str) -> Result<Self, ExportError> {
        Ok(Self::with(SpanExporter::builder().with_http().with_endpoint(endpoint).build()?))
    }

    fn with(exporter: SpanExporter) -> Self {
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("surprisal");
        }
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource.build());
        let scope = InstrumentationScope::builder("surprisal").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { processor, scope }
    }

    /// Sends what is left, and waits until it is sent. Blocks: not for a runtime's thread.
    pub(crate) fn flush(&self) {
        if let Err(error) = self.processor.force_flush() {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }

    /// Takes a span that ends now, unless its caller's trace is not sampled.
    pub(crate) fn end(&self, request: &RequestSpan<'_>) {
        let trace = request.trace;
        if !trace.is_sampled() {
            return;
        }
        let end_time = SystemTime::now();
        let mut attributes = vec![
            KeyValue::new("http.request.method", request.method.to_owned()),
            KeyValue::new("http.route", request.route.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(request.status)),
        ];
        attributes.extend(request.problem.map(|problem| KeyValue::new("error.type", problem)));
        let failed = request.status >= 500;
        self.processor.on_end(SpanData {
            span_context: SpanContext::new(
                TraceId::from(trace.trace),
                SpanId::from(trace.span),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: trace.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: trace.parent.is_some(),
            span_kind: SpanKind::Server,
            name: format!("{} {}", request.method, request.route).into(),
            start_time: end_time.checked_sub(request.elapsed).unwrap_or(end_time),
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if failed { Status::error(request.problem.unwrap_or("failed")) } else { Status::Unset },
            instrumentation_scope: self.scope.clone(),
        });
    }
}

impl Drop for SpanExport {
    fn drop(&mut self) {
        if let Err(error) = self.processor.shutdown() {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}
