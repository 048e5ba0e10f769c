//! The gate before every route that does work. It identifies the client, and admits the request or rejects it unread.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use crate::app::App;
use crate::limits::admission::Permit;
use crate::limits::client::Client;
use crate::limits::drain::ActiveRequest;
use crate::limits::turns::JobSize;
use crate::problem::{self, Failure};
use crate::transport::body;
use crate::transport::exchange::HeadDefect;

/// A guard for a request in flight. A streamed response holds it until the client has read the response. While the
/// guard is held, the request counts against the limit, and shutdown waits for it.
pub(super) struct InFlight {
    _active: ActiveRequest,
    permit: Permit,
    deadline: Instant,
}

impl InFlight {
    /// Returns the account of the request's client.
    pub(super) fn account(&self) -> u64 {
        self.permit.account()
    }

    /// Returns the deadline of the whole request, including its response.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Runs a job of the request as [`App::offload`] does, and holds the guard until the job is done.
    pub(super) async fn offload<T: Send + 'static>(
        self: &Arc<Self>,
        app: &App,
        size: JobSize,
        job: impl FnOnce(&App) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        app.offload(Arc::clone(self), self.account(), size, job).await
    }
}

/// Rejects a request whose head has a defect that the HTTP parser tolerates.
pub(super) async fn check_head(request: Request, next: Next) -> Result<Response, Failure> {
    match request.extensions().get::<HeadDefect>() {
        Some(defect) => Err(problem::invalid_head(defect.reason())),
        None => Ok(next.run(request).await),
    }
}

/// Admits a request whose client may send work, unless the server is full or is shutting down. Shutdown does not
/// interrupt an admitted request.
pub(super) async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let (client, in_flight) = match enter(&app, request.headers()) {
        Ok(entered) => entered,
        Err(failure) => return Err(reject(request, failure).await),
    };
    request.extensions_mut().insert(client);
    // Work and streams that continue after this function returns also hold the guard.
    let in_flight = Arc::new(in_flight);
    let deadline = in_flight.deadline;
    request.extensions_mut().insert(Arc::clone(&in_flight));
    app.within_deadline(deadline, next.run(request)).await
}

fn enter(app: &App, headers: &HeaderMap) -> Result<(Client, InFlight), Failure> {
    let client = Client::identify(app.keys.authenticate(headers)?.as_ref(), headers, &app.config);
    let active = app.drain.enter().ok_or_else(problem::shutting_down)?;
    let permit = app.admission.admit_request(client.account())?;
    let deadline = Instant::now() + app.config.request_timeout();
    Ok((client, InFlight { _active: active, permit, deadline }))
}

/// Rejects a request before it is read if its client may not take a single token or query.
pub(super) async fn precheck(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    match app.admission.precheck(client.account()) {
        Ok(()) => Ok(next.run(request).await),
        Err(failure) => Err(reject(request, failure).await),
    }
}

/// Rejects a request without waiting for its body. Returns the failure.
async fn reject(request: Request, failure: Failure) -> Failure {
    body::discard_arrived(request).await;
    failure
}
