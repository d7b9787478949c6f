//! Who may use the local socket: root and the members of the group `warren`, by what the kernel says of
//! the peer. The user and group files are read here because a static binary has no `getgrnam`.

use std::path::Path;
use warren_types::Role;

/// Group whose members are administrators of the local daemon.
pub(crate) const GROUP: &str = "warren";
const GROUP_FILE: &str = "/etc/group";
const PASSWD_FILE: &str = "/etc/passwd";
/// Larger user or group files are not read, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The user and group files as text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounts {
    group: String,
    passwd: String,
}

impl Accounts {
    /// Reads the files of this machine; a missing one counts as empty.
    pub(crate) fn read() -> Self {
        Self {
            group: read_limited(Path::new(GROUP_FILE)),
            passwd: read_limited(Path::new(PASSWD_FILE)),
        }
    }

    /// Number of a group.
    pub(crate) fn group_id(&self, name: &str) -> Option<u32> {
        self.group_line(name)?.get(2)?.parse().ok()
    }

    fn group_line(&self, name: &str) -> Option<Vec<&str>> {
        self.group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))
    }

    fn is_member(&self, uid: u32, gid: u32) -> bool {
        let Some(line) = self.group_line(GROUP) else {
            return false;
        };
        if line.get(2).and_then(|id| id.parse().ok()) == Some(gid) {
            return true;
        }
        let members = line.get(3).copied().unwrap_or_default();
        // A uid may carry several names; any of them will do.
        self.passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid))
            .filter_map(|fields| fields.first().copied())
            .any(|name| members.split(',').any(|member| member.trim() == name))
    }

    /// The role of a peer of the local socket.
    pub(crate) fn role(&self, uid: u32, gid: u32) -> Role {
        if uid == 0 || self.is_member(uid, gid) {
            Role::Admin
        } else {
            Role::None
        }
    }
}

fn read_limited(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() <= FILE_BYTES_MAX => {
            std::fs::read_to_string(path).unwrap_or_default()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(group: &str) -> Accounts {
        Accounts {
            group: group.to_owned(),
            passwd: "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:\nannie:x:1002:1:::\nbroken\n"
                .to_owned(),
        }
    }

    #[test]
    fn root_and_members_are_admin_and_nobody_else() {
        let with = accounts("a:x:1:bob\nwarren:x:77:ann, carl\nwarrens:x:78:bob");
        for (uid, gid, role) in [
            (0, 0, Role::Admin),
            (1000, 1000, Role::Admin),
            (1001, 1001, Role::None),
            (1001, 77, Role::Admin),
            // A name that merely begins like a member's.
            (1002, 1, Role::None),
            // No name at all.
            (5000, 5000, Role::None),
        ] {
            assert_eq!(with.role(uid, gid), role, "uid {uid} gid {gid}");
        }
        assert_eq!(with.group_id("warren"), Some(77));
    }

    #[test]
    fn without_the_group_only_root_is_admin() {
        for text in ["", "warren", "warren:x", "warren:x:oops:ann"] {
            let without = accounts(text);
            assert_eq!(without.role(0, 0), Role::Admin);
            assert_eq!(without.role(1001, 1001), Role::None, "{text:?}");
            assert_eq!(without.group_id("warren"), None);
        }
    }
}
