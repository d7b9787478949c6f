//! Logs of containers: framed records in numbered files, capped, readable while they are written.
//!
//! The shim writes (one process, one writer), anybody reads. Files are `00000001.log`, `00000002.log`, …;
//! the highest number is being written, the lowest are removed. Each record has its own header, so a
//! record that a killed writer left half is skipped by readers and cut off by the next writer.

pub mod format;
pub mod reader;
pub mod writer;

use std::io;
use std::path::{Path, PathBuf};

/// Path of the file with a number.
pub(crate) fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

/// Numbers of the files in a log directory, ascending; none when the directory does not exist.
pub(crate) fn file_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some(number) = name
            .to_str()
            .and_then(|n| n.strip_suffix(".log"))
            .and_then(|n| n.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}
