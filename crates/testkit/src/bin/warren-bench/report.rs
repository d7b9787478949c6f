//! Rows, percentiles, the table, and what the machine is.

use std::fs;
use std::time::Duration;

/// One line of the table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) ours: String,
    pub(crate) reference: String,
    pub(crate) ratio: String,
    pub(crate) budget: String,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, ours: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ours: ours.into(),
            ..Self::default()
        }
    }

    /// A time beside another one.
    pub(crate) fn times(
        what: impl Into<String>,
        ours: Duration,
        reference: Option<(&str, Duration)>,
    ) -> Self {
        let mut row = Self::new(what, ms(ours));
        if let Some((name, other)) = reference {
            row.reference = format!("{} ({name})", ms(other));
            row.ratio = format!(
                "{:.2}",
                ours.as_secs_f64() / other.as_secs_f64().max(f64::EPSILON)
            );
        }
        row
    }

    /// Calls a second beside others.
    pub(crate) fn rates(what: String, ours: f64, name: &str, theirs: f64) -> Self {
        let mut row = Self::new(what, format!("{ours:.0}/s"));
        row.reference = format!("{theirs:.0}/s ({name})");
        row.ratio = format!("{:.2}", ours / theirs.max(f64::EPSILON));
        row
    }

    /// A size in bytes beside another one.
    pub(crate) fn sizes(
        what: impl Into<String>,
        ours: u64,
        reference: Option<(&str, u64)>,
    ) -> Self {
        let mut row = Self::new(what, mib(ours));
        if let Some((name, other)) = reference {
            row.reference = format!("{} ({name})", mib(other));
            row.ratio = format!("{:.2}", ours as f64 / other.max(1) as f64);
        }
        row
    }

    pub(crate) fn budget(mut self, text: &str) -> Self {
        text.clone_into(&mut self.budget);
        self
    }
}

/// A time in milliseconds.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// A size in MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1_u32 << 20))
}

/// The value below which `percent` of the values lie (nearest rank); zero of no values.
pub(crate) fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().unwrap_or_default()
}

pub(crate) fn print_table(rows: &[Row]) {
    let heads = ["what", "warren", "reference", "ratio", "budget"].map(str::to_owned);
    let cells = |r: &Row| {
        [&r.what, &r.ours, &r.reference, &r.ratio, &r.budget].map(|c| {
            if c.is_empty() {
                "-".to_owned()
            } else {
                c.clone()
            }
        })
    };
    let all: Vec<[String; 5]> = std::iter::once(heads)
        .chain(rows.iter().map(cells))
        .collect();
    let width = |column: usize| {
        all.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths = [0, 1, 2, 3, 4].map(width);
    println!();
    for (number, row) in all.iter().enumerate() {
        let line: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("| {} |", line.join(" | "));
        if number == 0 {
            println!("|{}|", widths.map(|w| "-".repeat(w + 2)).join("|"));
        }
    }
    println!();
}

/// Cores, processor, kernel and load, in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| {
        fs::read_to_string(path)
            .map(|t| t.trim().to_owned())
            .unwrap_or_else(|e| format!("({path}: {e})"))
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .and_then(|l| l.split_once(": "))
        .map_or("?", |(_, m)| m);
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split(' ').take(3).collect();
    format!(
        "{cores} cores ({model}), Linux {}, load average {}",
        read("/proc/sys/kernel/osrelease"),
        load.join(" ")
    )
}
