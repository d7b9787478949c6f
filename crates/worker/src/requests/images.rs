//! Images of this node.

use super::{Answer, code, error};
use crate::shared::Shared;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use tokio::sync::mpsc;
use warren_image::{Digest, ErrorKind, ImageError, ImageInfo, ImageSummary, ImportOptions};
use warren_proto::session::{self, ImageImportChunk, ImageResult, reply, request};
use warren_proto::v1;

/// Pieces of an archive between the session and the unpacker.
const PIECES_WAITING_MAX: usize = 16;

/// Takes an archive piece by piece. When the sender goes away before the last piece, the import sees
/// a cut archive and leaves nothing.
pub(super) async fn import(
    shared: &Arc<Shared>,
    first: ImageImportChunk,
    mut input: mpsc::Receiver<request::Body>,
    answer: &Answer,
) -> Result<(), session::Error> {
    let reference = first
        .options
        .as_ref()
        .map(|o| o.reference.clone())
        .unwrap_or_default();
    let mut options = ImportOptions::new("the archive");
    if !reference.is_empty() {
        let name = reference.parse().map_err(|e: ImageError| image_error(&e))?;
        options.name = Some(name);
    }
    let (sender, pieces) = mpsc::channel::<Result<Bytes, ()>>(PIECES_WAITING_MAX);
    let images = shared.images.clone();
    let work = tokio::task::spawn_blocking(move || {
        images.import(
            Pieces {
                pieces,
                rest: Bytes::new(),
            },
            &options,
        )
    });
    let mut chunk = Some(first);
    loop {
        let Some(piece) = chunk.take() else {
            // The session ended or the asker cancelled.
            let _ = sender.send(Err(())).await;
            break;
        };
        if !piece.data.is_empty() && sender.send(Ok(Bytes::from(piece.data))).await.is_err() {
            break;
        }
        if piece.last {
            break;
        }
        chunk = match input.recv().await {
            Some(request::Body::ImageImport(next)) => Some(next),
            _ => None,
        };
    }
    drop(sender);
    let imported = work
        .await
        .map_err(|e| error(code::INTERNAL, e.to_string(), "report this"))?
        .map_err(|e| image_error(&e))?;
    let digests: BTreeSet<Digest> = imported.iter().map(|i| i.digest).collect();
    let images = summaries(shared, |s| digests.contains(&s.digest)).await;
    answer
        .send(reply::Body::Image(ImageResult {
            images,
            details: None,
        }))
        .await;
    Ok(())
}

/// The pieces as one reader.
struct Pieces {
    pieces: mpsc::Receiver<Result<Bytes, ()>>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(())) => {
                    return Err(std::io::Error::new(
                        std::io::ErrorKind::UnexpectedEof,
                        "the sender went away",
                    ));
                }
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

pub(super) async fn list(shared: &Arc<Shared>, answer: &Answer) -> Result<(), session::Error> {
    let images = summaries(shared, |_| true).await;
    answer
        .send(reply::Body::Image(ImageResult {
            images,
            details: None,
        }))
        .await;
    Ok(())
}

pub(super) async fn inspect(
    shared: &Arc<Shared>,
    reference: String,
    answer: &Answer,
) -> Result<(), session::Error> {
    let images = shared.images.clone();
    let info = tokio::task::spawn_blocking(move || images.inspect(&reference)).await;
    let info = info
        .map_err(|e| error(code::INTERNAL, e.to_string(), "report this"))?
        .map_err(|e| image_error(&e))?;
    let in_use = shared.images_in_use();
    let details = Some(details(&info, &in_use));
    answer
        .send(reply::Body::Image(ImageResult {
            images: Vec::new(),
            details,
        }))
        .await;
    Ok(())
}

pub(super) async fn remove(
    shared: &Arc<Shared>,
    reference: String,
    answer: &Answer,
) -> Result<(), session::Error> {
    let (images, in_use) = (shared.images.clone(), shared.images_in_use());
    let removed = tokio::task::spawn_blocking(move || {
        let summary = images.inspect(&reference)?.summary;
        images
            .remove(&reference, &in_use)
            .map(|removed| (summary, removed))
    });
    let removed = removed
        .await
        .map_err(|e| error(code::INTERNAL, e.to_string(), "report this"))?;
    let (summary, removed) = removed.map_err(|e| image_error(&e))?;
    let mut image = image(&summary, &BTreeSet::new());
    image.references = removed
        .untagged
        .iter()
        .map(warren_image::ImageRef::short)
        .collect();
    image.size_bytes = removed.freed.0;
    answer
        .send(reply::Body::Image(ImageResult {
            images: vec![image],
            details: None,
        }))
        .await;
    Ok(())
}

async fn summaries(shared: &Arc<Shared>, wanted: impl Fn(&ImageSummary) -> bool) -> Vec<v1::Image> {
    let images = shared.images.clone();
    let all = tokio::task::spawn_blocking(move || images.list())
        .await
        .unwrap_or_default();
    let in_use = shared.images_in_use();
    all.iter()
        .filter(|s| wanted(s))
        .map(|s| image(s, &in_use))
        .collect()
}

fn image(summary: &ImageSummary, in_use: &BTreeSet<Digest>) -> v1::Image {
    v1::Image {
        references: summary
            .references
            .iter()
            .map(warren_image::ImageRef::short)
            .collect(),
        digest: summary.digest.to_string(),
        size_bytes: summary.size.0,
        created_at: summary.created.map(warren_proto::convert::timestamp_to_api),
        layers: u32::try_from(summary.layers).unwrap_or(u32::MAX),
        os: summary.platform.os.clone(),
        arch: summary.platform.architecture.clone(),
        in_use: in_use.contains(&summary.digest),
        ..v1::Image::default()
    }
}

fn details(info: &ImageInfo, in_use: &BTreeSet<Digest>) -> v1::ImageDetails {
    let config = info.config.clone();
    v1::ImageDetails {
        image: Some(image(&info.summary, in_use)),
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        env: config.env,
        working_dir: config.working_dir,
        user: config.user,
        stop_signal: config.stop_signal.unwrap_or_default(),
        exposed_ports: config.exposed_ports,
        volumes: config.volumes,
        labels: config.labels,
        layer_digests: info.layers.iter().map(|l| l.digest.to_string()).collect(),
    }
}

/// An error of the image store for the asker.
fn image_error(problem: &ImageError) -> session::Error {
    let number = match problem.kind() {
        ErrorKind::NotFound => code::NOT_FOUND,
        ErrorKind::InvalidInput => code::INVALID_ARGUMENT,
        ErrorKind::FailedPrecondition => code::FAILED_PRECONDITION,
        ErrorKind::ResourceExhausted => code::RESOURCE_EXHAUSTED,
        _ => code::INTERNAL,
    };
    let text = problem.to_string();
    match text.split_once(": ") {
        Some((what, remedy)) if number != code::INTERNAL => error(number, what.to_owned(), remedy),
        _ => error(number, text, "look at the daemon's log"),
    }
}
