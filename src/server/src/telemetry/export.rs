//! Export of request spans to an OpenTelemetry collector, with OTLP over HTTP.
//!
//! Each request has one span. The span's parent is the span in the request's `traceparent` header, if any, and its own
//! id is in the response's `traceparent` header. The attributes follow the semantic conventions for HTTP servers
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>).

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor};

use crate::telemetry::trace::TraceContext;

/// The environment variables in OpenTelemetry's specification that name a collector.
const ENDPOINT_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The reason why an exporter cannot be created, such as an invalid collector address.
#[derive(Debug, thiserror::Error)]
#[error("cannot export spans: {0}")]
pub struct ExportError(#[from] opentelemetry_otlp::ExporterBuildError);

/// An exporter that sends spans in batches from its own thread. The remaining spans are sent when the server shuts
/// down, or when the exporter is dropped.
#[derive(Debug)]
pub struct SpanExport {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

/// The span of a request, whether the request was answered or not.
pub(crate) struct RequestSpan<'a> {
    pub(crate) trace: TraceContext,
    pub(crate) method: &'a str,
    pub(crate) route: &'a str,
    pub(crate) status: u16,
    pub(crate) problem: Option<&'static str>,
    pub(crate) elapsed: Duration,
}

impl SpanExport {
    /// Creates an exporter for the collector that the environment names (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`); returns `None` if the environment names no collector. The specification's other
    /// variables (headers, timeout, service name, batches) apply too.
    ///
    /// # Errors
    /// [`ExportError`] if the endpoint is not a valid address.
    pub fn from_env() -> Result<Option<Self>, ExportError> {
        let is_configured =
            ENDPOINT_VARIABLES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        if !is_configured {
            return Ok(None);
        }
        Ok(Some(Self::with(SpanExporter::builder().with_http().build()?)))
    }

    /// Creates an exporter for the collector at an address, such as `http://localhost:4318/v1/traces`.
    ///
    /// # Errors
    /// [`ExportError`] if the endpoint is not a valid address.
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

    /// Sends the remaining spans and waits until they are sent. Blocks, so it must not run on a thread of the async
    /// runtime.
    pub(crate) fn flush(&self) {
        if let Err(error) = self.processor.force_flush() {
            tracing::warn!(%error, "exporting the last spans failed");
        }
    }

    /// Exports a span that ends now, if its trace is sampled.
    pub(crate) fn record(&self, request: &RequestSpan<'_>) {
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
                TraceId::from(trace.trace_id),
                SpanId::from(trace.span_id),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: trace.parent_id.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: trace.parent_id.is_some(),
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
            tracing::warn!(%error, "exporting the last spans failed");
        }
    }
}
