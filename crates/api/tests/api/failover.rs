//! The client over several managers: whom it talks to, what it repeats, what it does not.

use crate::calls::spec;
use crate::managers::{Leads, QUICK, Quorum};
use crate::setup::PATIENCE;
use crate::streams::until;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use warren_client::{Client, ErrorKind, GrpcTransport, SessionTransport as _, Target};
use warren_types::Role;

/// A kill -9 of the manager that a client talks to: the next call is answered by another one (budget 500 ms).
#[tokio::test]
async fn the_next_call_after_a_kill_is_answered_by_another_manager() {
    let mut quorum = Quorum::start(3).await;
    for manager in &quorum.managers {
        manager.leads(Leads::Me);
    }
    let client = quorum.client(Role::Admin, &[0, 1, 2]);
    for killed in 0..2 {
        client.list_services().await.unwrap();
        let from = quorum.managers[killed].address.to_string();
        assert_eq!(client.last_answer().from, from);
        quorum.managers[killed].kill();
        let began = Instant::now();
        client.list_services().await.unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_millis(500), "{took:?}");
        let next = quorum.managers[killed + 1].address.to_string();
        assert_eq!(client.last_answer().from, next);
        // And the ones after it do not try the dead one again.
        let made = client.create_service(&spec(&format!("s{killed}"))).await;
        assert_eq!(made.unwrap().name, format!("s{killed}"));
    }
}

#[tokio::test]
async fn a_hundred_callers_leave_a_silent_manager_together() {
    let quorum = Quorum::start(1).await;
    // Takes connections and says nothing, like a machine that hangs.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let hanging = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let mut addresses = vec![address];
    addresses.extend(quorum.addresses(&[0]));
    let client = Client::connect_lazy(Target::Tcp {
        addresses,
        identity: quorum.authority.identity(Role::Viewer),
    })
    .unwrap();
    let began = Instant::now();
    let calls = (0..100).map(|_| {
        let client = client.clone();
        async move { client.list_services().await }
    });
    for answer in futures::future::join_all(calls).await {
        answer.unwrap();
    }
    // One second for the silent address, not one for each caller.
    assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
    hanging.abort();
}

#[tokio::test]
async fn a_refused_call_goes_to_the_leader_that_is_named() {
    let quorum = Quorum::start(3).await;
    let leader = quorum.managers[2].address.to_string();
    quorum.managers[2].leads(Leads::Me);
    for number in [0, 1] {
        quorum.managers[number].leads(Leads::Hint(leader.clone()));
    }
    // The leader is none of the addresses that the client knows.
    let client = quorum.client(Role::Admin, &[0, 1]);
    client.create_service(&spec("web")).await.unwrap();
    assert_eq!(client.last_answer().from, leader);
    assert!(quorum.managers[2].memory.has_service("web"));
    // It stays there.
    client.delete_service("web").await.unwrap();
    let asked = |number: usize| quorum.managers[number].router.asked.lock().unwrap().len();
    assert_eq!((asked(0), asked(1), asked(2)), (1, 0, 2));
}

#[tokio::test]
async fn a_leader_that_is_named_and_gone_does_not_stop_the_client() {
    let quorum = Quorum::start(2).await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    quorum.managers[0].leads(Leads::Hint(closed));
    quorum.managers[1].leads(Leads::Me);
    let client = quorum.client(Role::Admin, &[0, 1]);
    client.create_service(&spec("web")).await.unwrap();
    assert!(quorum.managers[1].memory.has_service("web"));
}

/// Any call, also one without a key: the managers say that nothing has happened.
#[tokio::test]
async fn calls_wait_for_an_election() {
    let quorum = Quorum::start(2).await;
    for manager in &quorum.managers {
        manager.leads(Leads::Nobody);
    }
    let client = quorum.client(Role::Admin, &[0, 1]);
    let (making, transport) = (
        client.clone(),
        GrpcTransport::new(quorum.client(Role::Worker, &[0, 1])),
    );
    let making = tokio::spawn(async move { making.remove_node("gone", false).await });
    let session = tokio::spawn(async move { transport.open().await.map(drop) });
    let routers: Vec<_> = quorum
        .managers
        .iter()
        .map(|m| Arc::clone(&m.router))
        .collect();
    let asked = || -> usize { routers.iter().map(|r| r.asked.lock().unwrap().len()).sum() };
    until(|| asked() >= 8).await;
    quorum.managers[1].leads(Leads::Me);
    // It arrived, once.
    let error = making.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    session.await.unwrap().unwrap();
    let calls = quorum.managers[1].memory.calls.lock().unwrap().clone();
    let count = |name| calls.iter().filter(|(call, _)| *call == name).count();
    assert_eq!((count("RemoveNode"), count("Session")), (1, 1));
}

#[tokio::test]
async fn what_may_have_happened_is_repeated_only_with_a_key() {
    let mut quorum = Quorum::start(2).await;
    for manager in &quorum.managers {
        manager.leads(Leads::Me);
    }
    *quorum.managers[0].memory.gate.lock().unwrap() = Some(Arc::new(Notify::new()));
    let creating = {
        let client = quorum.client(Role::Admin, &[0, 1]);
        tokio::spawn(async move { client.create_service(&spec("keyed")).await })
    };
    let deleting = {
        let client = quorum.client(Role::Admin, &[0, 1]);
        tokio::spawn(async move { client.delete_service("any").await })
    };
    let memory = Arc::clone(&quorum.managers[0].memory);
    until(|| memory.calls.lock().unwrap().len() == 2).await;
    quorum.managers[0].kill();
    let unknown = deleting.await.unwrap().unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::Unavailable, "{unknown}");
    creating.await.unwrap().unwrap();
    assert!(quorum.managers[1].memory.has_service("keyed"));
    let calls = quorum.managers[1].memory.calls.lock().unwrap().clone();
    assert!(
        calls.iter().all(|(name, _)| *name == "CreateService"),
        "{calls:?}"
    );
}

#[tokio::test]
async fn when_nobody_is_there_the_error_names_all_and_is_certain() {
    let mut quorum = Quorum::start(2).await;
    let client = quorum.client(Role::Admin, &[0, 1]);
    let addresses = quorum.addresses(&[0, 1]);
    for manager in &mut quorum.managers {
        manager.kill();
    }
    let listening = || {
        addresses
            .iter()
            .any(|a| std::net::TcpStream::connect(a).is_ok())
    };
    until(|| !listening()).await;
    let call = client.delete_service("web");
    let error = tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotTaken, "{error}");
    for address in &addresses {
        assert!(error.message.contains(address.as_str()), "{error}");
    }
    assert_eq!(error.exit_code(), 3);
}

#[tokio::test]
async fn the_list_of_managers_may_change() {
    let quorum = Quorum::start(2).await;
    let transport = GrpcTransport::new(quorum.client(Role::Worker, &[1]));
    let client = quorum.client(Role::Viewer, &[0]);
    client.list_services().await.unwrap();
    client.set_managers(&quorum.addresses(&[1, 0]));
    client.list_services().await.unwrap();
    // The connection that it had is kept.
    assert_eq!(client.last_answer().from, quorum.addresses(&[0])[0]);
    client.set_managers(&quorum.addresses(&[1]));
    client.list_services().await.unwrap();
    assert_eq!(client.last_answer().from, quorum.addresses(&[1])[0]);
    transport.set_managers(&quorum.addresses(&[0]));
    transport.open().await.unwrap();
    assert!(quorum.managers[1].router.asked.lock().unwrap().len() <= 1);
    client.set_managers(&[]);
    let error = client.list_services().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
}
