//! `RequestContext`: the steps shared by all routes that do work.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::gate::InFlight;
use crate::app::{App, is_small};
use crate::limits::admission::WorkPermit;
use crate::limits::client::Client;
use crate::limits::turns::JobSize;
use crate::problem::{self, Failure};
use crate::transport::{body, json};

/// The memory for compressing a response of unknown length with zstd, in bytes.
const ZSTD_COMPRESSOR_BYTES: usize = 4 << 20;

/// The memory for compressing a response with gzip, in bytes.
const GZIP_COMPRESSOR_BYTES: usize = 512 << 10;

/// The context of a request that passed the gate: the app that serves the request, and the client that sent it.
pub(super) struct RequestContext {
    pub(super) app: App,
    pub(super) client: Client,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) start: Instant,
    /// Memory for compressing the response, in bytes, if it is sent in parts.
    pub(super) compressor_bytes: usize,
}

impl FromRequestParts<App> for RequestContext {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let client = parts.extensions.get::<Client>().copied();
        let in_flight = parts.extensions.get::<Arc<InFlight>>().cloned();
        // The gate inserts both.
        let (Some(client), Some(in_flight)) = (client, in_flight) else { return Err(problem::internal()) };
        let compressor_bytes = compressor_bytes(&parts.headers);
        Ok(Self { app: app.clone(), client, in_flight, start: Instant::now(), compressor_bytes })
    }
}

impl RequestContext {
    /// Reads the body, parses it and prepares the request, off the reactor if the body is large. Rejects a body whose
    /// parsing would take too much memory.
    pub(super) async fn read<T: DeserializeOwned + Send + 'static, R: Send + 'static>(
        &self,
        request: Request,
        prepare: impl FnOnce(&App, T, Client) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Failure> {
        let client = self.client;
        let check = |_: &App, request, _| Ok((request, JobSize::default()));
        self.read_in_steps(request, check, move |app, request| prepare(app, request, client)).await
    }

    /// Reads a request as [`read`](Self::read) does, but in two steps: `check` is quick, and returns what the request
    /// adds to the size of the job. So even a small body is prepared off the reactor if it describes much work.
    pub(super) async fn read_in_steps<T: DeserializeOwned, C: Send + 'static, R: Send + 'static>(
        &self,
        request: Request,
        check: impl FnOnce(&App, T, Client) -> Result<(C, JobSize), Failure> + Send + 'static,
        prepare: impl FnOnce(&App, C) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Failure> {
        let Self { app, client, in_flight, .. } = self;
        let client = *client;
        let bytes = body::read(app.config.max_body_bytes, &app.admission, &app.turns, client, request).await?;
        let (memory, limit) = (bytes.parsing_memory(), app.config.working_bytes_limit());
        if memory > limit {
            return Err(problem::body_too_complex(memory, limit));
        }
        let size = bytes.job(app.codec.encoding_bytes());
        if is_small(size) {
            let (checked, more) = check(app, json::parse(&bytes)?, client)?;
            drop(bytes);
            return in_flight.offload(app, size + more, move |app| prepare(app, checked)).await;
        }
        let job = move |app: &App| prepare(app, check(app, json::parse(&bytes)?, client)?.0);
        in_flight.offload(app, size, job).await
    }

    /// Admits the request's queries and tokens.
    pub(super) fn admit_work(&self, queries: usize, tokens: u32) -> Result<WorkPermit, Failure> {
        self.app.admission.admit_work(self.client.account(), queries, tokens)
    }
}

/// Returns the memory for compressing a response as the client accepts it, in bytes.
fn compressor_bytes(headers: &HeaderMap) -> usize {
    let accepted = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let bytes = accepted.map(|value| match value.to_ascii_lowercase() {
        value if value.contains("zstd") => ZSTD_COMPRESSOR_BYTES,
        value if value.contains("gzip") => GZIP_COMPRESSOR_BYTES,
        _ => 0,
    });
    bytes.max().unwrap_or(0)
}
