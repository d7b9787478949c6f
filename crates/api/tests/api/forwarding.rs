//! Calls that reach a manager which does not lead: forwarded whole, under the caller's own name, and never forged (S7).

use crate::calls::spec;
use crate::managers::{Leads, QUICK, Quorum, node};
use crate::raw::tls_channel;
use crate::setup::PATIENCE;
use crate::streams::until;
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request};
use tonic::transport::Channel;
use warren_api::{Standing, Transport};
use warren_client::{
    ErrorKind, ExecInput, ExecOutput, GrpcTransport, PeerClient, SessionTransport as _, v1,
};
use warren_proto::authz::{self, Place};
use warren_proto::headers;
use warren_proto::session::{WorkerMessage, manager_message};
use warren_types::Role;

#[tokio::test]
async fn a_forwarded_call_keeps_its_caller_and_its_answer() {
    let quorum = Quorum::start(2).await;
    let [leader, follower] = quorum.managers.as_slice() else {
        unreachable!()
    };
    let client = quorum.client(Role::Operator, &[1]);
    let made = client.create_service(&spec("web")).await.unwrap();
    assert_eq!(made.name, "web");
    let (name, caller) = leader.last_call();
    assert_eq!((name, caller.role), ("CreateService", Role::Operator));
    assert_eq!((caller.name.as_str(), caller.node), ("the-operator", None));
    let Transport::Forwarded { by, via } = &caller.transport else {
        panic!("{caller:?}");
    };
    assert_eq!(*by, node(1));
    assert!(via.starts_with("tls 127.0.0.1:"), "{via}");
    assert_eq!(follower.calls(), 0);
    // The leader's refusal comes back as it is.
    let again = client.create_service(&spec("web")).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::AlreadyExists);
    assert!(again.message.contains("service update"), "{again}");
    // Reads are answered where they are asked, and see what is there.
    let read = client.get_service("web").await.unwrap_err();
    assert_eq!(read.kind, ErrorKind::NotFound);
    assert_eq!(follower.last_call().0, "GetService");
    // The leader was told that the call came through somebody.
    let asked = leader.router.asked.lock().unwrap().clone();
    assert!(
        asked.iter().all(|(_, _, forwarded)| *forwarded),
        "{asked:?}"
    );
}

#[tokio::test]
async fn every_call_of_the_leaders_is_authorised_for_its_caller_on_both_managers() {
    let quorum = Quorum::start(2).await;
    let paths: Vec<_> = authz::RULES
        .iter()
        .filter(|rule| rule.place == Place::Leader)
        .collect();
    assert!(paths.len() > 30);
    for role in [
        Role::None,
        Role::Worker,
        Role::Viewer,
        Role::Operator,
        Role::Admin,
    ] {
        let identity = quorum.authority.identity(role);
        let channel = tls_channel(quorum.managers[1].address, &identity).await;
        for rule in &paths {
            let before = quorum.managers[0].router.asked.lock().unwrap().len();
            let answer = crate::raw::call(&channel, rule.path, Vec::new()).await;
            let denied = answer.is_err_and(|s| s.code() == Code::PermissionDenied);
            let reached = quorum.managers[0].router.asked.lock().unwrap().len() - before;
            let allowed = rule.roles.contains(&role);
            assert_eq!(denied, !allowed, "{} as {role:?}", rule.path);
            assert_eq!(reached, usize::from(allowed), "{} as {role:?}", rule.path);
        }
        let calls = quorum.managers[0].memory.calls.lock().unwrap().clone();
        assert!(
            calls.iter().all(|(_, c)| c.role != Role::Manager),
            "{calls:?}"
        );
    }
    assert_eq!(quorum.managers[1].calls(), 0);
}

