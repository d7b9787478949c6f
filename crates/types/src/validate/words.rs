//! Words with a fixed grammar: names, hosts, image references, capabilities, signals, subnets.

use crate::limits;
use std::net::Ipv4Addr;

/// A DNS label in lower case (RFC 1035 and 1123): 1 to 63 of a-z, 0-9 and `-`, no `-` at the ends.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    (1..=limits::NAME_CHARS_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A host name of labels in either case, at most 253 characters, without final dot.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    text.len() <= limits::HOST_CHARS_MAX
        && text
            .split('.')
            .all(|label| is_dns_label(&label.to_ascii_lowercase()))
}

pub(crate) fn is_label_key(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    (1..=limits::LABEL_KEY_CHARS_MAX).contains(&text.len())
        && text.bytes().all(inner)
        && ends_alphanumeric(text)
}

fn ends_alphanumeric(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// An image reference `[host[:port]/]path[:tag][@sha256:…]` (the grammar of the OCI distribution
/// specification; the host part may be left out).
#[must_use]
pub fn is_image_reference(text: &str) -> bool {
    if text.is_empty() || text.len() > limits::IMAGE_REF_CHARS_MAX {
        return false;
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if !digest.is_none_or(is_digest) {
        return false;
    }
    // A colon after the last slash begins the tag; one before it belongs to the host's port.
    let last = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[last..].rfind(':') {
        Some(at) => (&rest[..last + at], Some(&rest[last + at + 1..])),
        None => (rest, None),
    };
    if !tag.is_none_or(is_tag) {
        return false;
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 1 && is_registry(parts[0]) {
        parts.remove(0);
    }
    parts.into_iter().all(is_path_component)
}

/// The first part is a registry when it could not be a path: it has a dot, a port, upper-case
/// letters, or is `localhost`.
fn is_registry(part: &str) -> bool {
    let (host, port) = match part.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (part, None),
    };
    let looks = port.is_some() || part.contains('.') || part == "localhost";
    looks && is_host_name(host) && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p != 0))
}

fn is_path_component(part: &str) -> bool {
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    part.bytes().all(allowed)
        && ends_alphanumeric(part)
        && !part.contains("..")
        && !part.contains("___")
        && !["._", "_.", ".-", "-.", "_-", "-_"]
            .iter()
            .any(|pair| part.contains(pair))
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !tag.starts_with(['.', '-'])
}

/// `sha256:` and 64 lower-case hexadecimal digits.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// Linux capabilities (capability.h up to Linux 6.x), without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A capability in upper case without `CAP_`; `ALL` for `ALL`.
pub(crate) fn capability_name(text: &str) -> Option<&'static str> {
    let upper = text.to_ascii_uppercase();
    if upper == "ALL" {
        return Some("ALL");
    }
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    CAPABILITIES.into_iter().find(|name| *name == plain)
}

/// A Linux capability, with or without `CAP_`, in either case, or `ALL`.
#[must_use]
pub fn is_capability(text: &str) -> bool {
    capability_name(text).is_some()
}

/// Signals of Linux that have the same number on every processor Warren runs on (x86, ARM, RISC-V).
const SIGNALS: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// First and last real-time signal as the C library counts them.
const RT_SIGNALS: (i32, i32) = (34, 64);

/// Number of a signal written as `SIGTERM`, `term`, `15`, `SIGRTMIN+3` or `RTMAX-1`.
#[must_use]
pub fn parse_signal(text: &str) -> Option<i32> {
    if !text.is_empty() && text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit()) {
        let number: i32 = text.parse().ok()?;
        let plain = SIGNALS.iter().any(|(_, n)| *n == number);
        return (plain || (RT_SIGNALS.0..=RT_SIGNALS.1).contains(&number)).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = SIGNALS.iter().find(|(n, _)| *n == name) {
        return Some(*number);
    }
    let (base, rest, sign) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (RT_SIGNALS.0, rest, '+')
    } else {
        (RT_SIGNALS.1, name.strip_prefix("RTMAX")?, '-')
    };
    let offset = match rest.strip_prefix(sign) {
        Some(digits) if digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse::<i32>().ok()?
        }
        None if rest.is_empty() => 0,
        _ => return None,
    };
    let number = if sign == '+' {
        base + offset
    } else {
        base - offset
    };
    (RT_SIGNALS.0..=RT_SIGNALS.1)
        .contains(&number)
        .then_some(number)
}

/// An IPv4 subnet `a.b.c.d/len` whose host bits are zero, as network address and prefix length.
#[must_use]
pub fn parse_cidr(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, len) = text.split_once('/')?;
    if len.is_empty() || len.len() > 2 || !len.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let len: u8 = len.parse().ok().filter(|l| *l <= 32)?;
    let address: Ipv4Addr = address.parse().ok()?;
    let host_bits = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
    (u32::from(address) & host_bits == 0).then_some((address, len))
}

/// Is the address inside the subnet?
pub(crate) fn in_subnet(address: Ipv4Addr, subnet: (Ipv4Addr, u8)) -> bool {
    let host_bits = u32::MAX.checked_shr(u32::from(subnet.1)).unwrap_or(0);
    u32::from(address) & !host_bits == u32::from(subnet.0)
}
