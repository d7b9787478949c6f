//! Taking disk space: segments, and the spare one.

use super::record::SegmentHeader;
use super::{Log, Segment, segment_path, unknown_state};
use crate::Result;
use crate::disk::{DiskFile, OpenMode, join};
use crate::sector::{self, SECTOR_BYTES, SECTOR_PAYLOAD};

/// Smallest segment, in bytes.
const MIN_SEGMENT_BYTES: u64 = 4 * SECTOR_BYTES as u64;
/// Name of the file that holds the space for the next segment.
const SPARE_FILE: &str = "next.seg.tmp";
/// Disk space taken in advance for the next segment.
pub(super) struct Spare {
    pub(super) path: String,
    pub(super) sectors: u32,
}

impl Log {
    /// Begins a segment with room for at least `sectors`.
    pub(super) fn begin_segment(&mut self, sectors: u32) -> Result<()> {
        let seq = self.segments.back().map_or(1, |segment| segment.seq + 1);
        if self
            .spare
            .as_ref()
            .is_none_or(|spare| spare.sectors <= sectors)
        {
            self.take_space(sectors + 1)?;
        }
        let Some(Spare {
            path: temp,
            sectors: total,
        }) = self.spare.take()
        else {
            return Err(self.out_of_range("appended", self.next));
        };
        let header = SegmentHeader {
            seq,
            sectors: total,
            prev_chain: self.chain,
            prev_end: self.end,
            next: self.next,
            purged: self.purged.clone(),
            meta: self.meta.clone(),
        };
        let path = segment_path(&self.dir, seq);
        // The space is there already, so from here on a failure is one that leaves it unknown what is on the disk.
        let file = self
            .make_segment(&temp, &path, &header)
            .map_err(unknown_state)?;
        self.segments.push_back(Segment {
            seq,
            path,
            file,
            sectors: total,
        });
        self.end = 1;
        self.dirty_end = 1;
        Ok(())
    }

    fn make_segment(
        &self,
        temp: &str,
        path: &str,
        header: &SegmentHeader,
    ) -> Result<Box<dyn DiskFile>> {
        let encoded = header.encode();
        debug_assert!(
            encoded.len() <= SECTOR_PAYLOAD,
            "a header fits into one sector because mark and meta are bounded"
        );
        let mut sector = Vec::new();
        sector::encode(&mut sector, header.seq, 0, &encoded);
        let file = self.disk.open(temp, OpenMode::Write)?;
        file.write_at(0, &sector)?;
        file.sync_data()?;
        // Renamed only when whole: a segment that has its name is never half made.
        self.disk.rename(temp, path)?;
        self.disk.sync_dir(&self.dir)?;
        self.disk.open(path, OpenMode::Write)
    }

    /// Takes disk space for the next segment now. With it in hand an append that fits into what is left of the
    /// present segment, or into a whole new one, does not find the disk full. Does nothing when it is there already.
    pub fn prepare_spare(&mut self) -> Result<()> {
        if self.spare.is_some() || self.failed.is_some() {
            Ok(())
        } else {
            self.take_space(0)
        }
    }

    fn take_space(&mut self, min_sectors: u32) -> Result<()> {
        let min_bytes = u64::from(min_sectors) * SECTOR_BYTES as u64;
        let bytes = self
            .options
            .segment_bytes
            .max(MIN_SEGMENT_BYTES)
            .max(min_bytes);
        let sectors = u32::try_from(bytes / SECTOR_BYTES as u64).unwrap_or(u32::MAX);
        let path = join(&self.dir, SPARE_FILE);
        self.spare = None;
        let take = || -> Result<()> {
            let file = self.disk.open(&path, OpenMode::Create)?;
            file.set_len(0)?;
            file.preallocate(u64::from(sectors) * SECTOR_BYTES as u64)
        };
        if let Err(error) = take() {
            // So that the disk is not even fuller; what stays is removed at the next start anyway.
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        self.spare = Some(Spare { path, sectors });
        Ok(())
    }
}
