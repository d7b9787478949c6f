//! The one door: every request, of every service on the port, passes the authorisation table here.

use crate::caller::{Caller, Transport};
use futures::future::{Either, Ready, ready};
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::service::Routes;
use tonic::{Code, Status};
use warren_proto::authz;
use warren_types::Role;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Lets through what the table allows.
#[derive(Clone)]
pub(crate) struct Guard {
    routes: Routes,
}

impl Guard {
    pub(crate) const fn new(routes: Routes) -> Self {
        Self { routes }
    }
}

impl Service<Request> for Guard {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, <Routes as Service<Request>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <Routes as Service<Request>>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let path = request.uri().path();
        match check(path, request.extensions().get::<Caller>()) {
            Ok(()) => Either::Right(self.routes.call(request)),
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

fn check(path: &str, caller: Option<&Caller>) -> Result<(), Status> {
    let Some(rule) = authz::rule(path) else {
        return Err(Status::new(
            Code::Unimplemented,
            format!(
                "this manager has no call {path:?}: client and manager may be of different versions"
            ),
        ));
    };
    // Every connection carries its caller; one without would be nobody.
    let role = caller.map_or(Role::None, |c| c.role);
    if rule.roles.contains(&role) {
        return Ok(());
    }
    let name = caller.map_or("nobody", |c| c.name.as_str());
    tracing::info!(
        target: "audit",
        caller = name,
        role = role.name(),
        transport = caller.map(|c| c.transport.to_string()),
        method = path,
        result = "denied",
    );
    Err(Status::new(
        Code::PermissionDenied,
        format!(
            "{name} (role {}) may not call {}: {}",
            role.name(),
            path.rsplit('/').next().unwrap_or(path),
            remedy(role, caller.map(|c| &c.transport), rule.roles)
        ),
    ))
}

fn remedy(role: Role, transport: Option<&Transport>, roles: &[Role]) -> String {
    match (role, transport) {
        (Role::None, Some(Transport::Unix { .. })) => {
            "only root and members of the group warren may use the local socket".to_owned()
        }
        (Role::None, _) => "connect with a client certificate of this cluster".to_owned(),
        _ => {
            let names: Vec<_> = roles.iter().map(|r| r.name()).collect();
            format!("it takes one of the roles {}", names.join(", "))
        }
    }
}
