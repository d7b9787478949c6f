//! What certificates are worth, and how new answers are.

use crate::calls::spec;
use crate::managers::{Leads, Quorum, node};
use crate::memory::NODE_A;
use crate::raw::{call, tls_channel};
use std::time::Duration;
use tonic::Code;
use warren_api::{Freshness as Wanted, Stamp, Standing};
use warren_client::{ErrorKind, Freshness, GrpcTransport, SessionTransport as _, Staleness};
use warren_proto::headers;
use warren_types::Role;

const API: &str = "/warren.v1.WarrenAPI";
const PEER: &str = "/warren.peer.v1.Peer";

#[tokio::test]
async fn a_removed_node_is_told_so_and_what_to_do() {
    let quorum = Quorum::start(1).await;
    let leader = &quorum.managers[0];
    leader.router.set_standing(NODE_A, Standing::Removed);
    let client = quorum.client(Role::Worker, &[0]);
    let error = client.status().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Removed, "{error}");
    assert_eq!(error.exit_code(), 6);
    assert!(error.message.contains("warren node reset"), "{error}");
    let session = GrpcTransport::new(client).open().await.map(drop);
    assert_eq!(session.unwrap_err().kind, ErrorKind::Removed);
    // Another worker's certificate is not touched by that.
    let other = quorum.authority.identity_of(Role::Worker, node(9));
    let channel = tls_channel(leader.address, &other).await;
    call(&channel, &format!("{API}/GetStatus"), Vec::new())
        .await
        .unwrap();
    // A removed manager disturbs nobody.
    leader.router.set_standing(node(1), Standing::Removed);
    let error = quorum.peer(1, 0).read_index(Duration::from_secs(5)).await;
    assert_eq!(error.unwrap_err().kind, ErrorKind::Removed);
}

#[tokio::test]
async fn a_demoted_manager_counts_as_a_worker() {
    let quorum = Quorum::start(1).await;
    let leader = &quorum.managers[0];
    let identity = quorum.authority.identity_of(Role::Manager, node(5));
    let channel = tls_channel(leader.address, &identity).await;
    let code = async |path: String| match call(&channel, &path, Vec::new()).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    };
    assert_eq!(code(format!("{PEER}/ReadIndex")).await, Code::Ok);
    assert_eq!(code(format!("{API}/ListNodes")).await, Code::Ok);
    leader.router.set_standing(node(5), Standing::Demoted);
    for path in ["Call", "ReadIndex", "DataKeys", "SnapshotBegin"] {
        let path = format!("{PEER}/{path}");
        assert_eq!(code(path.clone()).await, Code::PermissionDenied, "{path}");
    }
    assert_eq!(
        code(format!("{API}/ListNodes")).await,
        Code::PermissionDenied
    );
    assert_eq!(code(format!("{API}/ListContainers")).await, Code::Ok);
    let (_, caller) = leader.last_call();
    assert_eq!((caller.role, caller.node), (Role::Worker, Some(node(5))));
}

#[tokio::test]
async fn a_node_that_is_not_listed_yet_may_join_and_nothing_else() {
    let quorum = Quorum::start(1).await;
    let leader = &quorum.managers[0];
    leader.router.set_standing(node(5), Standing::Unknown);
    let identity = quorum.authority.identity_of(Role::Manager, node(5));
    let channel = tls_channel(leader.address, &identity).await;
    for (path, passes) in [
        (format!("{API}/JoinCluster"), true),
        (format!("{API}/RenewCertificate"), true),
        (format!("{API}/RequestCertificate"), true),
        (format!("{PEER}/Call"), true),
        ("/grpc.health.v1.Health/Check".to_owned(), true),
        (format!("{API}/ListContainers"), false),
        (format!("{API}/GetStatus"), false),
        ("/warren.session.v1.NodeSession/Session".to_owned(), false),
    ] {
        let answer = call(&channel, &path, Vec::new()).await;
        let refused = answer.is_err_and(|status| {
            let refused = status.metadata().contains_key(headers::NOT_APPLIED);
            assert!(!refused || status.code() == Code::Unavailable);
            refused
        });
        assert_eq!(refused, !passes, "{path}");
    }
}

#[tokio::test]
async fn a_stale_answer_says_how_old_it_is() {
    let quorum = Quorum::start(1).await;
    let router = &quorum.managers[0].router;
    let client = quorum.client(Role::Viewer, &[0]);
    let stamped = async |stale, revision| {
        *router.stamp.lock().unwrap() = Stamp { stale, revision };
        client.list_services().await.unwrap();
        client.last_answer()
    };
    let fresh = stamped(None, 7).await;
    assert_eq!((fresh.stale, fresh.revision), (None, Some(7)));
    assert_eq!(fresh.from, quorum.managers[0].address.to_string());
    let age = Duration::from_millis(1234);
    let stale = stamped(Some(Some(age)), 8).await;
    assert_eq!(
        (stale.stale, stale.revision),
        (Some(Staleness::For(age)), Some(8))
    );
    let unknown = stamped(Some(None), 9).await;
    assert_eq!(unknown.stale, Some(Staleness::Unknown));
    assert_eq!(client.last_stale(), Some(Staleness::Unknown));
    // A stream says it at its beginning.
    *router.stamp.lock().unwrap() = Stamp {
        stale: Some(Some(age)),
        revision: 10,
    };
    let watcher = quorum.client(Role::Viewer, &[0]);
    drop(watcher.watch_containers(Default::default()).await.unwrap());
    assert_eq!(watcher.last_stale(), Some(Staleness::For(age)));
}

#[tokio::test]
async fn the_wanted_freshness_reaches_the_router() {
    let quorum = Quorum::start(1).await;
    for (read, wanted) in [
        (Freshness::Local, Wanted::Local),
        (Freshness::Linearizable, Wanted::Linearizable),
        (Freshness::Best, Wanted::Best),
    ] {
        let client = quorum.client(Role::Viewer, &[0]).with_read(read);
        client.list_services().await.unwrap();
        let asked = quorum.managers[0].router.asked.lock().unwrap();
        assert_eq!(asked.last().unwrap().1, wanted);
    }
    let identity = quorum.authority.identity(Role::Viewer);
    let channel = tls_channel(quorum.managers[0].address, &identity).await;
    let mut request = tonic::Request::new(());
    request
        .metadata_mut()
        .insert(headers::READ, "yesterday".parse().unwrap());
    let refused = crate::raw::call_with(
        &channel,
        &format!("{API}/ListServices"),
        request,
        Vec::new(),
    )
    .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_manager_outside_the_quorum_answers_reads_and_refuses_writes_with_the_reason() {
    let quorum = Quorum::start(1).await;
    let manager = &quorum.managers[0];
    manager.leads(Leads::Nobody);
    let stale = Some(Some(Duration::from_secs(9)));
    *manager.router.stamp.lock().unwrap() = Stamp { stale, revision: 3 };
    let patience = Duration::from_millis(300);
    let client = quorum.client(Role::Admin, &[0]).with_patience(patience);
    client.list_services().await.unwrap();
    assert!(client.last_stale().is_some());
    let began = std::time::Instant::now();
    let refused = client.create_service(&spec("web")).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NotTaken);
    assert_eq!(refused.exit_code(), 3);
    assert!(refused.message.contains("no manager leads"), "{refused}");
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(manager.calls(), 1);
}
