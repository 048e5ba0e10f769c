//! The listening sockets of a server, and an example request to it.

use surprisal_server::Listeners;
use tokio::net::TcpListener;

use crate::error::Error;
use crate::security::Security;
use crate::settings::Settings;

/// The sockets of `surprisal serve`, and their URLs.
pub(crate) struct ServerSockets {
    pub(crate) listeners: Listeners,
    pub(crate) url: String,
    pub(crate) admin_url: Option<String>,
}

impl ServerSockets {
    /// Listens on the ports of the settings. Warns if other machines may connect and need no API key.
    pub(crate) async fn bind(settings: &Settings, security: &Security) -> Result<Self, Error> {
        let data = bind(&settings.host, settings.port).await?;
        let url = base_url(if security.tls.is_some() { "https" } else { "http" }, &data)?;
        let address = data.local_addr()?;
        if security.key_count == 0 && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "listening beyond this machine without API keys: everyone who can connect may send requests; set \
                 api_key_file, or restrict access to the network"
            );
        }
        let mut listeners = Listeners::new(data);
        if let Some(tls) = security.tls.clone() {
            listeners = listeners.with_tls(tls);
        }
        let mut admin_url = None;
        if let Some(port) = settings.admin_port {
            let admin = bind(&settings.host, port).await?;
            admin_url = Some(base_url("http", &admin)?);
            listeners = listeners.with_admin(admin);
        }
        Ok(Self { listeners, url, admin_url })
    }
}

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
