//! Unary calls: what arrives, what comes back, and the code of each kind of failure.

use crate::memory::NODE_A;
use crate::setup::Running;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use warren_api::Limits;
use warren_client::{ClientError, ErrorKind, v1};
use warren_types::{ContainerSpec, Mode, Revision, Role, ServiceSpec};

pub fn spec(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        container: ContainerSpec {
            image: "nginx:1".to_owned(),
            ..ContainerSpec::default()
        },
        ..ServiceSpec::default()
    }
}

#[tokio::test]
async fn a_service_goes_through_its_life() {
    let running = Running::start().await;
    let client = running.client(Role::Operator).await;
    let made = client.create_service(&spec("web")).await.unwrap();
    assert_eq!(made.name, "web");
    assert_eq!(made.image, "nginx:1");
    assert_eq!((made.running_count, made.desired_count), (1, 2));
    assert_eq!(made.reason, "1 of 2 runs");
    let mut wanted = spec("web");
    wanted.container.image = "nginx:2".to_owned();
    let version = Some(Revision(made.version));
    let updated = client
        .replace_service("web", &wanted, version)
        .await
        .unwrap();
    assert_eq!(updated.image, "nginx:2");
    let stale = client.replace_service("web", &wanted, version).await;
    assert_eq!(stale.unwrap_err().kind, ErrorKind::Conflict);
    let scaled = client.scale_service(&made.id, 0).await.unwrap();
    assert_eq!(scaled.replicas, 0);
    let found = client.get_service("web").await.unwrap();
    assert_eq!(found.revisions.len(), 1);
    let back = ServiceSpec::try_from(found.spec.unwrap()).unwrap();
    assert_eq!(back.mode, Mode::Replicated { replicas: 0 });
    let rolled = client.rollback("web", None).await.unwrap();
    assert_eq!(rolled.image, "nginx:1");
    assert_eq!(client.list_services().await.unwrap().len(), 1);
    client.delete_service("web").await.unwrap();
    let gone = client.get_service("web").await.unwrap_err();
    assert_eq!(gone.exit_code(), 4);
    assert!(gone.message.contains("warren service list"), "{gone}");
}

