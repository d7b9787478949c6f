//! Counting values.

use crate::PercentileStats;
use std::marker::PhantomData;

/// One bucket for 0, and one for each number of significant bits.
const BUCKETS: usize = u64::BITS as usize + 1;

/// How often values of each magnitude were seen. A percentile is exact to a factor of two. `T` stands for data of
/// time slots, which openraft does not use. 536 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    total: u64,
    slots: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// An empty histogram.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
            slots: PhantomData,
        }
    }

    /// Counts a value.
    pub const fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times. Counters stop at their largest value.
    pub const fn record_n(&mut self, value: u64, times: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bucket] = self.counts[bucket].saturating_add(times);
        self.total = self.total.saturating_add(times);
    }

    /// Values counted.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The largest value of the bucket that holds the percentile (`share` from 0 to 1), by nearest rank; 0 when empty.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the share is clamped; counts beyond 2^53 lose nothing that a factor of two keeps"
    )]
    pub fn percentile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0_u64;
        for (bits, count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return largest(bits);
            }
        }
        0
    }

    /// The usual percentiles at once.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }

    /// Largest value and count of each bucket in which there is something, the smallest first.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let all = self.counts.iter().enumerate();
        all.filter(|(_, count)| **count > 0)
            .map(|(bits, count)| (largest(bits), *count))
    }
}

/// The largest value with so many significant bits.
const fn largest(bits: usize) -> u64 {
    match bits {
        0 => 0,
        bits => u64::MAX >> (u64::BITS as usize - bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_land_in_the_bucket_of_their_magnitude() {
        for (value, bound) in [(0, 0), (1, 1), (2, 3), (3, 3), (4, 7), (1000, 1023)] {
            let mut one = Histogram::<()>::new();
            one.record(value);
            assert_eq!(one.percentile(0.5), bound, "{value}");
        }
        let mut top = Histogram::<()>::new();
        top.record(u64::MAX);
        assert_eq!(top.percentile(1.0), u64::MAX);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut histogram = Histogram::<()>::new();
        histogram.record_n(1, 90);
        histogram.record_n(100, 9);
        histogram.record(5000);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, histogram.total()), (100, 100));
        assert_eq!((stats.p50, stats.p90, stats.p99), (1, 1, 127));
        assert_eq!(stats.p99_9, 8191);
        assert_eq!(Histogram::<()>::default().percentile_stats().p99, 0);
    }

    #[test]
    fn counters_stop_at_their_largest_value() {
        let mut histogram = Histogram::<()>::new();
        histogram.record_n(1, u64::MAX);
        histogram.record(1);
        assert_eq!(histogram.total(), u64::MAX);
    }
}
