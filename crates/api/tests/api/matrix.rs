//! S5, S6: every RPC × every role, from the descriptors and the table.

use crate::raw::{Way, call, channel, tls_channel};
use crate::setup::{Running, skipped_without_root};
use prost::Message as _;
use std::process::Stdio;
use tonic::Code;
use tonic::transport::Channel;
use warren_proto::{FILE_DESCRIPTOR_SET, authz};
use warren_types::Role;

const ROLES: [Role; 6] = [
    Role::None,
    Role::Worker,
    Role::Manager,
    Role::Viewer,
    Role::Operator,
    Role::Admin,
];
/// Socket for the child process of `strangers_on_the_socket_are_refused`.
const CHILD_SOCKET: &str = "WARREN_API_TEST_SOCKET";
const CHILD_TEST: &str = "matrix::child_of_the_stranger_test";

fn every_rpc() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut paths = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    assert!(paths.len() >= 51, "{} RPCs", paths.len());
    paths
}

async fn code(channel: &Channel, path: &str) -> (Code, String) {
    match call(channel, path, Vec::new()).await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

/// What an empty request of a caller who may gets. The point is that it is never a refusal.
fn expected_when_allowed(path: &str) -> &'static [Code] {
    let method = path.rsplit('/').next().unwrap();
    match method {
        // These need nothing.
        "ListNodes" | "ListServices" | "ListContainers" | "ListSecrets" | "ListVolumes"
        | "GetClusterInfo" | "GetStatus" | "StopDaemon" | "StreamEvents" | "WatchContainers"
        | "ListImages" | "Session" => &[Code::Ok],
        // An archive without its end.
        "ImportImage" => &[Code::Unavailable],
        // Not part of the control plane of this test; the call arrives all the same.
        "ListIngresses"
        | "ListTLSCertificates"
        | "ListJoinTokens"
        | "UpdateClusterSettings"
        | "TransferLeadership"
        | "RecoverCluster"
        | "SetAutoLock"
        | "RotateCertificateAuthority"
        | "RotateDataKey" => &[Code::Unimplemented],
        "UnlockCluster" => &[Code::FailedPrecondition],
        // This server has no other managers.
        "Call" | "SnapshotBegin" | "SnapshotSend" | "ReadIndex" | "DataKeys" => {
            &[Code::Unimplemented]
        }
        _ => &[Code::InvalidArgument],
    }
}

#[tokio::test]
async fn every_rpc_answers_every_role_as_the_table_says() {
    let running = Running::start().await;
    for role in ROLES {
        let channel = tls_channel(running.address, &running.authority.identity(role)).await;
        for path in every_rpc() {
            let before = running.calls();
            let (code, text) = code(&channel, &path).await;
            if authz::allowed(&path, role) {
                assert!(
                    expected_when_allowed(&path).contains(&code),
                    "{path} as {role:?}: {code:?} {text}"
                );
            } else {
                assert_eq!(code, Code::PermissionDenied, "{path} as {role:?}: {text}");
                assert!(text.contains("role"), "{path}: {text}");
                assert_eq!(running.calls(), before, "{path} as {role:?} got through");
            }
        }
    }
}

#[tokio::test]
async fn root_on_the_socket_may_do_all_that_an_admin_may() {
    if skipped_without_root("root_on_the_socket_may_do_all_that_an_admin_may") {
        return;
    }
    let running = Running::start().await;
    let channel = channel(Way::Unix(running.socket.clone())).await;
    for path in every_rpc() {
        let (code, text) = code(&channel, &path).await;
        let allowed = authz::allowed(&path, Role::Admin);
        assert_eq!(
            code != Code::PermissionDenied,
            allowed,
            "{path}: {code:?} {text}"
        );
    }
}

#[tokio::test]
async fn a_call_without_a_row_is_refused_to_everybody() {
    let running = Running::start().await;
    for role in [Role::None, Role::Admin] {
        let channel = tls_channel(running.address, &running.authority.identity(role)).await;
        for path in [
            "/warren.v1.WarrenAPI/DropEverything",
            "/no.such.Service/Call",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            let (code, _) = code(&channel, path).await;
            assert_eq!(code, Code::Unimplemented, "{path}");
        }
    }
}

#[tokio::test]
async fn health_is_open_to_all_and_reflection_to_members() {
    let running = Running::start().await;
    let nobody = tls_channel(running.address, &running.authority.identity(Role::None)).await;
    let health = "/grpc.health.v1.Health/Check";
    // service = "warren.v1.WarrenAPI"; the answer's field 1 is 1: serving.
    let mut request = vec![0x0a, 19];
    request.extend_from_slice(b"warren.v1.WarrenAPI");
    let answer = call(&nobody, health, request).await.unwrap();
    assert_eq!(answer, Some(vec![0x08, 1]));
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    // list_services, field 7.
    let list = vec![0x3a, 0];
    let denied = call(&nobody, reflection, list.clone()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let viewer = tls_channel(running.address, &running.authority.identity(Role::Viewer)).await;
    let answer = call(&viewer, reflection, list).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer);
    for service in [
        "warren.v1.WarrenAPI",
        "warren.session.v1.NodeSession",
        "grpc.health.v1.Health",
    ] {
        assert!(text.contains(service), "{text}");
    }
}

/// Even when somebody opens the socket's permissions, the kernel's word about the peer counts.
#[tokio::test]
async fn strangers_on_the_socket_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    if skipped_without_root("strangers_on_the_socket_are_refused") {
        return;
    }
    let running = Running::start().await;
    let mode = std::fs::metadata(&running.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(running.socket.parent().unwrap(), 0o755);
    open(&running.socket, 0o666);
    // The program must be readable for the other user too.
    let copy = running.socket.with_file_name("child");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    open(&copy, 0o755);
    let mut command = tokio::process::Command::new(&copy);
    command
        .args([CHILD_TEST, "--exact", "--nocapture"])
        .env(CHILD_SOCKET, &running.socket)
        .current_dir("/")
        .uid(65_534)
        .gid(65_534)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(crate::setup::PATIENCE, command.output())
        .await
        .expect("the child hangs")
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("CHILD SAW EVERY REFUSAL"), "{text}");
    assert_eq!(running.calls(), 0);
}

/// Runs as another user, started by the test above; alone it does nothing.
#[tokio::test]
async fn child_of_the_stranger_test() {
    let Some(socket) = std::env::var_os(CHILD_SOCKET) else {
        return;
    };
    let channel = channel(Way::Unix(socket.into())).await;
    for path in every_rpc() {
        let (code, text) = code(&channel, &path).await;
        if authz::allowed(&path, Role::None) {
            assert_ne!(code, Code::PermissionDenied, "{path}");
            continue;
        }
        assert_eq!(code, Code::PermissionDenied, "{path}");
        assert!(text.contains("group warren"), "{text}");
    }
    eprintln!("the calls of uid 65534 were refused");
    use std::io::Write as _;
    writeln!(std::io::stdout(), "CHILD SAW EVERY REFUSAL").unwrap();
}
