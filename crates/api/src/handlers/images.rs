//! Images.

use super::Handlers;
use super::checks::optional_target;
use crate::caller::Caller;
use crate::control::{ApiResult, ApiStream};
use crate::error::ApiError;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
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

/// Options of the first message, and the archive's bytes. An end without `last` is an error: tonic shows
/// a cancelled call as one that has ended, and half an archive must never be taken for a whole one.
pub(super) async fn split_import(
    mut input: Streaming<v1::ImportImageRequest>,
) -> ApiResult<(v1::ImportOptions, ApiStream<Bytes>)> {
    let mut first = input
        .message()
        .await
        .map_err(|_| gone())?
        .ok_or_else(|| ApiError::field("chunk", "there was no message", "send the archive"))?;
    let options = first.options.take().unwrap_or_default();
    // What comes next: the first message, then the stream; nothing after the last message.
    let unread = Some((Some(first), input));
    let archive = stream::try_unfold(unread, |unread| async move {
        let Some((first, mut input)) = unread else {
            return Ok(None);
        };
        let message = match first {
            Some(first) => first,
            None => match input.message().await {
                Ok(Some(message)) => message,
                Ok(None) | Err(_) => return Err(gone()),
            },
        };
        if message.options.is_some() {
            return Err(ApiError::field(
                "options",
                "stands in a later message",
                "send options in the first message only",
            ));
        }
        let rest = (!message.last).then_some((None, input));
        Ok(Some((Bytes::from(message.chunk), rest)))
    });
    Ok((options, archive.boxed()))
}

fn gone() -> ApiError {
    ApiError::unavailable("the upload broke off", "send the archive again")
}
