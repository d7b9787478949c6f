//! Damage to what is stored: behind the back of everything, while nobody has the file open.

use super::FaultyDisk;
use crate::disk::parent;
use crate::rng::Rng;
use crate::sector::SECTOR_BYTES;

/// Size of the regions that [`Damage::Zero`] wipes, in bytes.
const REGION_BYTES: usize = 4 * 1024;
/// Most bytes that [`Damage::Flip`] changes.
const FLIPS_MAX: u64 = 4;

/// A way in which stored bytes go bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Some bits in up to four bytes next to each other are flipped.
    Flip,
    /// The end of the file is gone.
    Cut,
    /// A region of 4 KiB reads as zeros.
    Zero,
}

impl FaultyDisk {
    /// Damages a file at a place that the numbers choose. `stopped`: whether its owner came to a clean end. Returns
    /// offset and length of what was changed, in bytes; `None` when nothing was.
    ///
    /// After a crash zeros where the last record of a log stood look exactly as if that record had never been written, to
    /// anybody who looks at that disk alone. So unless the owner was stopped, the last record of the newest segment is
    /// left out of the wiping (not of the flipping and the cutting).
    pub fn damage(
        &self,
        path: &str,
        how: Damage,
        stopped: bool,
        rng: &mut Rng,
    ) -> Option<(usize, usize)> {
        let spared = !stopped && self.is_newest_segment(path);
        let mut place = None;
        self.tamper(path, |data| {
            place = match how {
                Damage::Flip => flip(data, rng),
                Damage::Cut => cut(data, rng),
                Damage::Zero => zero(data, spared, rng),
            };
        });
        place
    }

    fn is_newest_segment(&self, path: &str) -> bool {
        let is_segment = |path: &str| path.ends_with(".seg");
        let state = self.state();
        let mut beside = state.names.keys().map(String::as_str);
        let newer =
            |other: &str| parent(other) == parent(path) && is_segment(other) && other > path;
        is_segment(path) && !beside.any(newer)
    }
}

/// A number below `bound`, which is not 0.
fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap_or(0)
}

/// Length of the part of a file that is not zeros up to its end.
fn used(data: &[u8]) -> usize {
    data.iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

fn flip(data: &mut [u8], rng: &mut Rng) -> Option<(usize, usize)> {
    // Most of the time what was written, sometimes the space taken in advance.
    let all = if rng.chance(90) {
        used(data)
    } else {
        data.len()
    };
    if all == 0 {
        return None;
    }
    let at = below(rng, all);
    let count = (1 + below(rng, usize::try_from(FLIPS_MAX).unwrap_or(1))).min(data.len() - at);
    for byte in &mut data[at..at + count] {
        *byte ^= 1 << rng.below(8);
    }
    Some((at, count))
}

fn cut(data: &mut Vec<u8>, rng: &mut Rng) -> Option<(usize, usize)> {
    if data.is_empty() {
        return None;
    }
    let gone = 1 + below(rng, data.len());
    let at = data.len() - gone;
    data.truncate(at);
    Some((at, gone))
}

fn zero(data: &mut [u8], spare_last_record: bool, rng: &mut Rng) -> Option<(usize, usize)> {
    let used = used(data);
    if used == 0 {
        return None;
    }
    let at = below(rng, used.div_ceil(REGION_BYTES)) * REGION_BYTES;
    let mut end = (at + REGION_BYTES).min(data.len());
    // Without its head a segment is no longer one, whatever else is gone.
    if spare_last_record && at > 0 {
        end = end.min(last_record(data, used));
    }
    if at >= end || data[at..end].iter().all(|byte| *byte == 0) {
        return None;
    }
    data[at..end].fill(0);
    Some((at, end - at))
}

/// Where the last record of a segment begins, in bytes: the last sector that was written says so.
fn last_record(data: &[u8], used: usize) -> usize {
    let sector = (used - 1) / SECTOR_BYTES * SECTOR_BYTES;
    let begin = data[sector..].first_chunk::<4>();
    let number = begin.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    number as usize * SECTOR_BYTES
}