#[tokio::test]
async fn streams_pass_both_ways_through_a_follower() {
    let quorum = Quorum::start(2).await;
    let client = quorum.client(Role::Operator, &[1]);
    let start = v1::ExecStart {
        container: "web.1".to_owned(),
        command: vec!["cat".to_owned()],
        ..Default::default()
    };
    let (input, sent) = tokio::sync::mpsc::channel(1);
    let input_stream = tokio_stream::wrappers::ReceiverStream::new(sent);
    let mut output = client.exec(start, input_stream).await.unwrap();
    // Each byte comes back before the next one is sent: nothing waits for the end of anything.
    for _ in 0..3 {
        input
            .send(ExecInput::Stdin(b"ping".as_slice().into()))
            .await
            .unwrap();
        let back = output.next().await.unwrap().unwrap();
        assert_eq!(back, ExecOutput::Stdout(b"ping".as_slice().into()));
    }
    drop(input);
    assert_eq!(output.next().await.unwrap().unwrap(), ExecOutput::Exit(12));
    let archive: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let options = v1::ImportOptions::default();
    let images = client
        .import_image(options, std::io::Cursor::new(archive.clone()))
        .await;
    assert_eq!(images.unwrap().len(), 1);
    let imported = quorum.managers[0].memory.imported.lock().unwrap().clone();
    assert_eq!(imported, [Ok(archive)]);
    let request = v1::GetLogsRequest {
        service: "web".to_owned(),
        ..Default::default()
    };
    let lines: Vec<_> = client.logs(request).await.unwrap().collect().await;
    assert_eq!(lines.len(), 1);
    assert_eq!(quorum.managers[1].calls(), 0);
}

#[tokio::test]
async fn a_workers_session_reaches_the_leader_through_any_manager() {
    let quorum = Quorum::start(2).await;
    let transport = GrpcTransport::new(quorum.client(Role::Worker, &[1]));
    let (sender, mut receiver) = transport.open().await.unwrap();
    for number in 1..=3 {
        sender.send(WorkerMessage::default()).await.unwrap();
        let answer = receiver.recv().await.unwrap();
        let Some(manager_message::Body::Welcome(welcome)) = answer.body else {
            panic!("{answer:?}");
        };
        assert_eq!(welcome.session_id, number);
        assert_eq!(welcome.manager_name, crate::memory::NODE_A.to_string());
    }
    let (name, caller) = quorum.managers[0].last_call();
    assert_eq!((name, caller.role), ("Session", Role::Worker));
    // The node goes away: the leader's session ends.
    drop(sender);
    let end = tokio::time::timeout(PATIENCE, receiver.recv()).await;
    assert!(end.expect("the session goes on").is_none());
}

/// Sends the headers of a forwarded call for an administrator.
async fn forged(channel: &Channel, path: &str, only: Option<&'static str>) -> (Code, HeaderMap) {
    let mut channel = channel.clone();
    let mut request = Request::post(path).body(Body::empty()).unwrap();
    let all = [
        (headers::FORWARDED_ROLE, "admin"),
        (headers::FORWARDED_NAME, "root"),
        (headers::FORWARDED_VIA, "unix"),
    ];
    for (name, value) in all {
        if only.is_none_or(|only| only == name) {
            let value = HeaderValue::from_static(value);
            request.headers_mut().insert(name, value);
        }
    }
    let kind = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", kind);
    std::future::poll_fn(|cx| channel.poll_ready(cx))
        .await
        .unwrap();
    let answer = channel.call(request).await.unwrap();
    let code = answer.headers().get("grpc-status");
    // A status in the trailers means that a handler had it.
    let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
    (code, answer.headers().clone())
}

