//! Reading the whole log when it is opened.

use super::record::{self, Kind, Purged, RecordHead, SegmentHeader};
use super::segment::{At, Image, corrupt};
use super::{Log, LogRecovery, Place, Segment, TornTail, segment_path, segment_seq};
use crate::Result;
use crate::disk::{DiskFile, OpenMode, join};
use crate::sector::SECTOR_BYTES;

impl Log {
    /// Replays all segments, then repairs the tail. Nothing is written before everything was read and checked.
    pub(super) fn replay(&mut self) -> Result<LogRecovery> {
        let mut seqs: Vec<u64> = self
            .disk
            .list(&self.dir)?
            .iter()
            .filter_map(|name| segment_seq(name))
            .collect();
        seqs.sort_unstable();
        let mut next = match seqs.first() {
            Some(seq) => Some(self.load(*seq)?),
            None => None,
        };
        let mut dirty_end = 0;
        for (at, seq) in seqs.iter().enumerate() {
            let Some((file, image)) = next.take() else {
                break;
            };
            let header = image.header()?;
            self.check_joint(&image, &header)?;
            let mut sealed_end = None;
            if let Some(seq_after) = seqs.get(at + 1) {
                if seq_after - 1 != *seq {
                    return Err(corrupt(
                        &self.disk.describe(&segment_path(&self.dir, seq + 1)),
                        0,
                        "the segment is missing",
                    ));
                }
                let after = self.load(*seq_after)?;
                // The next segment says where this one ends; it was made only after all of this one was durable.
                sealed_end = Some(after.1.header()?.prev_end);
                next = Some(after);
            }
            dirty_end = self.replay_segment(&image, sealed_end)?;
            let path = segment_path(&self.dir, *seq);
            self.segments.push_back(Segment {
                seq: *seq,
                path,
                file,
                sectors: image.sectors(),
            });
        }
        if self.places.front().map_or(self.next, |place| place.first) > self.first_wanted() {
            let first = self
                .segments
                .front()
                .map_or_else(String::new, |segment| self.disk.describe(&segment.path));
            return Err(corrupt(&first, 0, "segments before it are missing"));
        }
        self.check_end()?;
        self.repair(dirty_end)
    }

    fn load(&self, seq: u64) -> Result<(Box<dyn DiskFile>, Image)> {
        let file = self
            .disk
            .open(&segment_path(&self.dir, seq), OpenMode::Write)?;
        let image = Image::load(seq, &*file)?;
        Ok((file, image))
    }

    fn first_wanted(&self) -> u64 {
        self.purged.as_ref().map_or(0, |purged| purged.index + 1)
    }

    /// The header of a segment has to continue what was replayed so far.
    fn check_joint(&mut self, image: &Image, header: &SegmentHeader) -> Result<()> {
        if self.segments.is_empty() {
            self.chain = header.prev_chain;
            self.next = header.next;
            self.purged.clone_from(&header.purged);
            self.meta.clone_from(&header.meta);
        } else if header.prev_chain != self.chain
            || header.next != self.next
            || header.prev_end != self.end
        {
            return Err(image.corrupt(0, "the segment does not continue the one before"));
        }
        Ok(())
    }

    /// Replays one segment, up to a known end or to its tail. Returns the end of what a torn write left.
    fn replay_segment(&mut self, image: &Image, sealed_end: Option<u32>) -> Result<u32> {
        self.end = 1;
        loop {
            if sealed_end == Some(self.end) {
                return Ok(self.end);
            }
            match image.at(self.end, self.chain)? {
                At::Record {
                    head,
                    body,
                    chain,
                    sectors,
                } => {
                    self.take_record(image, head, &body, sectors)?;
                    self.chain = chain;
                    self.end += sectors;
                    if sealed_end.is_some_and(|end| self.end > end) {
                        return Err(
                            image.corrupt(self.end, "the segment is longer than the next one says")
                        );
                    }
                }
                At::Tail { dirty_end } if sealed_end.is_none() => return Ok(dirty_end),
                At::Tail { .. } => {
                    return Err(
                        image.corrupt(self.end, "the segment is shorter than the next one says")
                    );
                }
            }
        }
    }

    fn take_record(
        &mut self,
        image: &Image,
        head: RecordHead,
        body: &[u8],
        sectors: u32,
    ) -> Result<()> {
        let bad = |what: &str| image.corrupt(self.end, what);
        match head.kind {
            Kind::Entries => {
                if head.index != self.next || record::entries(head.count, body).is_none() {
                    return Err(bad("the entries do not continue those before"));
                }
                self.places.push_back(Place {
                    first: head.index,
                    count: head.count,
                    seq: image.seq,
                    start: self.end,
                    sectors,
                });
                self.next += u64::from(head.count);
            }
            Kind::Cut => {
                if head.index > self.next {
                    return Err(bad("entries are cut that never were"));
                }
                self.cut_places(head.index);
            }
            Kind::Purge => self.purge_places(Purged {
                index: head.index,
                mark: body.to_vec(),
            }),
            Kind::Checkpoint => {}
            Kind::Meta => self.meta = body.to_vec(),
        }
        Ok(())
    }

    /// Everything is read and sound: removes what a crash left unfinished.
    fn repair(&mut self, dirty_end: u32) -> Result<LogRecovery> {
        let mut recovery = LogRecovery::default();
        self.dirty_end = self.end;
        if let Some(segment) = self.segments.back().filter(|_| dirty_end > self.end) {
            self.dirty_end = dirty_end;
            recovery.torn = Some(TornTail {
                file: self.disk.describe(&segment.path),
                offset: u64::from(self.end) * SECTOR_BYTES as u64,
                bytes: u64::from(dirty_end - self.end) * SECTOR_BYTES as u64,
            });
            self.blank_leftovers()?;
        }
        // Segments begun and never finished: they cannot hold anything.
        for name in self
            .disk
            .list(&self.dir)?
            .iter()
            .filter(|name| name.ends_with(".tmp"))
        {
            self.disk.remove(&join(&self.dir, name))?;
        }
        self.remove_unused()?;
        Ok(recovery)
    }
}
