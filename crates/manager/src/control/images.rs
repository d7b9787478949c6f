//! Images: kept by nodes, asked for over their sessions.

use super::{Control, failure, nodes};
use bytes::Bytes;
use futures::StreamExt;
use std::sync::Arc;
use warren_api::{ApiError, ApiResult, ApiStream};
use warren_proto::session::{self, reply, request};
use warren_proto::v1;
use warren_types::{Liveness, Node};

/// Largest piece of an archive in one message, in bytes.
const CHUNK_BYTES_MAX: usize = 512 * 1024;

/// The nodes meant: one by id or name, or every node that answers.
fn targets(control: &Control, node: Option<&str>) -> ApiResult<Vec<Arc<Node>>> {
    let state = control.state();
    if let Some(target) = node.filter(|t| !t.is_empty()) {
        return Ok(vec![nodes::find(&state, target)?.clone()]);
    }
    let live = |n: &&Arc<Node>| n.role.runs_containers() && n.liveness == Liveness::Ready;
    let found: Vec<_> = state.nodes().filter(live).cloned().collect();
    if found.is_empty() {
        return Err(ApiError::unavailable(
            "no node that runs containers is ready",
            "look at `warren node list`",
        ));
    }
    Ok(found)
}

/// Sends an archive to the nodes meant, piece by piece, so that it is never in memory as a whole.
pub(super) async fn import(
    control: &Control,
    options: v1::ImportOptions,
    mut archive: ApiStream<Bytes>,
) -> ApiResult<Vec<v1::Image>> {
    let nodes = targets(control, Some(&options.node))?;
    let dispatcher = control.dispatcher()?;
    let mut open = Vec::new();
    for node in &nodes {
        let first = session::ImageImportChunk {
            options: Some(options.clone()),
            data: Vec::new(),
            last: false,
        };
        let asked = dispatcher
            .ask(node.id, request::Body::ImageImport(first))
            .await;
        open.push((node.clone(), asked.map_err(failure::node)?));
    }
    while let Some(piece) = archive.next().await {
        // The caller has gone: dropping the requests makes the nodes throw away what they have.
        let piece = piece?;
        for part in piece.chunks(CHUNK_BYTES_MAX) {
            send(&open, part, false).await?;
        }
    }
    send(&open, &[], true).await?;
    let mut images = Vec::new();
    for (node, mut request) in open {
        images.extend(
            result(&node, request.next().await)?
                .images
                .into_iter()
                .map(|i| of_node(i, &node)),
        );
    }
    Ok(images)
}

async fn send(
    open: &[(Arc<Node>, crate::dispatcher::Request)],
    data: &[u8],
    last: bool,
) -> ApiResult<()> {
    for (_, request) in open {
        let chunk = session::ImageImportChunk {
            options: None,
            data: data.to_vec(),
            last,
        };
        request
            .send(request::Body::ImageImport(chunk))
            .await
            .map_err(failure::node)?;
    }
    Ok(())
}

pub(super) async fn list(control: &Control, node: Option<String>) -> ApiResult<Vec<v1::Image>> {
    let mut images = Vec::new();
    for node in targets(control, node.as_deref())? {
        let answer = ask(
            control,
            &node,
            request::Body::ImageList(session::ImageList {}),
        )
        .await?;
        images.extend(answer.images.into_iter().map(|i| of_node(i, &node)));
    }
    Ok(images)
}

pub(super) async fn inspect(
    control: &Control,
    reference: &str,
    node: Option<String>,
) -> ApiResult<v1::ImageDetails> {
    let mut missing = None;
    for node in targets(control, node.as_deref())? {
        let body = request::Body::ImageInspect(session::ImageInspect {
            reference: reference.to_owned(),
        });
        match ask(control, &node, body).await {
            Ok(answer) => {
                let mut details = answer
                    .details
                    .ok_or_else(|| ApiError::internal("the node gave no details"))?;
                details.image = details.image.map(|i| of_node(i, &node));
                return Ok(details);
            }
            Err(error) => missing = Some(error),
        }
    }
    Err(missing.unwrap_or_else(|| ApiError::not_found("image", reference)))
}

pub(super) async fn remove(
    control: &Control,
    reference: &str,
    node: Option<String>,
) -> ApiResult<Vec<v1::Image>> {
    let (mut removed, mut missing) = (Vec::new(), None);
    for node in targets(control, node.as_deref())? {
        let body = request::Body::ImageRemove(session::ImageRemove {
            reference: reference.to_owned(),
        });
        match ask(control, &node, body).await {
            Ok(answer) => removed.extend(answer.images.into_iter().map(|i| of_node(i, &node))),
            Err(error @ ApiError::NotFound { .. }) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if removed.is_empty() => Err(error),
        _ => Ok(removed),
    }
}

async fn ask(
    control: &Control,
    node: &Node,
    body: request::Body,
) -> ApiResult<session::ImageResult> {
    let mut request = control
        .dispatcher()?
        .ask(node.id, body)
        .await
        .map_err(failure::node)?;
    result(node, request.next().await)
}

fn result(node: &Node, answer: Option<reply::Body>) -> ApiResult<session::ImageResult> {
    match answer {
        Some(reply::Body::Image(result)) => Ok(result),
        Some(reply::Body::Error(error)) if error.code == 5 => Err(ApiError::NotFound {
            kind: "image",
            name: error.message,
            list_command: "warren image list",
        }),
        Some(reply::Body::Error(error)) => Err(failure::node(error)),
        _ => Err(ApiError::unavailable(
            format!("node {:?} ended its session before it answered", node.name),
            "try again when `warren node list` shows it ready",
        )),
    }
}

fn of_node(image: v1::Image, node: &Node) -> v1::Image {
    v1::Image {
        node_id: node.id.to_string(),
        node_name: node.name.clone(),
        ..image
    }
}
