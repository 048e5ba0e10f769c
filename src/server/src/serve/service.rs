//! `Service`: passes a connection's requests to the routes, and records how far each exchange is.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, Response, header};
use futures_util::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::service::TowerToHyperService;

use crate::limits::admission::ResponsePermit;
use crate::limits::config::ServerConfig;
use crate::transport::exchange::Exchange;
use crate::transport::pace::Pace;

/// The service of one connection.
pub(super) struct Service {
    routes: TowerToHyperService<Router>,
    exchange: Arc<Exchange>,
    config: Arc<ServerConfig>,
}

impl Service {
    pub(super) fn new(routes: Router, exchange: Arc<Exchange>, config: Arc<ServerConfig>) -> Self {
        Self { routes: TowerToHyperService::new(routes), exchange, config }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let exchange = Arc::clone(&self.exchange);
        let body_length = request.body().size_hint().exact();
        let defect = exchange.begin_request(request.version(), request.headers(), body_length);
        if let Some(defect) = defect {
            request.extensions_mut().insert(defect);
        }
        let pace = Pace::of_body(&self.config);
        let request = request.map(|body| RequestBody { body, exchange: Arc::clone(&exchange), pace });
        let response = hyper::service::Service::call(&self.routes, request);
        Box::pin(async move {
            let mut response = response.await?;
            let is_stream = response.body().size_hint().exact().is_none();
            let permit = response.extensions_mut().remove::<ResponsePermit>();
            let is_request_complete = exchange.begin_response(is_stream, permit);
            // A proxy may see the end of a defective head elsewhere, so the connection closes.
            if !is_request_complete || defect.is_some() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| ResponseBody { body, _end: EndOfResponse(exchange) }))
        })
    }
}

/// A request's body, which must arrive at a minimum rate.
pub(super) struct RequestBody {
    body: Incoming,
    exchange: Arc<Exchange>,
    pace: Pace,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.pace.pause();
                if let Some(Ok(frame)) = &frame {
                    this.pace.record(frame.data_ref().map_or(0, Bytes::len));
                }
                if frame.is_none() || this.body.is_end_stream() {
                    this.exchange.end_body();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => this.pace.poll_too_slow(cx).map(|slow| Some(Err(slow.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body, whose end is the end of the exchange.
pub(super) struct ResponseBody {
    body: Body,
    _end: EndOfResponse,
}

struct EndOfResponse(Arc<Exchange>);

impl Drop for EndOfResponse {
    fn drop(&mut self) {
        self.0.end_response();
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
