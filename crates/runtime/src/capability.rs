//! The capability set of a container: a small default, changed by name.

use crate::spec::CapabilityChange;

/// What a container keeps when nobody asks for a change: the customary fourteen.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All capabilities of Linux by number.
pub const ALL_CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The set after a change, in kernel order; the error names the unknown capability.
pub fn effective_set(change: &CapabilityChange) -> Result<Vec<&'static str>, String> {
    let mut keep = [false; ALL_CAPABILITIES.len()];
    for (at, name) in ALL_CAPABILITIES.iter().enumerate() {
        keep[at] = DEFAULT_CAPABILITIES.contains(name);
    }
    for (names, value) in [(&change.drop, false), (&change.add, true)] {
        for name in names {
            if name.eq_ignore_ascii_case("all") {
                keep = [value; ALL_CAPABILITIES.len()];
            } else {
                keep[index(name)?] = value;
            }
        }
    }
    Ok(ALL_CAPABILITIES
        .iter()
        .zip(keep)
        .filter_map(|(name, kept)| kept.then_some(*name))
        .collect())
}

/// The set as the kernel's bit mask, as it stands in `/proc/PID/status`.
#[must_use]
pub fn mask(set: &[&str]) -> u64 {
    ALL_CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(_, name)| set.contains(name))
        .fold(0, |mask, (bit, _)| mask | 1 << bit)
}

fn index(name: &str) -> Result<usize, String> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    };
    ALL_CAPABILITIES
        .iter()
        .position(|known| *known == full)
        .ok_or_else(|| format!("{name:?} is no capability; write a name such as NET_ADMIN, or ALL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(add: &[&str], drop: &[&str]) -> CapabilityChange {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        CapabilityChange {
            add: own(add),
            drop: own(drop),
        }
    }

    #[test]
    fn default_mask_is_the_customary_one() {
        assert_eq!(
            mask(&effective_set(&change(&[], &[])).unwrap()),
            0xa804_25fb
        );
    }

    #[test]
    fn drop_all_then_add_one() {
        assert_eq!(
            effective_set(&change(&["net_bind_service"], &["ALL"])).unwrap(),
            ["CAP_NET_BIND_SERVICE"]
        );
        assert!(
            effective_set(&change(&["CAP_X"], &[]))
                .unwrap_err()
                .contains("CAP_X")
        );
    }
}
