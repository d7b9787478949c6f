//! The clock, and times as image documents write them.

use std::time::{SystemTime, UNIX_EPOCH};
use warren_types::Timestamp;

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reads `2024-05-01T12:34:56.789Z` and offsets like `+02:00`; `None` before 1970 or if malformed.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let digits = |from: usize, len: usize| -> Option<i64> {
        let part = text.get(from..from + len)?;
        part.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| part.parse().ok())?
    };
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    let mut rest = text.get(19..)?;
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(fraction.len());
        let padded: String = fraction[..end]
            .chars()
            .chain("000".chars())
            .take(3)
            .collect();
        millis = padded.parse().ok()?;
        rest = &fraction[end..];
    }
    let offset = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), ..] if rest.len() == 6 => {
            let at = text.len() - 6;
            let minutes = digits(at + 1, 2)? * 60 + digits(at + 4, 2)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    // Days since 1970 by Howard Hinnant's `days_from_civil`; years here are never negative.
    let (y, m) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let (era, yoe) = (y.div_euclid(400), y.rem_euclid(400));
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + (153 * m + 2) / 5 + day - 1;
    let days = era * 146_097 + doe - 719_468;
    let seconds = days * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    u64::try_from(seconds * 1000 + millis).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_with_offsets() {
        assert_eq!(
            parse_rfc3339("2000-02-29T00:00:00.123456789Z"),
            Some(Timestamp(951_782_400_123))
        );
        assert_eq!(
            parse_rfc3339("1970-01-01T02:00:01+02:00"),
            Some(Timestamp(1000))
        );
        for text in [
            "",
            "0001-01-01T00:00:00Z",
            "2000-13-01T00:00:00Z",
            "2000-01-01",
            "2000-01-01T00:00:00",
            "ä000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_read_back_as_printed(ms in 0_u64..4_000_000_000_000) {
            prop_assert_eq!(parse_rfc3339(&Timestamp(ms).to_string()), Some(Timestamp(ms)));
        }

        #[test]
        fn any_time_text_reads_or_is_refused(text in ".{0,32}") {
            let _ = parse_rfc3339(&text);
        }
    }
}
