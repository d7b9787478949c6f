//! Quantities with their unit in the type: memory, CPU, time, revision.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Text that is not a quantity of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}: {hint}")]
pub struct QuantityError {
    /// The offending text.
    pub text: String,
    /// What was wanted, with its article ("a memory size").
    pub wanted: &'static str,
    /// How to write it.
    pub hint: &'static str,
}

macro_rules! plain_number {
    ($($(#[$doc:meta])* $name:ident($inner:ty)),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
    )+};
}

plain_number! {
    /// A size in bytes.
    Bytes(u64),
    /// CPU time per time in thousandths of one core.
    MilliCpu(u32),
    /// A span of time in milliseconds.
    Duration(u64),
    /// A moment in milliseconds since 1970-01-01 00:00 UTC.
    Timestamp(u64),
    /// Number of a change to the replicated state; each applied command makes the next one.
    Revision(u64),
}

const MEMORY_HINT: &str =
    "write a positive number with b, k, m, g or t (powers of 1024), such as 512m or 1.5g";
const CPU_HINT: &str = "write cores as a decimal such as 0.5, or thousandths such as 500m";
const DURATION_HINT: &str = "write a number with ms, s, m or h, such as 500ms, 10s or 1m30s";

impl Bytes {
    /// One kibibyte.
    pub const KIB: u64 = 1024;
    /// One mebibyte.
    pub const MIB: u64 = 1024 * 1024;
    /// One gibibyte.
    pub const GIB: u64 = 1024 * 1024 * 1024;
}

impl FromStr for Bytes {
    type Err = QuantityError;

    /// Accepts what `cli.md` names: a number, fraction allowed, and b, k/kb/ki, m, g, t in either
    /// case, all powers of 1024; a bare number is bytes. Zero, negative and unknown units fail.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let fail = || QuantityError {
            text: text.to_owned(),
            wanted: "a memory size",
            hint: MEMORY_HINT,
        };
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "ki" | "kib" => Self::KIB,
            "m" | "mb" | "mi" | "mib" => Self::MIB,
            "g" | "gb" | "gi" | "gib" => Self::GIB,
            "t" | "tb" | "ti" | "tib" => Self::GIB * 1024,
            _ => return Err(fail()),
        };
        decimal_times(number, factor)
            .filter(|v| *v > 0)
            .map(Self)
            .ok_or_else(fail)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [
            (Bytes::GIB, "GiB"),
            (Bytes::MIB, "MiB"),
            (Bytes::KIB, "KiB"),
        ];
        for (size, name) in UNITS {
            if self.0 >= size {
                let tenths = (u128::from(self.0) * 10 / u128::from(size)) as u64;
                return write!(f, "{}.{} {name}", tenths / 10, tenths % 10);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl FromStr for MilliCpu {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let fail = || QuantityError {
            text: text.to_owned(),
            wanted: "an amount of CPU",
            hint: CPU_HINT,
        };
        let trimmed = text.trim();
        let milli = match trimmed.strip_suffix('m') {
            Some(number) => decimal_times(number, 1),
            None => decimal_times(trimmed, 1000),
        };
        milli
            .and_then(|v| u32::try_from(v).ok())
            .map(Self)
            .ok_or_else(fail)
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

impl Duration {
    /// Whole seconds as a span.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
    /// The span in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }
    /// The span as the standard library's type.
    #[must_use]
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl FromStr for Duration {
    type Err = QuantityError;

    /// Accepts one or more number-unit pairs of ms, s, m, h, from large to small or not: `1m30s`.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let fail = || QuantityError {
            text: text.to_owned(),
            wanted: "a duration",
            hint: DURATION_HINT,
        };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(fail());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let split = rest
                .find(|c: char| !(c.is_ascii_digit() || c == '.'))
                .ok_or_else(fail)?;
            let (number, tail) = rest.split_at(split);
            let unit_len = tail
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(tail.len());
            let (unit, after) = tail.split_at(unit_len);
            let factor = match unit.trim() {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(fail()),
            };
            let part = decimal_times(number, factor).ok_or_else(fail)?;
            total = total.checked_add(part).ok_or_else(fail)?;
            rest = after;
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        match ms {
            _ if !ms.is_multiple_of(1000) && ms < 1000 => write!(f, "{ms}ms"),
            _ if !ms.is_multiple_of(1000) => write!(f, "{}.{:03}s", ms / 1000, ms % 1000),
            _ if ms >= 3_600_000 && ms.is_multiple_of(3_600_000) => {
                write!(f, "{}h", ms / 3_600_000)
            }
            _ if ms >= 60_000 && ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ => write!(f, "{}s", ms / 1000),
        }
    }
}

impl Timestamp {
    /// The moment `span` later.
    #[must_use]
    pub const fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.0))
    }
    /// The span from `earlier` to this moment; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds; the date arithmetic is Howard Hinnant's `civil_from_days`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let z = days + 719_468;
        let era = z / 146_097;
        let doe = z % 146_097;
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        )
    }
}

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// `number` (digits, at most one point, at most nine decimals) times `factor`, cut to whole units;
/// `None` on anything else or on overflow. Exact, unlike a float: 0.1g is what it says.
fn decimal_times(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let digits = |s: &str| -> Option<u128> {
        if s.is_empty() {
            Some(0)
        } else if s.bytes().all(|b| b.is_ascii_digit()) {
            s.parse().ok()
        } else {
            None
        }
    };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let total = digits(whole)?
        .checked_mul(scale)?
        .checked_add(digits(fraction)?)?;
    u64::try_from(total.checked_mul(u128::from(factor))? / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_texts() {
        for (text, bytes) in [
            ("1", 1),
            ("2k", 2048),
            ("512m", 512 << 20),
            ("1.5G", 3 << 29),
            ("64MB", 64 << 20),
            ("1gib", 1 << 30),
        ] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes, "{text}");
        }
        for text in [
            "",
            "0",
            "-1",
            "1x",
            "m",
            "1..5m",
            "1e9",
            "99999999999999999999g",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn duration_and_cpu_texts() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().0, ms, "{text}");
        }
        for text in ["", "10", "s", "1d", "10 parsecs"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
        assert_eq!("0.5".parse::<MilliCpu>().unwrap().0, 500);
        assert_eq!("250m".parse::<MilliCpu>().unwrap().0, 250);
    }

    #[test]
    fn time_text_is_rfc3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Timestamp(951_782_400_123).to_string(),
            "2000-02-29T00:00:00.123Z"
        );
    }

    proptest! {
        #[test]
        fn quantity_parsers_never_panic(text in ".{0,24}") {
            let _ = text.parse::<Bytes>();
            let _ = text.parse::<MilliCpu>();
            let _ = text.parse::<Duration>();
        }

        #[test]
        fn durations_print_what_they_parse(ms in 0_u64..10_000_000_000) {
            let text = Duration(ms).to_string();
            prop_assert_eq!(text.parse::<Duration>().unwrap(), Duration(ms), "{}", text);
        }
    }
}