#[tokio::test]
async fn nobody_but_a_manager_speaks_for_others() {
    let quorum = Quorum::start(2).await;
    let path = "/warren.v1.WarrenAPI/ListServices";
    for manager in &quorum.managers {
        for role in [
            Role::None,
            Role::Worker,
            Role::Viewer,
            Role::Operator,
            Role::Admin,
        ] {
            let channel = tls_channel(manager.address, &quorum.authority.identity(role)).await;
            for path in [
                path,
                "/warren.v1.WarrenAPI/DeleteService",
                "/warren.v1.WarrenAPI/GetStatus",
            ] {
                for only in [
                    None,
                    Some(headers::FORWARDED_ROLE),
                    Some(headers::FORWARDED_VIA),
                ] {
                    let (code, _) = forged(&channel, path, only).await;
                    assert_eq!(code, Code::PermissionDenied, "{role:?} {path} {only:?}");
                }
            }
        }
        assert_eq!(manager.calls(), 0);
    }
    // A manager of the cluster may, when the whole caller is named, and for what is not about this manager itself.
    let leader = &quorum.managers[0];
    let identity = quorum.authority.identity_of(Role::Manager, node(1));
    let channel = tls_channel(leader.address, &identity).await;
    let (code, _) = forged(&channel, path, None).await;
    assert_ne!(code, Code::PermissionDenied);
    let half = forged(&channel, path, Some(headers::FORWARDED_ROLE)).await;
    assert_eq!(half.0, Code::InvalidArgument);
    for about_itself in [
        "/warren.v1.WarrenAPI/StopDaemon",
        "/warren.v1.WarrenAPI/RecoverCluster",
        "/warren.peer.v1.Peer/DataKeys",
    ] {
        let (code, _) = forged(&channel, about_itself, None).await;
        assert_eq!(code, Code::PermissionDenied, "{about_itself}");
    }
    // One that is no manager any more may not.
    for (standing, wanted) in [
        (Standing::Removed, Code::PermissionDenied),
        (Standing::Demoted, Code::Unavailable),
        (Standing::Unknown, Code::Unavailable),
        (Standing::Member, Code::Ok),
    ] {
        leader.router.set_standing(node(1), standing);
        let before = leader.router.asked.lock().unwrap().len();
        let (code, answer) = forged(&channel, path, None).await;
        let removed = answer.contains_key(headers::REMOVED);
        assert_eq!(removed, standing == Standing::Removed);
        let reached = leader.router.asked.lock().unwrap().len() > before;
        assert_eq!(reached, standing == Standing::Member);
        if standing != Standing::Member {
            assert_eq!(code, wanted, "{standing:?}");
        }
    }
}

/// With a server that has no router there are no managers, so nobody forwards.
#[tokio::test]
async fn without_a_router_nobody_forwards() {
    let running = crate::setup::Running::start().await;
    let identity = running.authority.identity(Role::Manager);
    let channel = tls_channel(running.address, &identity).await;
    let (code, _) = forged(&channel, "/warren.v1.WarrenAPI/ListServices", None).await;
    assert_eq!(code, Code::PermissionDenied);
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn two_managers_that_take_each_other_for_the_leader_say_so() {
    let quorum = Quorum::start(2).await;
    quorum.managers[0].leads(Leads::Other(quorum.peer(0, 1)));
    let client = quorum
        .client(Role::Admin, &[1])
        .with_patience(Duration::ZERO);
    let error = client.create_service(&spec("web")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotTaken, "{error}");
    assert!(error.message.contains("does not lead any more"), "{error}");
    assert_eq!(quorum.managers[0].calls() + quorum.managers[1].calls(), 0);
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_means_not_taken_and_a_lost_one_means_unknown() {
    let mut quorum = Quorum::start(2).await;
    let client = quorum
        .client(Role::Admin, &[1])
        .with_patience(Duration::ZERO);
    // It dies with the call in its hands. Deleting has no key, so it is not made again.
    client.create_service(&spec("web")).await.unwrap();
    *quorum.managers[0].memory.gate.lock().unwrap() = Some(Arc::new(Notify::new()));
    let deleting = {
        let client = client.clone();
        tokio::spawn(async move { client.delete_service("web").await })
    };
    let memory = Arc::clone(&quorum.managers[0].memory);
    until(|| memory.calls.lock().unwrap().len() == 2).await;
    quorum.managers[0].kill();
    let error = deleting.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("not known"), "{error}");
    // Now it is gone.
    let error = client.create_service(&spec("late")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotTaken, "{error}");
}

/// The leader is frozen: no connection breaks, and its callers are not left waiting for that.
#[tokio::test]
async fn calls_on_their_way_to_a_leader_that_fell_silent_end_when_it_is_given_up() {
    let quorum = Quorum::start(3).await;
    let memory = Arc::clone(&quorum.managers[0].memory);
    let follower = Arc::clone(&quorum.managers[1].router);
    let client = quorum
        .client(Role::Admin, &[1])
        .with_patience(Duration::ZERO);
    client.create_service(&spec("web")).await.unwrap();
    // A stream that it serves, and calls that it never answers.
    let transport = GrpcTransport::new(quorum.client(Role::Worker, &[1]));
    let (sender, mut session) = transport.open().await.unwrap();
    sender.send(WorkerMessage::default()).await.unwrap();
    session.recv().await.unwrap();
    *memory.gate.lock().unwrap() = Some(Arc::new(Notify::new()));
    let deleting = {
        let client = client.clone();
        tokio::spawn(async move { client.delete_service("web").await })
    };
    // It has a key, and may be made again, which the client does where it is told to.
    let creating = {
        let client = quorum.client(Role::Admin, &[1]);
        tokio::spawn(async move { client.create_service(&spec("late")).await })
    };
    until(|| memory.calls.lock().unwrap().len() == 4).await;
    let began = std::time::Instant::now();
    quorum.managers[1].leads(Leads::Other(quorum.peer(1, 2)));
    quorum.managers[2].leads(Leads::Me);
    follower.give_up();
    let error = deleting.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("not known"), "{error}");
    let end = tokio::time::timeout(PATIENCE, session.recv()).await;
    assert!(end.expect("the session goes on").is_none());
    creating.await.unwrap().unwrap();
    assert!(quorum.managers[2].memory.has_service("late"));
    assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
    // A read has done nothing, whoever had it.
    quorum.managers[1].leads(Leads::Other(quorum.peer(1, 0)));
    follower.lost.lock().unwrap().send_replace(true);
    let error = client.list_images(None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotTaken, "{error}");
}

