//! Metrics, health and readiness over plain HTTP on an address of their own; by default only the machine itself reaches it.
//! Nothing here changes anything or tells secrets.

use crate::throttle::Throttle;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use warren_types::Timestamp;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request to arrive, and for its answer to be taken.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Largest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Pause after a failed accept (mostly: no free file descriptor).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Format of the metrics.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const PATHS: &str = "there are /metrics, /health, /ready and /live here\n";

/// Records of connections that failed.
static FAILURES: Throttle = Throttle::new();

/// What is told. Each answer is made for its request, from what is so then.
pub trait Telemetry: Send + Sync + 'static {
    /// All metrics in the text format of Prometheus. May take a while; runs where that stops nobody.
    fn metrics(&self) -> String;
    /// Each part of the daemon, and why it is unhealthy if it is.
    fn health(&self) -> BTreeMap<String, Result<String, String>>;
    /// Each part that a call needs, and why it is not ready if it is not. The text of a ready one says in what way, such as
    /// `leader`.
    fn ready(&self) -> BTreeMap<String, Result<String, String>>;
    /// Version of the program.
    fn version(&self) -> String;
}

/// Serves until `shutdown` ends.
pub async fn serve_metrics(
    listener: TcpListener,
    telemetry: Arc<dyn Telemetry>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let started = Instant::now();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        // Finished ones give their memory back.
        while connections.try_join_next().is_some() {}
        let accepted = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let telemetry = Arc::clone(&telemetry);
                connections.spawn(async move {
                    serve(stream, telemetry, started).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request; whoever wants another connects again.
async fn serve(stream: TcpStream, telemetry: Arc<dyn Telemetry>, started: Instant) {
    let service = service_fn(move |request| answer(Arc::clone(&telemetry), started, request));
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_LIMIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Once for the request, once for the answer.
    let failed = match tokio::time::timeout(2 * REQUEST_LIMIT, connection).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    if let Some(suppressed) = FAILURES.admit() {
        tracing::debug!(
            error = failed,
            suppressed,
            "a connection for metrics failed"
        );
    }
}

async fn answer(
    telemetry: Arc<dyn Telemetry>,
    started: Instant,
    request: Request<Incoming>,
) -> Result<Response<String>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return Ok(refused);
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            let made = tokio::task::spawn_blocking(move || telemetry.metrics());
            match made.await {
                Ok(metrics) => response(StatusCode::OK, PROMETHEUS, metrics),
                Err(error) => {
                    tracing::error!(%error, "the metrics could not be made");
                    let failed = StatusCode::INTERNAL_SERVER_ERROR;
                    text(
                        failed,
                        "this is a fault of Warren; the daemon's log says more\n",
                    )
                }
            }
        }
        "/health" => {
            let words = ["healthy", "unhealthy"];
            report(words, telemetry.health(), &telemetry.version(), started)
        }
        "/ready" => {
            let words = ["ready", "not_ready"];
            report(words, telemetry.ready(), &telemetry.version(), started)
        }
        "/live" => {
            let alive = serde_json::json!({"status": "alive", "uptime": uptime(started)});
            response(StatusCode::OK, JSON, format!("{alive}\n"))
        }
        _ => text(StatusCode::NOT_FOUND, PATHS),
    })
}

fn report(
    [good, bad]: [&str; 2],
    components: BTreeMap<String, Result<String, String>>,
    version: &str,
    started: Instant,
) -> Response<String> {
    let wrong: Vec<_> = components
        .iter()
        .filter_map(|(name, state)| state.as_ref().err().map(|why| format!("{name}: {why}")))
        .collect();
    let words = bad.replace('_', " ");
    let components: BTreeMap<_, _> = components
        .iter()
        .map(|(name, state)| match state {
            Ok(text) => (name, text.clone()),
            Err(why) => (name, format!("{words}: {why}")),
        })
        .collect();
    let mut body = serde_json::json!({
        "status": if wrong.is_empty() { good } else { bad },
        "timestamp": now().to_string(),
        "components": components,
        "version": version,
        "uptime": uptime(started),
    });
    let mut status = StatusCode::OK;
    if !wrong.is_empty() {
        status = StatusCode::SERVICE_UNAVAILABLE;
        body["message"] = wrong.join("; ").into();
    }
    response(status, JSON, format!("{body}\n"))
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Whole seconds with their unit, such as `75s`.
fn uptime(started: Instant) -> String {
    format!("{}s", started.elapsed().as_secs())
}

fn text(status: StatusCode, body: &str) -> Response<String> {
    response(status, "text/plain; charset=utf-8", body.to_owned())
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
