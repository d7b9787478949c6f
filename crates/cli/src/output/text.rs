//! Small texts: ages, short ids, cleaned cells.

use crate::api::Time;
use warren_types::{Duration, Timestamp};

/// Characters of a short id. Ids begin with their time, so that those made together begin alike: the
/// short form is the end, which is random.
pub const SHORT_ID_CHARS: usize = 12;

/// The end of an id.
#[must_use]
pub fn short_id(id: &str) -> String {
    let skip = id.chars().count().saturating_sub(SHORT_ID_CHARS);
    id.chars().skip(skip).collect()
}

/// A span since `at` in the largest fitting unit, such as `5s`, `3m`, `2h`, `4d`; empty when unknown.
#[must_use]
pub fn age(at: Time, now: Timestamp) -> String {
    let Some(at) = at.0 else {
        return String::new();
    };
    span(now.since(at))
}

/// A span in the largest fitting unit.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_millis() / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `2026-01-31T12:00:00.000Z (3m ago)`; empty when unknown.
#[must_use]
pub fn ago(at: Time, now: Timestamp) -> String {
    match at.0 {
        Some(time) => format!("{time} ({} ago)", age(at, now)),
        None => String::new(),
    }
}

/// One line without control characters: text from the cluster must not steer the terminal.
#[must_use]
pub fn clean(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let now = Timestamp(1_000_000_000_000);
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7199, "119m"),
            (7200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(
                age(Time(Some(Timestamp(now.0 - seconds * 1000))), now),
                text
            );
        }
        assert_eq!(age(Time(Some(Timestamp(now.0 + 5000))), now), "0s");
        assert_eq!(age(Time(None), now), "");
    }
}