/// A node that answers at the leader's address and is not the leader gets nothing.
#[tokio::test]
async fn a_call_is_not_forwarded_to_another_node() {
    let quorum = Quorum::start(3).await;
    let identity = quorum.authority.identity_of(Role::Manager, node(1));
    let source = warren_client::IdentitySource::new(identity).unwrap();
    let wrong = PeerClient::connect_lazy(quorum.managers[2].address.to_string(), node(0), &source);
    let error = wrong.channel().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(error.message.contains("another node answers at"), "{error}");
    quorum.managers[1].leads(Leads::Other(wrong));
    let client = quorum
        .client(Role::Admin, &[1])
        .with_patience(Duration::ZERO);
    let error = client.create_service(&spec("web")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotTaken, "{error}");
    assert_eq!(quorum.managers[2].calls(), 0);
}

#[tokio::test]
async fn a_follower_that_stops_ends_the_streams_that_it_forwards() {
    let mut quorum = Quorum::start(2).await;
    let transport = GrpcTransport::new(quorum.client(Role::Worker, &[1]));
    let (sender, mut receiver) = transport.open().await.unwrap();
    sender.send(WorkerMessage::default()).await.unwrap();
    receiver.recv().await.unwrap();
    let began = std::time::Instant::now();
    quorum.managers[1].signal_stop();
    let end = tokio::time::timeout(PATIENCE, receiver.recv()).await;
    assert!(end.expect("the session goes on").is_none());
    // The node has not closed its side, and still neither manager waits for it.
    quorum.managers[1].ended().await;
    quorum.managers[0].signal_stop();
    quorum.managers[0].ended().await;
    assert!(began.elapsed() < warren_api::Limits::default().drain);
    drop(sender);
}

/// More open calls through one follower than one client's connection may have: managers have a limit of their own.
#[tokio::test]
async fn many_open_streams_through_one_follower_block_nothing() {
    let quorum = Quorum::start(2).await;
    let leader = Arc::clone(&quorum.managers[0].memory);
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let transport = GrpcTransport::new(quorum.client(Role::Worker, &[1]));
        for _ in 0..100 {
            sessions.push(transport.open().await.unwrap());
        }
    }
    let open =
        |calls: &[(&str, warren_api::Caller)]| calls.iter().filter(|c| c.0 == "Session").count();
    assert_eq!(open(&leader.calls.lock().unwrap()), 400);
    let client = quorum.client(Role::Admin, &[1]);
    client.create_service(&spec("web")).await.unwrap();
    for (sender, receiver) in &mut sessions {
        sender.send(WorkerMessage::default()).await.unwrap();
        receiver.recv().await.unwrap();
    }
}
