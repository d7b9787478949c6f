//! The hello image: a small web page, made from our own program, so that the first container of a new
//! node needs no network.

use crate::WorkerError;
use crate::shared::Shared;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warren_image::{Compression, ImageBuilder, ImageError, ImageStore};

/// Name of the hello image.
pub const HELLO_IMAGE: &str = "warren/hello:latest";
/// Port of the page inside the container.
pub const HELLO_PORT: u16 = 8080;

/// Makes the image unless the node has exactly this one.
pub(crate) async fn ensure(shared: &Arc<Shared>, program: PathBuf) -> Result<(), WorkerError> {
    let images = shared.images.clone();
    let made = tokio::task::spawn_blocking(move || make(&images, &program)).await;
    made.map_err(|e| WorkerError::Internal(e.to_string()))?
        .map_err(WorkerError::Image)
}

/// The label tells which program the image was made of, so that it need not be read to know.
const MADE_OF: &str = "warren.made-of";

fn make(images: &ImageStore, program: &Path) -> Result<(), ImageError> {
    let made_of = mark(program);
    let current = images
        .inspect(HELLO_IMAGE)
        .ok()
        .and_then(|info| info.config.labels.get(MADE_OF).cloned());
    if current.is_some() && current == made_of {
        return Ok(());
    }
    let mut builder = ImageBuilder::new();
    builder.compression(Compression::None);
    builder.add_file("/warren", program.to_path_buf(), 0o755);
    builder
        .entrypoint(["/warren", "__hello"])
        .expose(&format!("{HELLO_PORT}/tcp"))
        .user("65534:65534");
    if let Some(made_of) = &made_of {
        builder.label(MADE_OF, made_of);
    }
    builder.build_into(images, &[HELLO_IMAGE.parse()?])?;
    Ok(())
}

/// Size and time of the program file.
fn mark(program: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(program).ok()?;
    Some(format!(
        "{}-{}-{}",
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec()
    ))
}
