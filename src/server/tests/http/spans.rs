//! Spans that the server exports to an OpenTelemetry collector.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message;
use serde_json::json;
use surprisal_server::{App, ServerConfig, SpanExport};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::support::{BOS, ByteCodec, LetterScorer};

type Sent = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

async fn take(State(sent): State<Sent>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    sent.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
    Vec::new()
}

/// Starts a collector. Returns the list of requests that it receives, and its address.
async fn collector() -> (Sent, String) {
    let sent = Sent::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&sent));
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (sent, url)
}

fn attribute(span: &Span, key: &str) -> Option<Value> {
    span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
}

#[tokio::test(flavor = "multi_thread")]
async fn the_span_of_each_sampled_request_is_exported() {
    let (sent, collector) = collector().await;
    let app = App::new(Arc::new(LetterScorer::new()), Arc::new(ByteCodec(Some(BOS))), ServerConfig::default());
    let app = app.with_span_export(SpanExport::to(&collector).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel();
    let running =
        tokio::spawn(surprisal_server::serve(listener, app, async move { stopped.await.unwrap_or_default() }));

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |target: &str| client.post(format!("{url}/logprobs")).json(&json!({"queries": [{"target": target}]}));
    let caller = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
    let named = post("abc").header("traceparent", format!("00-{caller}-01")).send().await.unwrap();
    let unrecorded = post("abc").header("traceparent", format!("00-{caller}-00")).send().await.unwrap();
    let begun = post("").send().await.unwrap();
    let answered = |reply: &reqwest::Response| reply.headers()["traceparent"].to_str().unwrap().to_owned();
    assert!(answered(&unrecorded).ends_with("-00"));
    let want = [answered(&named), answered(&begun)];
    drop((named, unrecorded, begun, client));
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();

    let requests = sent.lock().unwrap();
    let resource = requests[0].resource_spans[0].resource.as_ref().unwrap();
    let name = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
    assert_eq!(name.value.as_ref().unwrap().value, Some(Value::StringValue("surprisal".to_owned())));
    let spans = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.scope_spans);
    let spans: Vec<&Span> = spans.flat_map(|spans| &spans.spans).collect();
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let got: Vec<String> =
        spans.iter().map(|span| format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))).collect();
    assert_eq!(got, want);
    assert_eq!(
        (hex(&spans[0].parent_span_id), hex(&spans[1].parent_span_id)),
        (caller[33..].to_owned(), String::new())
    );
    let statuses: Vec<_> = spans.iter().map(|span| attribute(span, "http.response.status_code")).collect();
    assert_eq!(statuses, [200, 400].map(|status| Some(Value::IntValue(status))));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    for span in spans {
        assert_eq!((span.name.as_str(), span.kind), ("POST /logprobs", SpanKind::Server as i32));
        assert_eq!(attribute(span, "http.route"), Some(Value::StringValue("/logprobs".to_owned())));
        assert!(span.start_time_unix_nano < span.end_time_unix_nano && span.end_time_unix_nano <= now);
    }
}

#[test]
fn an_invalid_address_is_rejected() {
    let error = SpanExport::to("not an address").unwrap_err();
    assert!(error.to_string().starts_with("cannot export spans"), "{error}");
}
