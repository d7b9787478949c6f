//! Events, logs, exec, image import, node sessions.

use crate::setup::{PATIENCE, Running};
use async_trait::async_trait;
use futures::StreamExt as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use warren_client::{
    ClientError, ErrorKind, ExecInput, ExecOutput, GrpcTransport, InProcessTransport,
    SessionAcceptor, SessionTransport, v1,
};
use warren_proto::session::{Hello, ManagerMessage, Welcome, WorkerMessage};
use warren_proto::session::{manager_message, worker_message};
use warren_types::Role;

/// Waits until something is so.
pub async fn until(mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it never came about");
}

#[tokio::test]
async fn events_come_from_a_revision_on() {
    let running = Running::start().await;
    let client = running.client(Role::Viewer).await;
    let request = v1::StreamEventsRequest {
        event_types: vec!["service.created".to_owned()],
        since_revision: Some(41),
        follow: Some(false),
    };
    let events: Vec<_> = client.stream_events(request).await.unwrap().collect().await;
    assert_eq!(events.len(), 1);
    let event = events[0].as_ref().unwrap();
    assert_eq!(
        (event.r#type.as_str(), event.revision),
        ("service.created", 42)
    );
}

#[tokio::test]
async fn a_log_query_arrives_whole_and_neither_stream_means_both() {
    let running = Running::start().await;
    let client = running.client(Role::Viewer).await;
    let request = v1::GetLogsRequest {
        service: "web".to_owned(),
        tail: Some(0),
        since: Some(prost_types::Timestamp {
            seconds: 2,
            nanos: 5_000_000,
        }),
        ..Default::default()
    };
    let lines: Vec<_> = client.logs(request).await.unwrap().collect().await;
    let text = String::from_utf8(lines[0].as_ref().unwrap().data.clone()).unwrap();
    for part in [
        "service: Some(\"web\")",
        "tail: Some(0)",
        "Timestamp(2005)",
        "stdout: true",
        "stderr: true",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn exec_carries_bytes_both_ways_and_the_exit_code() {
    let running = Running::start().await;
    let client = running.client(Role::Operator).await;
    let start = v1::ExecStart {
        container: "web.1".to_owned(),
        command: vec!["cat".to_owned()],
        ..Default::default()
    };
    let input = futures::stream::iter([
        ExecInput::Stdin("abc".into()),
        ExecInput::Resize {
            columns: 80,
            rows: 24,
        },
        ExecInput::Eof,
    ]);
    let output: Vec<_> = client
        .exec(start.clone(), input)
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    assert_eq!(
        output,
        [
            ExecOutput::Stdout("abc".into()),
            ExecOutput::Stderr("80x24".into()),
            ExecOutput::Exit(3)
        ]
    );
    let nothing = v1::ExecStart {
        command: Vec::new(),
        ..start
    };
    let error = client
        .exec(nothing, futures::stream::empty())
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn an_archive_arrives_byte_for_byte() {
    let running = Running::start().await;
    let client = running.client(Role::Operator).await;
    let archive: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let images = client
        .import_image(
            v1::ImportOptions::default(),
            io::Cursor::new(archive.clone()),
        )
        .await
        .unwrap();
    assert_eq!(images.len(), 1);
    let imported = running.memory.imported.lock().unwrap();
    assert!(imported[0].as_ref().unwrap() == &archive, "bytes differ");
}

/// Gives some bytes, then fails.
struct Breaks(usize);

impl AsyncRead for Breaks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(io::Error::other("the disk broke")));
        }
        let n = buf.remaining().min(self.0);
        buf.put_slice(&vec![7; n]);
        self.0 -= n;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn half_an_archive_is_never_taken_for_a_whole_one() {
    let running = Running::start().await;
    let client = running.client(Role::Operator).await;
    let error = client
        .import_image(v1::ImportOptions::default(), Breaks(600_000))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Local);
    assert!(error.message.contains("the disk broke"), "{error}");
    tokio::time::timeout(PATIENCE, running.memory.import_ended.notified())
        .await
        .expect("the import hangs");
    let imported = running.memory.imported.lock().unwrap();
    assert!(imported[0].is_err(), "taken for whole");
}

fn hello() -> WorkerMessage {
    WorkerMessage {
        body: Some(worker_message::Body::Hello(Hello::default())),
    }
}

fn session_id(message: &ManagerMessage) -> u64 {
    match &message.body {
        Some(manager_message::Body::Welcome(welcome)) => welcome.session_id,
        other => panic!("{other:?}"),
    }
}

async fn converse(transport: &dyn SessionTransport) {
    let (to, mut from) = transport.open().await.unwrap();
    for number in 1..=3 {
        to.send(hello()).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, from.recv())
            .await
            .expect("no answer")
            .expect("ended");
        assert_eq!(session_id(&answer), number);
    }
    drop(to);
    let end = tokio::time::timeout(PATIENCE, from.recv()).await;
    assert!(end.expect("the session stays open").is_none());
}

#[tokio::test]
async fn a_node_talks_over_its_session() {
    let running = Running::start().await;
    let transport = GrpcTransport::new(running.client(Role::Worker).await);
    converse(&transport).await;
    // Again over the same connection.
    converse(&transport).await;
    let calls = running.memory.calls.lock().unwrap();
    assert_eq!(calls[0].1.node, Some(crate::memory::NODE_A));
}

#[tokio::test]
async fn an_operator_has_no_session() {
    let running = Running::start().await;
    let transport = GrpcTransport::new(running.client(Role::Operator).await);
    let error = transport.open().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
}

struct Echo;

#[async_trait]
impl SessionAcceptor for Echo {
    async fn accept(
        &self,
        mut inbound: mpsc::Receiver<WorkerMessage>,
        outbound: mpsc::Sender<ManagerMessage>,
    ) -> Result<(), ClientError> {
        tokio::spawn(async move {
            let mut number = 0;
            while inbound.recv().await.is_some() {
                number += 1;
                let body = manager_message::Body::Welcome(Welcome {
                    session_id: number,
                    ..Default::default()
                });
                let message = ManagerMessage { body: Some(body) };
                if outbound.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

#[tokio::test]
async fn the_same_conversation_works_inside_one_process() {
    converse(&InProcessTransport::new(Arc::new(Echo))).await;
}
