//! The one door: every request, of every service on the port, passes here.
//!
//! In this order: who calls (by the connection, or by a manager that forwards), what their certificate is worth now, what
//! the authorisation table allows, and which manager carries the call out.

use crate::caller::{Caller, Transport};
use crate::error::ApiError;
use crate::forward::{Leader, forward};
use crate::forwarded;
use crate::quorum::{Freshness, Route, Router, Stamp, Standing};
use crate::throttle::Throttle;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue};
use tonic::codegen::{Service, http};
use tonic::service::Routes;
use tonic::{Code, Status};
use warren_proto::authz::{self, Place, Rule};
use warren_proto::headers;
use warren_types::Role;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Records of refusals; anybody can be refused without limit.
static REFUSALS: Throttle = Throttle::new();

/// What a node may call that the state does not list (yet): it joins, or this manager lags behind.
const OPEN_TO_UNKNOWN: [&str; 3] = [
    "/warren.v1.WarrenAPI/JoinCluster",
    "/warren.v1.WarrenAPI/RenewCertificate",
    "/warren.v1.WarrenAPI/RequestCertificate",
];
/// Likewise, by service.
const OPEN_TO_UNKNOWN_SERVICES: [&str; 2] = ["/warren.peer.v1.Peer/", "/grpc.health.v1.Health/"];

/// Lets through what the table allows.
#[derive(Clone)]
pub(crate) struct Guard {
    routes: Routes,
    door: Arc<Door>,
}

struct Door {
    router: Option<Arc<dyn Router>>,
    /// Turns true when the server stops.
    stopped: watch::Receiver<bool>,
}

/// A request that may go on.
struct Passed {
    rule: &'static Rule,
    caller: Caller,
    /// Another manager has forwarded it.
    forwarded: bool,
}

impl Guard {
    pub(crate) fn new(
        routes: Routes,
        router: Option<Arc<dyn Router>>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            routes,
            door: Arc::new(Door { router, stopped }),
        }
    }
}

impl Service<Request> for Guard {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <Routes as Service<Request>>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let door = Arc::clone(&self.door);
        let passed = match door.check(&mut request) {
            Ok(passed) => passed,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        request.extensions_mut().insert(passed.caller.clone());
        let routed = door.router.is_some() && passed.rule.place != Place::Here;
        if !routed {
            return Box::pin(self.routes.call(request));
        }
        let routes = self.routes.clone();
        Box::pin(async move { door.serve(routes, passed, request).await })
    }
}

impl Door {
    /// Everything up to the question where.
    fn check(&self, request: &mut Request) -> Result<Passed, Status> {
        let path = request.uri().path();
        let rule = authz::rule(path).ok_or_else(|| unknown_call(path))?;
        // Every connection carries its caller; one without would be nobody.
        let connected = request.extensions().get::<Caller>();
        let connected = connected.cloned().unwrap_or_else(nobody);
        let claimed = forwarded::claimed(request.headers());
        let caller = if claimed {
            self.forwarded_caller(rule, &connected, request.headers_mut())?
        } else {
            connected
        };
        let caller = self.by_standing(rule, caller)?;
        if !rule.roles.contains(&caller.role) {
            return Err(denied(rule, &caller));
        }
        Ok(Passed {
            rule,
            caller,
            forwarded: claimed,
        })
    }

    /// The caller that a manager forwards a call for. Nobody else may say such a thing.
    fn forwarded_caller(
        &self,
        rule: &'static Rule,
        by: &Caller,
        headers: &mut HeaderMap,
    ) -> Result<Caller, Status> {
        let manager = match (by.role, by.node, &by.transport) {
            (Role::Manager, Some(node), Transport::Tls { .. }) => Some(node),
            _ => None,
        };
        let may = manager.filter(|_| rule.place != Place::Here);
        let standing = match (&self.router, may) {
            (Some(router), Some(_)) => Some(router.standing(by)),
            _ => None,
        };
        match (standing, may) {
            (Some(Standing::Member), Some(node)) => {
                let caller = forwarded::read(headers, node)?;
                forwarded::remove(headers);
                Ok(caller)
            }
            (Some(Standing::Unknown), _) => Err(not_listed(by)),
            (Some(Standing::Removed), _) => Err(removed(by)),
            // It forwards what came to it before it learned of its demotion: nobody forges anything, and the client
            // may ask another manager.
            (Some(Standing::Demoted), _) => Err(demoted(by)),
            _ => {
                record_refusal(rule.path, by, "forged");
                Err(Status::new(
                    Code::PermissionDenied,
                    format!(
                        "{by} may not call for somebody else: only managers of this cluster forward calls"
                    ),
                ))
            }
        }
    }

    /// What the certificate is worth now: the state may know more than the certificate says.
    fn by_standing(&self, rule: &'static Rule, mut caller: Caller) -> Result<Caller, Status> {
        let certified = matches!(
            caller.transport,
            Transport::Tls { .. } | Transport::Forwarded { .. }
        );
        let Some(router) = &self.router else {
            return Ok(caller);
        };
        if !certified || !matches!(caller.role, Role::Worker | Role::Manager) {
            return Ok(caller);
        }
        match router.standing(&caller) {
            Standing::Member => Ok(caller),
            // It is told, so that it goes on as the worker that it is now.
            Standing::Demoted if rule.path.starts_with(PEER_PATH) => Err(removed(&caller)),
            Standing::Demoted => {
                caller.role = Role::Worker;
                Ok(caller)
            }
            Standing::Removed => {
                record_refusal(rule.path, &caller, "removed");
                Err(removed(&caller))
            }
            Standing::Unknown => {
                let open = OPEN_TO_UNKNOWN.contains(&rule.path)
                    || OPEN_TO_UNKNOWN_SERVICES
                        .iter()
                        .any(|service| rule.path.starts_with(service));
                if open {
                    Ok(caller)
                } else {
                    Err(not_listed(&caller))
                }
            }
        }
    }

