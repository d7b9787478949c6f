//! What is printed: tables, key-value blocks, JSON, YAML.

mod table;
mod text;
mod yaml;

pub use table::{Column, Table, fields};
pub use text::{age, ago, clean, short_id, span};
pub use yaml::to_yaml;

use crate::args::Format;
use crate::error::Result;
use crate::io::Io;
use serde::Serialize;

/// Prints a list: as a table with the columns made by `table`, or as one JSON or YAML array.
///
/// # Errors
/// When standard output cannot be written.
pub fn list<T: Serialize>(
    io: &mut Io,
    format: Format,
    what: &str,
    items: &[T],
    table: impl FnOnce(&[T], bool) -> Table,
) -> Result<()> {
    match format {
        Format::Json | Format::Yaml => value(io, format, &items),
        Format::Table | Format::Wide if items.is_empty() => io.say(&format!("No {what}.")),
        Format::Table | Format::Wide => {
            let wide = format == Format::Wide;
            let text = table(items, wide).render(wide);
            io.print(&text)
        }
    }
}

/// Prints objects one by one: as blocks of fields, or as one JSON or YAML value (an array when there
/// are several).
///
/// # Errors
/// When standard output cannot be written.
pub fn inspect<T: Serialize>(
    io: &mut Io,
    format: Format,
    items: &[T],
    block: impl Fn(&T) -> String,
) -> Result<()> {
    match (format, items) {
        (Format::Json | Format::Yaml, [one]) => value(io, format, one),
        (Format::Json | Format::Yaml, many) => value(io, format, &many),
        (_, many) => {
            let blocks: Vec<String> = many.iter().map(block).collect();
            io.print(&blocks.join("\n"))
        }
    }
}

/// Prints a value as JSON or YAML.
///
/// # Errors
/// When standard output cannot be written.
pub fn value<T: Serialize + ?Sized>(io: &mut Io, format: Format, value: &T) -> Result<()> {
    let tree = serde_json::to_value(value)
        .map_err(|e| crate::CliError::general(format!("cannot put the answer into JSON: {e}")))?;
    let text = if format == Format::Yaml {
        to_yaml(&tree)
    } else {
        format!("{tree:#}\n")
    };
    io.print(&text)
}
