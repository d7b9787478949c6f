//! Logs: streams that ride on the sessions of the containers' nodes. Of a service, what can be had is shown, and for the
//! rest why not.

use super::{Control, containers, failure, services};
use crate::dispatcher::Request;
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use warren_api::{ApiError, ApiResult, ApiStream, Caller, LogQuery};
use warren_proto::session::{self, reply, request};
use warren_proto::v1;
use warren_state::ClusterState;
use warren_types::Container;

/// The stream of what the orchestrator itself says.
const NOTICE: &str = "warren";
/// Containers of a service whose logs are read at once.
const LOG_STREAMS_MAX: usize = 256;

pub(super) async fn logs(
    control: &Control,
    caller: &Caller,
    query: LogQuery,
) -> ApiResult<ApiStream<v1::LogEntry>> {
    let state = control.state();
    let meant = match (&query.service, &query.container) {
        (Some(service), _) => of_service(&state, service)?,
        (None, Some(container)) => vec![containers::find(&state, caller, container)?],
        (None, None) => {
            return Err(ApiError::field(
                "service",
                "neither a service nor a container is named",
                "name one",
            ));
        }
    };
    let mut opened = Vec::new();
    for container in meant.iter().filter(|c| c.node.is_some()) {
        let stream = log_stream(control, &state, container, &query).await;
        opened.push((of(&state, container), stream));
    }
    if query.follow {
        return follow(opened);
    }
    let mut read = Vec::new();
    for (of, stream) in opened {
        let entries = match stream {
            Ok(stream) => stream.try_collect().await,
            Err(error) => Err(error),
        };
        read.push((of, entries));
    }
    let entries = in_order(read)?;
    Ok(stream::iter(entries.into_iter().map(Ok)).boxed())
}

/// Whose log it is.
fn of(state: &ClusterState, container: &Arc<Container>) -> v1::LogEntry {
    let view = containers::view(state, container);
    v1::LogEntry {
        container_id: container.id.to_string(),
        container_name: view.name(),
        node_name: view.node_name,
        ..v1::LogEntry::default()
    }
}

/// What is said in the place of a log that cannot be had.
fn notice(of: &v1::LogEntry, error: &ApiError) -> v1::LogEntry {
    v1::LogEntry {
        stream: NOTICE.to_owned(),
        data: format!(
            "the log of {} (node {}) cannot be had: {error}\n",
            of.container_name, of.node_name
        )
        .into_bytes(),
        failure: error.code() as u32,
        ..of.clone()
    }
}

/// The lines of all containers in the order of their times, and a notice for each whose log could not be read. An error
/// when that is so for all.
fn in_order(
    read: Vec<(v1::LogEntry, ApiResult<Vec<v1::LogEntry>>)>,
) -> ApiResult<Vec<v1::LogEntry>> {
    let (mut entries, mut notices) = (Vec::new(), Vec::new());
    let mut first = None;
    let any = read.is_empty() || read.iter().any(|(_, entries)| entries.is_ok());
    for (of, outcome) in read {
        match outcome {
            Ok(lines) => entries.extend(lines),
            Err(error) => {
                notices.push(notice(&of, &error));
                first.get_or_insert(error);
            }
        }
    }
    if let (false, Some(error)) = (any, first) {
        return Err(error);
    }
    entries.sort_by_key(|e: &v1::LogEntry| e.time.as_ref().map(|t| (t.seconds, t.nanos)));
    // Behind the lines, where people look.
    entries.append(&mut notices);
    Ok(entries)
}

type Opened = (v1::LogEntry, ApiResult<ApiStream<v1::LogEntry>>);

/// The lines as they come, and a notice when a log cannot be had or ends early. An error when none can be had at all.
fn follow(opened: Vec<Opened>) -> ApiResult<ApiStream<v1::LogEntry>> {
    let several = opened.len() > 1;
    if !opened.iter().any(|(_, stream)| stream.is_ok()) {
        let first = opened.into_iter().find_map(|(_, stream)| stream.err());
        return first.map_or_else(|| Ok(stream::empty().boxed()), Err);
    }
    let streams = opened.into_iter().map(|(of, stream)| match stream {
        Err(error) => stream::iter([Ok(notice(&of, &error))]).boxed(),
        Ok(stream) if several => stream
            .map(move |entry| entry.or_else(|error| Ok(notice(&of, &error))))
            .boxed(),
        Ok(stream) => stream,
    });
    Ok(stream::select_all(streams).boxed())
}

fn of_service(state: &ClusterState, target: &str) -> ApiResult<Vec<Arc<Container>>> {
    let service = services::find(state, target)?;
    let found: Vec<_> = state.containers_of_service(service.id).cloned().collect();
    if found.len() > LOG_STREAMS_MAX {
        return Err(ApiError::Exhausted {
            what: format!(
                "service {target:?} has {} containers, logs of at most {LOG_STREAMS_MAX} are read at once",
                found.len()
            ),
            remedy: "name one container".to_owned(),
        });
    }
    Ok(found)
}

