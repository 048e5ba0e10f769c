//! `RequestContext`: the steps shared by all routes that do work.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::Response;
use serde::de::DeserializeOwned;

use super::gate::InFlight;
use crate::app::{App, TOKEN_BYTES};
use crate::limits::admission::Permit;
use crate::limits::client::Client;
use crate::problem::{self, Failure};
use crate::transport::{body, json};

/// The context of a request that passed the gate: the app that serves the request, and the client that sent it.
pub(super) struct RequestContext {
    pub(super) app: App,
    pub(super) client: Client,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) start: Instant,
}

impl FromRequestParts<App> for RequestContext {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let client = parts.extensions.get::<Client>().copied();
        let in_flight = parts.extensions.get::<Arc<InFlight>>().cloned();
        // The gate inserts both.
        let (Some(client), Some(in_flight)) = (client, in_flight) else { return Err(problem::internal()) };
        Ok(Self { app: app.clone(), client, in_flight, start: Instant::now() })
    }
}

impl RequestContext {
    /// Reads the body, parses it and prepares the request, off the reactor if the body is large.
    pub(super) async fn read<T: DeserializeOwned, R: Send + 'static>(
        &self,
        request: Request,
        prepare: impl FnOnce(&App, T, Client) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Failure> {
        let Self { app, client, in_flight, .. } = self;
        let client = *client;
        let bytes = body::read(app.config.max_body_bytes, &app.admission, client, request).await?;
        let length = bytes.len();
        app.offload(Arc::clone(in_flight), length, move |app| prepare(app, json::parse(&bytes)?, client)).await
    }

    /// Admits the request's tokens.
    pub(super) fn admit_tokens(&self, tokens: u32) -> Result<Permit, Failure> {
        self.app.admission.admit_tokens(self.client.account(), tokens)
    }

    /// Writes the response, off the reactor if it is large, and counts the request and its tokens as answered.
    pub(super) async fn respond(
        self,
        tokens: u32,
        write: impl FnOnce(&App) -> Result<Response, Failure> + Send + 'static,
    ) -> Result<Response, Failure> {
        let response = self.app.offload(self.in_flight, tokens as usize * TOKEN_BYTES, write).await?;
        self.app.telemetry.metrics.count_success(self.start.elapsed().as_secs_f64(), tokens);
        Ok(response)
    }
}
