//! From messages to the control plane and back. One set of handlers for every transport.

mod calls;
mod checks;
mod cluster;
mod containers;
mod images;
mod ingress;
mod objects;
mod peers;
mod quorum;
mod services;
mod sessions;

use crate::caller::Caller;
use crate::control::{ApiResult, ApiStream, ControlPlane};
use crate::error::ApiError;
use crate::quorum::PeerPlane;
use crate::server::Limits;
use crate::throttle::Throttle;
use crate::to_the_end::ToTheEnd;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::{Extensions, Response, Status};
use warren_proto::authz;
use warren_types::Role;

/// A stream of answers as tonic takes it.
pub(crate) type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// All handlers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handlers {
    control: Arc<dyn ControlPlane>,
    peers: Option<Arc<dyn PeerPlane>>,
    limits: Limits,
    /// Turns true when the server stops.
    stopped: watch::Receiver<bool>,
}

impl Handlers {
    pub(crate) fn new(
        control: Arc<dyn ControlPlane>,
        peers: Option<Arc<dyn PeerPlane>>,
        limits: Limits,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            control,
            peers,
            limits,
            stopped,
        }
    }

    /// Are there other managers to talk to?
    pub(crate) const fn serves_managers(&self) -> bool {
        self.peers.is_some()
    }

    /// Runs one unary call with its time limit; a call that changes something goes on to its end, and
    /// into the audit record, even when the caller goes away.
    async fn unary<T, F>(
        &self,
        name: &'static str,
        caller: Caller,
        subject: String,
        work: F,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = ApiResult<T>> + Send + 'static,
    {
        let limit = self.limits.call;
        let limited = async move {
            tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                Err(ApiError::Deadline {
                    what: name.to_owned(),
                    limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                })
            })
        };
        if !is_mutating(name) {
            return finish(name, &caller, limited.await);
        }
        self.to_the_end(name, caller, subject, limited).await
    }

    /// Runs a call that changes something, without a time limit, to its end and into the audit record.
    async fn to_the_end<T, F>(
        &self,
        name: &'static str,
        caller: Caller,
        subject: String,
        work: F,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = ApiResult<T>> + Send + 'static,
    {
        let work = ToTheEnd::new(async move {
            let result = work.await;
            audit(name, &caller, &subject, &result);
            finish(name, &caller, result)
        });
        work.await.unwrap_or_else(|_| {
            tracing::error!(method = name, "a handler panicked");
            Err(ApiError::internal(format!("{name} failed")).into())
        })
    }

    /// Turns a stream of the control plane into answers; ends it when the server stops.
    fn answers<T, U>(
        &self,
        stream: ApiStream<T>,
        convert: impl FnMut(T) -> U + Send + 'static,
    ) -> Answers<U>
    where
        T: Send + 'static,
        U: Send + 'static,
    {
        let mut convert = convert;
        let mut stopped = self.stopped.clone();
        let stop = async move {
            // An error means that the server is gone already.
            drop(stopped.wait_for(|stopped| *stopped).await);
        };
        let end = futures::stream::once({
            let stopped = self.stopped.clone();
            async move { *stopped.borrow() }
        })
        .filter_map(|stopped| async move {
            stopped.then(|| {
                Err(ApiError::unavailable(
                    "this daemon stops",
                    "connect again when it is back, or to another manager",
                )
                .into())
            })
        });
        stream
            .map(move |item| item.map(&mut convert).map_err(Status::from))
            .take_until(stop)
            .chain(end)
            .boxed()
    }
}

/// Whoever calls; put there by the connection.
fn caller_of(extensions: &Extensions) -> Result<Caller, Status> {
    extensions
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| ApiError::internal("a request without a caller").into())
}

fn is_mutating(name: &str) -> bool {
    // Anything the table does not know counts as changing.
    authz::api_rule(name).is_none_or(|rule| rule.mutating)
}

fn finish<T>(
    name: &'static str,
    caller: &Caller,
    result: ApiResult<T>,
) -> Result<Response<T>, Status> {
    match result {
        Ok(answer) => Ok(Response::new(answer)),
        Err(error) => {
            if matches!(error, ApiError::Internal { .. }) {
                tracing::error!(method = name, %caller, %error, "a call failed");
            }
            Err(error.into())
        }
    }
}

/// Records of strangers' failed calls (a wrong join token); anybody can make those without limit.
static STRANGERS: Throttle = Throttle::new();

/// One record for each call that may have changed something.
fn audit<T>(name: &'static str, caller: &Caller, subject: &str, result: &ApiResult<T>) {
    let suppressed = if caller.role == Role::None && result.is_err() {
        STRANGERS.admit()
    } else {
        Some(0)
    };
    let Some(suppressed) = suppressed else {
        return;
    };
    let result = match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{:?}", error.code()),
    };
    tracing::info!(
        target: "audit",
        caller = %caller.name,
        role = caller.role.name(),
        transport = %caller.transport,
        method = name,
        object = subject,
        result,
        suppressed,
    );
}