#[tokio::test]
async fn an_older_client_creates_and_updates_by_single_fields() {
    let running = Running::start().await;
    let client = running.client(Role::Operator).await;
    let made = client
        .create_service_with(v1::CreateServiceRequest {
            name: "web".to_owned(),
            image: "nginx:1".to_owned(),
            replicas: 2,
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!((made.replicas, made.mode.as_str()), (2, "replicated"));
    // Others change the service twice between our reading and writing.
    running.memory.conflicts.store(2, Ordering::SeqCst);
    let updated = client
        .update_service(v1::UpdateServiceRequest {
            id: made.id.clone(),
            replicas: 5,
            env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
            ..Default::default()
        })
        .await
        .unwrap()
        .service
        .unwrap();
    assert_eq!((updated.replicas, updated.image.as_str()), (5, "nginx:1"));
    assert_eq!(updated.env["A"], "1");
    let answer = client
        .update_service_image(v1::UpdateServiceImageRequest {
            id: "web".to_owned(),
            image: "nginx:3".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(answer.status, "deployment initiated");
    let found = client.get_service("web").await.unwrap();
    assert_eq!((found.replicas, found.image.as_str()), (5, "nginx:3"));
    // With a version of its own, the caller hears of the conflict.
    running.memory.conflicts.store(1, Ordering::SeqCst);
    let fenced = client
        .update_service(v1::UpdateServiceRequest {
            id: "web".to_owned(),
            replicas: 1,
            expected_version: found.version,
            ..Default::default()
        })
        .await;
    assert_eq!(fenced.unwrap_err().kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let running = Running::start().await;
    let client = running.client(Role::Operator).await;
    client
        .create_service_with(v1::CreateServiceRequest {
            spec: Some((&spec("web")).into()),
            dry_run: true,
            ..Default::default()
        })
        .await
        .unwrap();
    assert!(!running.memory.has_service("web"));
}

fn check(what: &str, result: Result<(), ClientError>, kind: ErrorKind, text: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.kind, kind, "{what}: {error}");
    assert!(error.message.contains(text), "{what}: {error}");
}

#[tokio::test]
async fn bad_input_is_refused_with_the_field_and_a_remedy() {
    use ErrorKind::{
        AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied,
        Unimplemented,
    };
    let running = Running::start().await;
    let c = running.client(Role::Admin).await;
    c.create_service(&spec("web")).await.unwrap();
    let calls = running.calls();
    let create = |s: ServiceSpec| {
        let c = c.clone();
        async move { c.create_service(&s).await.map(drop) }
    };
    check(
        "bad name",
        create(spec("No Good!")).await,
        InvalidArgument,
        "name",
    );
    check(
        "no image",
        create(ServiceSpec {
            container: ContainerSpec::default(),
            ..spec("a")
        })
        .await,
        InvalidArgument,
        "image",
    );
    let many = ServiceSpec {
        mode: Mode::Replicated { replicas: u32::MAX },
        ..spec("a")
    };
    check("too many", create(many).await, InvalidArgument, "replicas");
    check(
        "both wrong",
        create(spec("")).await,
        InvalidArgument,
        "name",
    );
    let none = v1::UpdateServiceRequest::default();
    check(
        "no target",
        c.update_service(none).await.map(drop),
        InvalidArgument,
        "id",
    );
    check(
        "scale",
        c.scale_service("web", u32::MAX).await.map(drop),
        InvalidArgument,
        "replicas",
    );
    let empty = BTreeMap::new;
    check(
        "secret name",
        c.create_secret("A B", vec![1], empty()).await.map(drop),
        InvalidArgument,
        "name",
    );
    check(
        "empty secret",
        c.create_secret("a", vec![], empty()).await.map(drop),
        InvalidArgument,
        "data",
    );
    let big = vec![0; warren_types::limits::SECRET_BYTES_MAX + 1];
    check(
        "big secret",
        c.create_secret("a", big, empty()).await.map(drop),
        InvalidArgument,
        "data",
    );
    let volume = v1::CreateVolumeRequest {
        name: "v".to_owned(),
        driver: "nfs".to_owned(),
        ..Default::default()
    };
    check(
        "driver",
        c.create_volume(volume).await.map(drop),
        InvalidArgument,
        "driver",
    );
    let node = v1::UpdateNodeRequest {
        id: "n".to_owned(),
        availability: Some("off".to_owned()),
        ..Default::default()
    };
    check(
        "availability",
        c.update_node(node).await.map(drop),
        InvalidArgument,
        "drain",
    );
    let token = v1::GenerateJoinTokenRequest {
        role: "king".to_owned(),
        ..Default::default()
    };
    check(
        "token role",
        c.generate_join_token(token).await.map(drop),
        InvalidArgument,
        "worker",
    );
    let events = v1::StreamEventsRequest {
        event_types: vec!["x".to_owned()],
        ..Default::default()
    };
    check(
        "event",
        c.stream_events(events).await.map(drop),
        InvalidArgument,
        "service.created",
    );
    check(
        "logs",
        c.logs(v1::GetLogsRequest::default()).await.map(drop),
        InvalidArgument,
        "exactly one",
    );
    check(
        "long id",
        c.get_service(&"x".repeat(300)).await.map(drop),
        InvalidArgument,
        "300",
    );
    assert_eq!(
        running.calls(),
        calls,
        "bad input reached the control plane"
    );

    check(
        "twice",
        create(spec("web")).await,
        AlreadyExists,
        "service update",
    );
    check(
        "missing",
        c.get_node("nix").await.map(drop),
        NotFound,
        "warren node list",
    );
    check(
        "in use",
        c.delete_volume("v", false).await,
        FailedPrecondition,
        "delete the service",
    );
    check(
        "ingress",
        c.list_ingresses(v1::ListIngressesRequest {})
            .await
            .map(drop),
        Unimplemented,
        "ListIngresses",
    );
    let certificate = v1::RequestCertificateRequest {
        node_id: "n".to_owned(),
        token: "t".to_owned(),
        ..Default::default()
    };
    check(
        "token",
        c.request_certificate(certificate).await.map(drop),
        PermissionDenied,
        "join token",
    );
}

#[tokio::test]
async fn a_secret_never_comes_back() {
    let running = Running::start().await;
    let client = running.local().await;
    let made = client
        .create_secret("pw", b"hunter2".to_vec(), BTreeMap::new())
        .await
        .unwrap();
    assert_eq!((made.size, made.data.len()), (7, 0));
    assert_eq!(running.memory.plaintexts.lock().unwrap()[0], b"hunter2");
    let found = client.get_secret("pw").await.unwrap();
    assert!(found.data.is_empty(), "not even sealed");
    client
        .update_secret("pw", b"other".to_vec(), None)
        .await
        .unwrap();
    client.delete_secret("pw").await.unwrap();
    assert_eq!(client.get_secret("pw").await.unwrap_err().exit_code(), 4);
}

#[tokio::test]
async fn a_worker_sees_its_own_containers_only() {
    let running = Running::start().await;
    let worker = running.client(Role::Worker).await;
    let viewer = running.client(Role::Viewer).await;
    let all = v1::ListContainersRequest::default;
    assert_eq!(viewer.list_containers(all()).await.unwrap().len(), 2);
    let own = worker.list_containers(all()).await.unwrap();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].node_id, NODE_A.to_string());
    worker.get_container("web.1").await.unwrap();
    let others = worker.get_container("web.2").await.unwrap_err();
    assert_eq!(others.kind, ErrorKind::PermissionDenied);
    use futures::StreamExt as _;
    let other = v1::WatchContainersRequest {
        node_id: crate::memory::NODE_B.to_string(),
        ..Default::default()
    };
    let seen: Vec<_> = worker
        .watch_containers(other)
        .await
        .unwrap()
        .collect()
        .await;
    assert_eq!(seen.len(), 1);
    let event = seen[0].as_ref().unwrap();
    assert_eq!(event.r#type, "add");
    assert_eq!(
        event.container.as_ref().unwrap().node_id,
        NODE_A.to_string()
    );
}

#[tokio::test]
async fn the_caller_is_who_the_certificate_says() {
    let running = Running::start().await;
    running.client(Role::Worker).await.status().await.unwrap();
    running.local().await.status().await.unwrap();
    let calls = running.memory.calls.lock().unwrap();
    let worker = &calls[0].1;
    assert_eq!(worker.role, Role::Worker);
    assert_eq!(worker.name, "the-worker");
    assert_eq!(worker.node, Some(NODE_A));
    if crate::setup::is_root() {
        assert_eq!(calls[1].1.role, Role::Admin);
        assert_eq!(calls[1].1.name, "uid:0");
    }
}

#[tokio::test]
async fn a_change_goes_on_when_its_caller_goes_away() {
    let running = Running::start().await;
    let gate = Arc::new(tokio::sync::Notify::new());
    *running.memory.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let client = running.client(Role::Operator).await;
    let call = tokio::spawn(async move { client.create_service(&spec("kept")).await });
    crate::streams::until(|| running.calls() == 1).await;
    call.abort();
    drop(call.await);
    gate.notify_one();
    crate::streams::until(|| running.memory.has_service("kept")).await;
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up() {
    let limits = Limits {
        call: Duration::from_millis(100),
        ..Limits::default()
    };
    let running = Running::with_limits(limits).await;
    let client = running.client(Role::Viewer).await;
    let error = client.get_service("hang").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn a_panic_in_a_handler_costs_one_call() {
    let running = Running::start().await;
    let client = running.client(Role::Operator).await;
    let update = v1::UpdateServiceRequest {
        id: "panic".to_owned(),
        replicas: 1,
        ..Default::default()
    };
    let error = client.update_service(update).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    client.status().await.unwrap();
}
