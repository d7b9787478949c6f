//! How far the log had come when it was last closed.
//!
//! Zeros where the last records stood look like records that were never written. So a clean stop leaves a note beside the
//! segments: the log is not shorter than that, ever. It stays true while the log grows, and is replaced at the next stop.

use super::segment::corrupt;
use super::{Log, segment_path};
use crate::Result;
use crate::atomic::AtomicFile;
use crate::disk::join;
use crate::sector::{Cursor, SECTOR_BYTES};
use std::sync::Arc;

/// Name of the note.
const END_FILE: &str = "end";
const REMEDY: &str = "with other managers alive, remove this one from the cluster, empty its data directory and let it join again; \
     else remove this file to start with the log as it is, or restore a backup (`warren cluster restore`)";

/// A place in the log: segment and sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    seq: u64,
    sector: u32,
}

impl Log {
    fn end_file(&self) -> AtomicFile {
        AtomicFile::new(Arc::clone(&self.disk), join(&self.dir, END_FILE), REMEDY)
    }

    /// Where the next record goes; none in a log that was never written.
    fn end_now(&self) -> Option<End> {
        let segment = self.segments.back()?;
        Some(End {
            seq: segment.seq,
            sector: self.end,
        })
    }

    /// Leaves a note of the end, so that from now on any damage to what was stored can be told from a torn tail. To be
    /// called at a clean stop. Does nothing when it is there already.
    pub fn close(&mut self) -> Result<()> {
        let end = self.end_now();
        let Some(now) = end.filter(|_| end != self.noted && self.failed.is_none()) else {
            return Ok(());
        };
        let mut note = now.seq.to_le_bytes().to_vec();
        note.extend_from_slice(&now.sector.to_le_bytes());
        self.end_file().write(&note)?;
        self.noted = end;
        Ok(())
    }

    /// Everything is replayed: it must reach as far as the note says.
    pub(super) fn check_end(&mut self) -> Result<()> {
        let Some(note) = self.end_file().read()? else {
            return Ok(());
        };
        let mut cursor = Cursor(&note);
        let (Some(seq), Some(sector)) = (cursor.u64(), cursor.u32()) else {
            let file = self.disk.describe(&join(&self.dir, END_FILE));
            return Err(corrupt(&file, 0, "the note of the log's end is not one"));
        };
        self.noted = Some(End { seq, sector });
        let end = self.end_now();
        if end >= self.noted {
            return Ok(());
        }
        let reached = end.filter(|end| end.seq == seq).map_or(0, |end| end.sector);
        Err(corrupt(
            &self.disk.describe(&segment_path(&self.dir, seq)),
            u64::from(reached) * SECTOR_BYTES as u64,
            "records that were stored when the log was closed are gone",
        ))
    }
}
