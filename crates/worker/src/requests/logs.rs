//! Log lines of one container.

use super::{Answer, runtime_error};
use crate::requests::{code, error};
use crate::sets::container_id;
use crate::shared::Shared;
use futures::StreamExt;
use std::sync::Arc;
use warren_proto::session::{self, LogChunk, LogEnd, LogRequest, reply};
use warren_proto::v1::LogEntry;
use warren_runtime::{LogLine, LogQuery, LogSource};
use warren_types::{ContainerId, Timestamp};

/// Lines in one message.
const LINES_MAX: usize = 256;
/// Bytes in one message, about.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

pub(super) async fn serve(
    shared: &Arc<Shared>,
    request: LogRequest,
    answer: &Answer,
) -> Result<(), session::Error> {
    let id = container_id(&request.container_id)
        .map_err(|e| error(code::INVALID_ARGUMENT, e.to_string(), "report this"))?;
    let query = LogQuery {
        follow: request.follow,
        tail: request.tail.map(u64::from),
        since: request.since_ms.map(Timestamp),
        stdout: request.stdout || !request.stderr,
        stderr: request.stderr || !request.stdout,
    };
    let lines = shared
        .driver
        .logs(id, query)
        .await
        .map_err(|e| runtime_error(&e))?;
    let mut chunks = lines.ready_chunks(LINES_MAX);
    while let Some(lines) = chunks.next().await {
        let mut entries = Vec::with_capacity(lines.len());
        let mut bytes = 0;
        for line in lines {
            let line = line.map_err(|e| runtime_error(&e))?;
            bytes += line.bytes.len();
            entries.push(entry(id, line));
            if bytes >= CHUNK_BYTES_MAX {
                bytes = 0;
                send(answer, std::mem::take(&mut entries)).await?;
            }
        }
        send(answer, entries).await?;
    }
    answer.send(reply::Body::LogEnd(LogEnd {})).await;
    Ok(())
}

async fn send(answer: &Answer, entries: Vec<LogEntry>) -> Result<(), session::Error> {
    if entries.is_empty() || answer.send(reply::Body::Log(LogChunk { entries })).await {
        return Ok(());
    }
    Err(error(
        code::INTERNAL,
        "the session has ended".to_owned(),
        "ask again",
    ))
}

fn entry(id: ContainerId, line: LogLine) -> LogEntry {
    let stream = match line.source {
        LogSource::Stdout => "stdout",
        LogSource::Stderr => "stderr",
        LogSource::System => "warren",
    };
    let mut data = line.bytes;
    if !line.partial {
        data.push(b'\n');
    }
    LogEntry {
        container_id: id.to_string(),
        time: Some(warren_proto::convert::timestamp_to_api(line.time)),
        stream: stream.to_owned(),
        data,
        ..LogEntry::default()
    }
}
