//! Histograms of powers of two, in place of the crate of this name.
//!
//! openraft keeps statistics of its batches in histograms. The crate that it uses for them computes bucket tables
//! for sixteen resolutions at the first use and keeps them: 26 MiB, of which openraft needs 4 KiB, and Warren reads
//! none of it. This crate has what openraft calls, under the same names, without tables (decision 0008).

mod chart;
mod histogram;
mod percentiles;

pub use chart::AsciiChart;
pub use histogram::Histogram;
pub use percentiles::PercentileStats;
