//! CORS: the pages that may send requests from a browser.

use std::sync::Arc;

use reqwest::Method;
use surprisal_server::{ApiKeys, ServerConfig};

use crate::support::{BOS, LetterScorer, Server};

#[tokio::test]
async fn only_pages_of_listed_origins_may_send_requests() {
    let cors_origins = vec!["https://lab.example".to_owned()];
    let config = ServerConfig { cors_origins, ..ServerConfig::default() };
    let keys = ApiKeys::parse("key");
    let open = Server::with_scorer(Arc::new(LetterScorer::new()), config, Some(BOS), keys).await;
    let closed = Server::start().await;
    for (server, origin, allowed) in [
        (&open, "https://lab.example", Some("https://lab.example")),
        (&open, "https://elsewhere.example", None),
        (&closed, "https://lab.example", None),
    ] {
        // A browser sends a preflight request first, without the key.
        let preflight =
            server.client.request(Method::OPTIONS, format!("{}/logprobs", server.url)).header("origin", origin);
        let preflight = preflight.header("access-control-request-method", "POST").send().await.unwrap();
        let sent =
            server.client.get(format!("{}/v1/models", server.url)).header("origin", origin).send().await.unwrap();
        for answer in [preflight, sent] {
            let found = answer.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap());
            assert_eq!(found, allowed, "{origin}: {answer:?}");
        }
    }
}

#[test]
fn invalid_origins_are_found() {
    let wrong = |origin: &str| {
        let config = ServerConfig { cors_origins: vec![origin.to_owned()], ..ServerConfig::default() };
        config.invalid_origin().is_some()
    };
    for right in ["*", "https://lab.example", "http://localhost:3000"] {
        assert!(!wrong(right), "{right}");
    }
    for invalid in ["", "lab.example", "https://", "https://lab.example/", "ftp://lab.example", "https://a b"] {
        assert!(wrong(invalid), "{invalid}");
    }
}
