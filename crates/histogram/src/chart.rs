//! Histograms as text.

use crate::Histogram;
use std::fmt;

/// Several histograms, one line a bucket: name, largest value, count.
#[derive(Debug, Clone)]
pub struct AsciiChart<T = ()> {
    series: Vec<(String, Histogram<T>)>,
}

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> AsciiChart<T> {
    /// A chart of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { series: Vec::new() }
    }

    /// Adds a histogram under a name.
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "openraft calls it by this name"
    )]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.series.push((name.to_owned(), histogram));
        self
    }
}

impl<T> fmt::Display for AsciiChart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.series {
            for (bound, count) in histogram.filled() {
                writeln!(f, "{name} <= {bound}: {count}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_bucket_in_which_there_is_something() {
        let mut histogram = Histogram::<()>::new();
        histogram.record_n(3, 2);
        histogram.record(100);
        let chart = AsciiChart::new()
            .add("a", histogram)
            .add("b", Histogram::new());
        assert_eq!(chart.to_string(), "a <= 3: 2\na <= 127: 1\n");
    }
}
