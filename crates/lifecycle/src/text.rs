//! Words for users.

use warren_types::{Duration, ExitInfo};

/// How a process ended, such as `exit status 1` or `killed by signal 9 (SIGKILL)`.
pub(crate) fn exit(exit: &ExitInfo) -> String {
    if exit.oom {
        return "killed by the kernel for lack of memory (raise its memory limit, or the node is full)"
            .to_owned();
    }
    match exit.signal {
        Some(number) => match signal_name(number) {
            Some(name) => format!("killed by signal {number} ({name})"),
            None => format!("killed by signal {number}"),
        },
        None => format!("exit status {}", exit.code),
    }
}

const fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// A wait in seconds with one decimal: `0.1 s`, `30 s`.
pub(crate) fn wait(span: Duration) -> String {
    let tenths = span.as_millis().div_ceil(100);
    if tenths.is_multiple_of(10) {
        format!("{} s", tenths / 10)
    } else {
        format!("{}.{} s", tenths / 10, tenths % 10)
    }
}

/// Cuts a text to at most `bytes`, at a character's boundary.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