    /// Here or at the leader.
    async fn serve(
        &self,
        mut routes: Routes,
        passed: Passed,
        request: Request,
    ) -> Result<Response, Infallible> {
        let (freshness, router) = match (freshness(request.headers()), &self.router) {
            (Ok(freshness), Some(router)) => (freshness, router),
            (Err(error), _) => return Ok(Status::from(error).into_http()),
            (_, None) => return routes.call(request).await,
        };
        let route = router.route(passed.rule, freshness, passed.forwarded).await;
        match route {
            Ok(Route::Here(stamp)) => {
                let mut response = routes.call(request).await?;
                stamp_response(response.headers_mut(), stamp);
                Ok(response)
            }
            // Two managers that take each other for the leader must not play ball with a call.
            Ok(Route::Leader { address, .. }) if passed.forwarded => {
                Ok(Status::from(ApiError::NotTaken {
                    what: "this manager does not lead any more".to_owned(),
                    remedy: "try again".to_owned(),
                    leader: Some(address),
                })
                .into_http())
            }
            Ok(Route::Leader {
                address,
                channel,
                lost,
                ..
            }) => {
                let leader = Leader {
                    address,
                    channel,
                    lost,
                    mutating: passed.rule.mutating,
                };
                Ok(forward(leader, &passed.caller, request, self.stopped.clone()).await)
            }
            Err(error) => Ok(Status::from(error).into_http()),
        }
    }
}

/// Beginning of the paths of the calls among managers.
const PEER_PATH: &str = "/warren.peer.v1.Peer/";

fn nobody() -> Caller {
    Caller {
        role: Role::None,
        name: "nobody".to_owned(),
        node: None,
        transport: Transport::InProcess,
    }
}

fn freshness(headers: &HeaderMap) -> Result<Freshness, ApiError> {
    match headers.get(headers::READ).map(HeaderValue::as_bytes) {
        None => Ok(Freshness::Local),
        Some(value) if value == headers::READ_LOCAL.as_bytes() => Ok(Freshness::Local),
        Some(value) if value == headers::READ_LINEARIZABLE.as_bytes() => {
            Ok(Freshness::Linearizable)
        }
        Some(value) if value == headers::READ_BEST.as_bytes() => Ok(Freshness::Best),
        Some(value) => Err(ApiError::field(
            headers::READ,
            format!("is {:?}", String::from_utf8_lossy(value)),
            "use local, linearizable or best",
        )),
    }
}

fn stamp_response(headers: &mut HeaderMap, stamp: Stamp) {
    headers.insert(headers::REVISION, HeaderValue::from(stamp.revision));
    if let Some(since) = stamp.stale {
        let value = since.map_or_else(
            || HeaderValue::from_static(headers::STALE_UNKNOWN),
            |since| HeaderValue::from(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        );
        headers.insert(headers::STALE, value);
    }
}

fn unknown_call(path: &str) -> Status {
    Status::new(
        Code::Unimplemented,
        format!(
            "this manager has no call {path:?}: client and manager may be of different versions"
        ),
    )
}

fn removed(caller: &Caller) -> Status {
    ApiError::Removed {
        what: format!("node {} was removed from the quorum", caller.name),
    }
    .into()
}

fn demoted(caller: &Caller) -> Status {
    ApiError::NotTaken {
        what: format!("node {} is no manager any more", caller.name),
        remedy: "ask another manager".to_owned(),
        leader: None,
    }
    .into()
}

fn not_listed(caller: &Caller) -> Status {
    ApiError::NotTaken {
        what: format!("this manager does not know node {} yet", caller.name),
        remedy: "try again, or ask another manager".to_owned(),
        leader: None,
    }
    .into()
}

fn denied(rule: &Rule, caller: &Caller) -> Status {
    record_refusal(rule.path, caller, "denied");
    Status::new(
        Code::PermissionDenied,
        format!(
            "{} (role {}) may not call {}: {}",
            caller.name,
            caller.role.name(),
            rule.path.rsplit('/').next().unwrap_or(rule.path),
            remedy(caller, rule.roles)
        ),
    )
}

fn remedy(caller: &Caller, roles: &[Role]) -> String {
    match (caller.role, &caller.transport) {
        (Role::None, Transport::Unix { .. }) => {
            "only root and members of the group warren may use the local socket".to_owned()
        }
        (Role::None, _) => "connect with a client certificate of this cluster".to_owned(),
        _ => {
            let names: Vec<_> = roles.iter().map(|r| r.name()).collect();
            format!("it takes one of the roles {}", names.join(", "))
        }
    }
}

fn record_refusal(path: &str, caller: &Caller, result: &'static str) {
    let Some(suppressed) = REFUSALS.admit() else {
        return;
    };
    tracing::info!(
        target: "audit",
        caller = %caller.name,
        role = caller.role.name(),
        transport = %caller.transport,
        method = path,
        result,
        suppressed,
    );
}
