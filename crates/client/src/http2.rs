//! HTTP/2 over a connection that is open, with nothing in between.
//!
//! tonic's own channel has more: a queue with a task of its own, which every call has to pass, reconnecting, a time limit.
//! Connections are opened anew by [`crate::link`] here, and calls have their limits already.

use crate::error::{ClientError, ErrorKind};
use crate::link::Tuning;
use crate::pool::MANAGER_TUNING;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::http::uri::{Authority, Scheme};
use tonic::codegen::{Service, http};
use warren_gather::Gather;

/// The `:authority` of all requests. Where they go is decided by whoever opens the connection.
const AUTHORITY: &str = "manager.warren";

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Calls on one connection. Clones share it; it is closed when the last one and the last call are gone. Once it has broken,
/// each further call fails as one that was not sent.
#[derive(Clone, Debug)]
pub struct Http2 {
    calls: SendRequest<Body>,
}

impl Http2 {
    /// Calls of any gRPC service over a connection that is open, as this client makes its own: what is compared with a manager
    /// shall not have a worse client.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the other side does not answer in HTTP/2.
    pub async fn open<I>(io: I) -> Result<Self, ClientError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::over(Gather::new(io), MANAGER_TUNING).await
    }

    /// Begins to speak HTTP/2.
    pub(crate) async fn over<I>(io: I, tuning: Tuning) -> Result<Self, ClientError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut settings = Builder::new(TokioExecutor::new());
        settings
            .timer(TokioTimer::new())
            .keep_alive_interval(tuning.probe_after)
            .keep_alive_timeout(tuning.probe_limit)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(tuning.stream_window)
            .initial_connection_window_size(tuning.connection_window);
        let (calls, connection) = settings
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| {
                ClientError::new(
                    ErrorKind::Unavailable,
                    format!("no connection to a manager ({error})"),
                    "check that the daemon runs with `warren cluster info`",
                )
            })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a manager has broken");
            }
        });
        Ok(Self { calls })
    }
}

impl Service<Request> for Http2 {
    type Response = Response;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, hyper::Error>> + Send>>;

    /// Always: that a connection has broken is the error of a call, which says whether it was sent.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        // TLS is done before, so the scheme here is always http.
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(Authority::from_static(AUTHORITY));
        // With all three parts there it is one.
        *request.uri_mut() = http::Uri::from_parts(uri).unwrap_or_default();
        let answer = self.calls.send_request(request);
        Box::pin(async move { Ok(answer.await?.map(Body::new)) })
    }
}
