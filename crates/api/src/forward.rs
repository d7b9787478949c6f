//! Hands a call to the leader, bytes both ways as they come, and its answer back.

use crate::caller::Caller;
use crate::error::ApiError;
use crate::forwarded;
use bytes::Bytes;
use http_body::Frame;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{oneshot, watch};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::codegen::http::{self, HeaderMap, HeaderName, HeaderValue, Uri, header};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Status};

/// Headers that belong to one connection.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::HOST,
];

/// Where a call is handed on to.
pub(crate) struct Leader {
    pub(crate) address: String,
    pub(crate) channel: Channel,
    /// Turns true when its answer is waited for no longer.
    pub(crate) lost: watch::Receiver<bool>,
    /// Whether the call changes anything.
    pub(crate) mutating: bool,
}

/// Forwards a call. What the leader answers is the answer, errors and trailers too.
pub(crate) async fn forward(
    leader: Leader,
    caller: &Caller,
    request: http::Request<Body>,
    stopped: watch::Receiver<bool>,
) -> http::Response<Body> {
    let Leader {
        address,
        mut channel,
        mut lost,
        mutating,
    } = leader;
    let (mut head, body) = request.into_parts();
    // Scheme and authority are those of the connection to the leader.
    head.uri = head
        .uri
        .path_and_query()
        .cloned()
        .map_or_else(Uri::default, Uri::from);
    head.extensions.clear();
    clean(&mut head.headers);
    head.headers
        .insert(header::TE, HeaderValue::from_static("trailers"));
    forwarded::write(&mut head.headers, caller);
    // The request ends with the answer, however that ends: no call stays open at the leader for a caller who is gone.
    let (ended, over) = oneshot::channel();
    let body = Body::new(Sent { inner: body, over });
    let request = http::Request::from_parts(head, body);
    let answered = async {
        match poll_fn(|cx| channel.poll_ready(cx)).await {
            Ok(()) => channel.call(request).await,
            Err(error) => Err(error),
        }
    };
    let answered = tokio::select! {
        biased;
        answered = answered => answered,
        () = turned(&mut lost) => return Status::from(abandoned(mutating)).into_http(),
    };
    match answered {
        Ok(mut response) => {
            clean(response.headers_mut());
            let end = ending(stopped, lost, mutating);
            response.map(|body| Body::new(Passed::new(body, end, ended)))
        }
        Err(error) => failure(&error, address).into_http(),
    }
}

/// Why an answer that has begun ends before its end.
async fn ending(
    mut stopped: watch::Receiver<bool>,
    mut lost: watch::Receiver<bool>,
    mutating: bool,
) -> ApiError {
    tokio::select! {
        // A closed channel means that the server is gone already.
        _ = stopped.wait_for(|stopped| *stopped) => ApiError::unavailable(
            "this daemon stops",
            "connect again when it is back, or to another manager",
        ),
        () = turned(&mut lost) => abandoned(mutating),
    }
}

/// Returns when the value turns true.
async fn turned(lost: &mut watch::Receiver<bool>) {
    if lost.wait_for(|lost| *lost).await.is_err() {
        // Nobody will say so any more: the connection itself is all that can end the call.
        std::future::pending().await
    }
}

/// The leader had the call and says nothing more.
fn abandoned(mutating: bool) -> ApiError {
    let what = "the manager that led has fallen silent while it had the call";
    if mutating {
        return ApiError::unavailable(
            what,
            "whether it was carried out is not known; look at the state before you repeat it",
        );
    }
    ApiError::NotTaken {
        what: what.to_owned(),
        remedy: "the call changes nothing: try again, the next leader answers".to_owned(),
        leader: None,
    }
}

fn clean(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn failure(error: &(dyn Error + 'static), address: String) -> Status {
    let mut next = Some(error);
    while let Some(found) = next {
        let unsent = found.is::<ConnectError>()
            || found
                .downcast_ref::<hyper::Error>()
                .is_some_and(hyper::Error::is_canceled);
        if unsent {
            return ApiError::NotTaken {
                what: format!("the leader at {address} cannot be reached from this manager"),
                remedy: "try again; a new leader is elected when this one is gone".to_owned(),
                leader: Some(address),
            }
            .into();
        }
        if found.is::<tonic::TimeoutExpired>() {
            return Status::new(
                Code::DeadlineExceeded,
                "the leader did not answer within the caller's time limit: look at the state before you repeat it",
            );
        }
        next = found.source();
    }
    broken().into()
}

fn broken() -> ApiError {
    ApiError::unavailable(
        "the connection to the leader broke while it had the call",
        "whether it was carried out is not known; look at the state before you repeat it",
    )
}

/// The leader's answer on its way. When the connection to the leader breaks, the leader falls silent, or this manager
/// stops, it ends with a status that says so.
struct Passed {
    inner: Body,
    stop: Pin<Box<dyn Future<Output = ApiError> + Send>>,
    ended: bool,
    /// Dropped with the answer.
    _request: oneshot::Sender<()>,
}

/// The caller's request on its way.
struct Sent {
    inner: Body,
    over: oneshot::Receiver<()>,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if Pin::new(&mut self.over).poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Status::cancelled("the answer has ended"))));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

impl Passed {
    fn new(
        inner: Body,
        end: impl Future<Output = ApiError> + Send + 'static,
        request: oneshot::Sender<()>,
    ) -> Self {
        Self {
            inner,
            _request: request,
            stop: Box::pin(end),
            ended: false,
        }
    }

    fn end(&mut self, error: ApiError) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        let status = Status::from(error);
        Poll::Ready(Some(match status.add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }
}

impl http_body::Body for Passed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Err(_))) => self.end(broken()),
            Poll::Pending => match self.stop.as_mut().poll(cx) {
                Poll::Ready(why) => self.end(why),
                Poll::Pending => Poll::Pending,
            },
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        // What ends early has no size that could be told.
        http_body::SizeHint::default()
    }
}
