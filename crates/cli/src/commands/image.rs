//! `warren image …`.

use super::{all_failures, pairs};
use crate::api::{Api, Archive, ImageDetails, ImageView};
use crate::args::{Format, ImageCommand};
use crate::error::{CliError, Result};
use crate::io::Io;
use crate::output::{self, Table, age, ago, fields};
use std::path::Path;
use warren_types::{Bytes, Timestamp};

/// Characters of a digest in the narrow table, without `sha256:`.
const DIGEST_CHARS: usize = 12;

pub(crate) async fn run(command: ImageCommand, api: &dyn Api, io: &mut Io) -> Result<()> {
    match command {
        ImageCommand::Import {
            file,
            tag,
            node,
            output,
        } => {
            let archive = open(&file).await?;
            io.progress(&format!("importing {}", file.display()))?;
            let images = api.import_image(archive, tag, node).await?;
            io.clear()?;
            show(&images, output.output, io)
        }
        ImageCommand::List { node, output } => {
            let images = api.images(node.as_deref()).await?;
            show(&images, output.output, io)
        }
        ImageCommand::Inspect { names, output } => {
            let mut images = Vec::new();
            for name in &names {
                images.push(api.image(name).await?);
            }
            let now = (io.now)();
            output::inspect(io, output.output, &images, |image| block(image, now))
        }
        ImageCommand::Remove { names, node } => {
            let mut failures = Vec::new();
            for name in &names {
                match api.remove_image(name, node.as_deref()).await {
                    Ok(_) => io.say(&format!("image {name}: removed"))?,
                    Err(error) => failures.push(error),
                }
            }
            all_failures(failures)
        }
    }
}

async fn open(file: &Path) -> Result<Archive> {
    if file == Path::new("-") {
        return Ok(Archive::new(tokio::io::stdin()));
    }
    let open = tokio::fs::File::open(file).await.map_err(|e| {
        CliError::usage(format!("cannot open {}: {e}", file.display()))
            .remedy("give the path of an OCI or docker-save archive, or - for standard input")
    })?;
    let is_dir = open.metadata().await.is_ok_and(|m| m.is_dir());
    if is_dir {
        return Err(
            CliError::usage(format!("{} is a directory", file.display())).remedy(format!(
                "tar -C {} -cf - . | warren image import -",
                file.display()
            )),
        );
    }
    Ok(Archive::new(open))
}

fn show(images: &[ImageView], format: Format, io: &mut Io) -> Result<()> {
    let now = (io.now)();
    output::list(io, format, "images", images, |items, wide| {
        table(items, wide, now)
    })
}

fn digest(text: &str, wide: bool) -> String {
    if wide {
        return text.to_owned();
    }
    text.rsplit(':')
        .next()
        .unwrap_or(text)
        .chars()
        .take(DIGEST_CHARS)
        .collect()
}

fn table(items: &[ImageView], wide: bool, now: Timestamp) -> Table {
    let mut table = Table::new(&[
        ("IMAGE", 50),
        ("DIGEST", 0),
        ("SIZE", 0),
        ("PLATFORM", 0),
        ("NODE", 20),
        ("IN USE", 0),
        ("AGE", 0),
    ]);
    for image in items {
        let names = if image.references.is_empty() {
            vec![String::new()]
        } else {
            image.references.clone()
        };
        for name in names {
            table.row([
                name,
                digest(&image.digest, wide),
                Bytes(image.size_bytes).to_string(),
                image.platform.clone(),
                image.node.clone(),
                if image.in_use { "yes" } else { "no" }.to_owned(),
                age(image.created_at, now),
            ]);
        }
    }
    table
}

fn block(image: &ImageDetails, now: Timestamp) -> String {
    let base = &image.image;
    fields(&[
        ("Names", base.references.join("\n")),
        ("Digest", base.digest.clone()),
        ("Size", Bytes(base.size_bytes).to_string()),
        ("Platform", base.platform.clone()),
        ("Node", base.node.clone()),
        ("In use", if base.in_use { "yes" } else { "no" }.to_owned()),
        ("Entrypoint", image.entrypoint.join(" ")),
        ("Command", image.cmd.join(" ")),
        ("Environment", image.env.join("\n")),
        ("Directory", image.working_dir.clone()),
        ("User", image.user.clone()),
        ("Stop signal", image.stop_signal.clone()),
        ("Ports", image.exposed_ports.join(", ")),
        ("Volumes", image.volumes.join(", ")),
        ("Labels", pairs(&image.labels)),
        ("Layers", image.layer_digests.join("\n")),
        ("Created", ago(base.created_at, now)),
    ])
}
