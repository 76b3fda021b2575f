//! A response's body on its way to the client.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::{
    client::state::ActiveRequest, headers::safe_trailers, metrics::InFlight, plane::DataPlane,
    request_body::SharedBody, upstream::Connection,
};

/// A response's body: a text of the balancer's own, or a process's body, streamed.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    in_flight: Option<InFlight>,
    active: Option<ActiveRequest>,
}

#[derive(Debug)]
enum Content {
    Text(Bytes),
    Upstream {
        body: Incoming,
        exchange: Option<Exchange>,
    },
}

/// The connection that carries a response; it returns to the pool at the response's end.
#[derive(Debug)]
pub struct Exchange {
    /// The connection to the process.
    pub connection: Connection,
    /// The request's body, which may be incomplete.
    pub request: SharedBody,
    /// Holds the pool's limits.
    pub plane: Arc<DataPlane>,
}

impl ResponseBody {
    /// A text of the balancer's own.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self {
            content: Content::Text(text.into()),
            in_flight: None,
            active: None,
        }
    }

    /// A process's body; `exchange` ends with it.
    pub fn upstream(body: Incoming, exchange: Exchange) -> Self {
        let mut content = Self {
            content: Content::Upstream {
                body,
                exchange: Some(exchange),
            },
            in_flight: None,
            active: None,
        };
        content.end_if_complete();
        content
    }

    /// Counts the request as in flight until the body has been sent.
    pub fn with_in_flight(mut self, counted: InFlight) -> Self {
        self.in_flight = Some(counted);
        self
    }

    /// Keeps the client's connection from being idle until the body has been sent.
    pub fn with_active_request(mut self, active: ActiveRequest) -> Self {
        self.active = Some(active);
        self
    }

    fn end_if_complete(&mut self) {
        if let Content::Upstream { body, exchange } = &mut self.content
            && body.is_end_stream()
            && let Some(exchange) = exchange.take()
        {
            exchange.end();
        }
    }
}

impl Exchange {
    /// The response is complete. If the request is not, the process does not want the rest of it and the
    /// connection cannot be reused.
    fn end(self) {
        if self.request.is_ended() {
            self.connection.keep(&self.plane.limits);
        } else {
            self.connection.abort();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let (body, exchange) = match &mut this.content {
            Content::Text(text) if text.is_empty() => return Poll::Ready(None),
            Content::Text(text) => {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(text)))));
            }
            Content::Upstream { body, exchange } => (body, exchange),
        };
        match ready!(Pin::new(body).poll_frame(context)) {
            Some(Ok(frame)) => {
                this.end_if_complete();
                Poll::Ready(Some(Ok(safe_trailers(frame))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                if let Some(exchange) = exchange.take() {
                    exchange.end();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Text(text) => text.is_empty(),
            Content::Upstream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Upstream { body, .. } => body.size_hint(),
        }
    }
}
