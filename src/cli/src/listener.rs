//! The listening socket of a server, and an example request to it.

use tokio::net::TcpListener;

use crate::error::Error;

/// Listens on a port; 0 picks a free one.
pub(crate) async fn bind(host: &str, port: u16) -> Result<TcpListener, Error> {
    let failed = |source| Error::Bind { address: format!("{host}:{port}"), source };
    TcpListener::bind((host, port)).await.map_err(failed)
}

/// Returns the URL of a listening server.
pub(crate) fn base_url(scheme: &str, listener: &TcpListener) -> Result<String, Error> {
    Ok(format!("{scheme}://{}", listener.local_addr()?))
}

/// Returns a `curl` command that scores a target after a context.
pub(crate) fn curl_command(url: &str, context: &str, target: &str) -> String {
    let body = serde_json::json!({"queries": [{"context": context, "target": target}], "detail": "tokens"});
    format!("curl {url}/logprobs -H 'content-type: application/json' -d '{}'", body.to_string().replace('\'', "'\\''"))
}