async fn log_stream(
    control: &Control,
    state: &ClusterState,
    container: &Arc<Container>,
    query: &LogQuery,
) -> ApiResult<ApiStream<v1::LogEntry>> {
    let view = containers::view(state, container);
    let node = container
        .node
        .ok_or_else(|| ApiError::internal("a container without node has no log"))?;
    let body = request::Body::Log(session::LogRequest {
        container_id: container.id.as_u128().to_be_bytes().to_vec(),
        follow: query.follow,
        tail: query.tail,
        since_ms: query.since.map(|t| t.0),
        stdout: query.stdout,
        stderr: query.stderr,
    });
    let request = control
        .dispatcher()?
        .ask(node, body)
        .await
        .map_err(failure::node)?;
    let (name, node_name) = (view.name(), view.node_name);
    let stream = stream::unfold(Some(request), |request| async move {
        let mut request: Request = request?;
        match request.next().await {
            Some(reply::Body::Log(chunk)) => Some((Ok(chunk.entries), Some(request))),
            // A container whose log is gone has none; its siblings' are shown all the same.
            Some(reply::Body::Error(error)) if error.code == 5 => None,
            Some(reply::Body::Error(error)) => Some((Err(failure::node(error)), None)),
            _ => None,
        }
    });
    let named = stream.map_ok(move |entries| {
        let (name, node_name) = (name.clone(), node_name.clone());
        let entries = entries.into_iter().map(move |e| {
            Ok(v1::LogEntry {
                container_name: name.clone(),
                node_name: node_name.clone(),
                ..e
            })
        });
        stream::iter(entries)
    });
    Ok(named.try_flatten().boxed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_proto::convert::timestamp_to_api;
    use warren_types::Timestamp;

    fn entry(container: &str, seconds: u64) -> v1::LogEntry {
        v1::LogEntry {
            container_name: container.to_owned(),
            time: Some(timestamp_to_api(Timestamp(seconds * 1_000))),
            ..v1::LogEntry::default()
        }
    }

    fn away() -> ApiError {
        ApiError::unavailable("node \"edge-2\" has no session", "start it")
    }

    fn named(entries: &[v1::LogEntry]) -> Vec<(&str, u32)> {
        let each = entries
            .iter()
            .map(|e| (e.container_name.as_str(), e.failure));
        each.collect()
    }

    #[test]
    fn what_can_be_had_of_a_log_is_shown_and_why_the_rest_cannot() {
        let read = vec![
            (entry("a", 0), Ok(vec![entry("a", 3), entry("a", 5)])),
            (entry("b", 0), Err(away())),
            (entry("c", 0), Ok(vec![entry("c", 4)])),
        ];
        let entries = in_order(read).unwrap();
        assert_eq!(named(&entries), [("a", 0), ("c", 0), ("a", 0), ("b", 14)]);
        let said = String::from_utf8_lossy(&entries[3].data).into_owned();
        assert!(
            said.contains("edge-2") && said.contains("start it"),
            "{said}"
        );
        assert_eq!(entries[3].stream, NOTICE);
        // Nothing at all is an error, and no containers is none.
        let read = vec![(entry("a", 0), Err(away())), (entry("b", 0), Err(away()))];
        assert_eq!(in_order(read), Err(away()));
        assert_eq!(in_order(Vec::new()), Ok(Vec::new()));
        let empty = vec![
            (entry("a", 0), Ok(Vec::new())),
            (entry("b", 0), Err(away())),
        ];
        assert_eq!(named(&in_order(empty).unwrap()), [("b", 14)]);
    }

    #[tokio::test]
    async fn following_goes_on_when_one_log_ends_early() {
        let lines = |items: Vec<ApiResult<v1::LogEntry>>| Ok(stream::iter(items).boxed());
        let opened = vec![
            (entry("a", 0), lines(vec![Ok(entry("a", 1)), Err(away())])),
            (entry("b", 0), Err(away())),
            (entry("c", 0), lines(vec![Ok(entry("c", 1))])),
        ];
        let seen: Vec<_> = follow(opened).unwrap().try_collect().await.unwrap();
        let mut seen = named(&seen);
        seen.sort_unstable();
        assert_eq!(seen, [("a", 0), ("a", 14), ("b", 14), ("c", 0)]);
        let none: Vec<Opened> = vec![(entry("a", 0), Err(away())), (entry("b", 0), Err(away()))];
        assert!(follow(none).is_err());
        // One container alone fails as it is.
        let one = vec![(entry("a", 0), lines(vec![Err(away())]))];
        let seen: ApiResult<Vec<_>> = follow(one).unwrap().try_collect().await;
        assert_eq!(seen, Err(away()));
    }
}
