//! Images.

use super::Handlers;
use super::checks::optional_target;
use crate::caller::Caller;
use crate::control::{ApiResult, ApiStream};
use crate::error::ApiError;
use bytes::Bytes;
use futures::StreamExt as _;
use tonic::Streaming;
use warren_proto::v1;
use warren_types::limits;

fn reference(text: &str) -> ApiResult<&str> {
    match text.len() {
        0 => Err(ApiError::field("reference", "missing", "name the image")),
        n if n > limits::IMAGE_REF_CHARS_MAX => Err(ApiError::field(
            "reference",
            format!("has {n} characters"),
            format!("at most {} are allowed", limits::IMAGE_REF_CHARS_MAX),
        )),
        _ => Ok(text),
    }
}

impl Handlers {
    pub(super) async fn import_inner(
        self,
        caller: Caller,
        options: v1::ImportOptions,
        archive: ApiStream<Bytes>,
    ) -> ApiResult<v1::ImportImageResponse> {
        if !options.reference.is_empty() {
            reference(&options.reference)?;
        }
        optional_target("node", options.node.clone())?;
        let images = self.control.import_image(&caller, options, archive).await?;
        Ok(v1::ImportImageResponse { images })
    }

    pub(super) async fn list_images_inner(
        self,
        caller: Caller,
        request: v1::ListImagesRequest,
    ) -> ApiResult<v1::ListImagesResponse> {
        let node = optional_target("node", request.node)?;
        Ok(v1::ListImagesResponse {
            images: self.control.list_images(&caller, node).await?,
        })
    }

    pub(super) async fn inspect_image_inner(
        self,
        caller: Caller,
        request: v1::InspectImageRequest,
    ) -> ApiResult<v1::InspectImageResponse> {
        let node = optional_target("node", request.node)?;
        let details = self
            .control
            .inspect_image(&caller, reference(&request.reference)?, node)
            .await?;
        Ok(v1::InspectImageResponse {
            details: Some(details),
        })
    }

    pub(super) async fn remove_image_inner(
        self,
        caller: Caller,
        request: v1::RemoveImageRequest,
    ) -> ApiResult<v1::RemoveImageResponse> {
        let node = optional_target("node", request.node)?;
        let removed = self
            .control
            .remove_image(&caller, reference(&request.reference)?, node)
            .await?;
        Ok(v1::RemoveImageResponse { removed })
    }
}

/// Options of the first message, and the archive's bytes. A broken call gives an error at its end, so
/// that half an archive is never taken for a whole one.
pub(super) async fn split_import(
    mut input: Streaming<v1::ImportImageRequest>,
) -> ApiResult<(v1::ImportOptions, ApiStream<Bytes>)> {
    let gone = || ApiError::unavailable("the upload broke off", "send the archive again");
    let first = input.message().await.map_err(|_| gone())?.ok_or_else(|| {
        ApiError::field("chunk", "there was no message", "send the archive's bytes")
    })?;
    let options = first.options.unwrap_or_default();
    let head = futures::stream::once(async move { Ok(Bytes::from(first.chunk)) });
    let rest = input.map(move |message| match message {
        Ok(v1::ImportImageRequest {
            options: None,
            chunk,
        }) => Ok(Bytes::from(chunk)),
        Ok(_) => Err(ApiError::field(
            "options",
            "stands in a later message",
            "send options in the first message only",
        )),
        Err(_) => Err(gone()),
    });
    let archive = head
        .chain(rest)
        .filter(|item| std::future::ready(!item.as_ref().is_ok_and(Bytes::is_empty)))
        .boxed();
    Ok((options, archive))
}
