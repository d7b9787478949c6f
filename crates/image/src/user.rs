//! The user a container runs as: text of the spec or image, looked up in the image's own files.

use crate::beneath::open_file_in_root;
use crate::error::{ImageError, IoContext, Result};
use crate::limits::MAX_USER_FILE_BYTES;
use std::io::Read;
use std::path::Path;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Numbers and home directory of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, sorted; empty if the text names a group.
    pub groups: Vec<u32>,
    /// Home directory by `/etc/passwd`, or `/`.
    pub home: String,
}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct GroupEntry {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Looks up `user` (`""`, `1000`, `1000:1000`, `redis`, `redis:redis`, `:redis`) in the files of a
/// root file system, which are read without following links out of it.
///
/// Rules are those of Docker: an empty user is root; a number needs no entry (then group 0); a
/// named group replaces all others.
///
/// # Errors
/// A name that is in neither file; a file over the size limit.
pub fn resolve_user(rootfs: &Path, user: &str) -> Result<ResolvedUser> {
    let (user_part, group_part) = match user.split_once(':') {
        Some((u, g)) => (u, Some(g).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let user_part = if user_part.is_empty() { "0" } else { user_part };
    let passwd = parse_passwd(&read_user_file(rootfs, PASSWD)?);
    let unknown = |part: &str, file| ImageError::UnknownUser {
        user: user.to_owned(),
        part: part.to_owned(),
        file,
    };
    let number = user_part.parse::<u32>().ok();
    // A name of digits is a number first, as for chown.
    let entry = match number {
        Some(uid) => passwd.iter().find(|e| e.uid == uid),
        None => Some(
            passwd
                .iter()
                .find(|e| e.name == user_part)
                .ok_or_else(|| unknown(user_part, PASSWD))?,
        ),
    };
    let uid = entry.map_or(number.unwrap_or(0), |e| e.uid);
    let home = entry
        .map(|e| e.home.clone())
        .filter(|h| !h.is_empty())
        .unwrap_or_else(|| "/".to_owned());
    if let Some(group) = group_part {
        let gid = match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => {
                let groups = parse_group(&read_user_file(rootfs, GROUP)?);
                groups
                    .iter()
                    .find(|g| g.name == group)
                    .ok_or_else(|| unknown(group, GROUP))?
                    .gid
            }
        };
        return Ok(ResolvedUser {
            uid,
            gid,
            groups: Vec::new(),
            home,
        });
    }
    let gid = entry.map_or(0, |e| e.gid);
    let mut groups = Vec::new();
    if let Some(entry) = entry {
        let all = parse_group(&read_user_file(rootfs, GROUP)?);
        groups = all
            .into_iter()
            .filter(|g| g.members.contains(&entry.name))
            .map(|g| g.gid)
            .filter(|g| *g != gid)
            .collect();
        groups.sort_unstable();
        groups.dedup();
    }
    Ok(ResolvedUser {
        uid,
        gid,
        groups,
        home,
    })
}

/// Content of a file in the root file system; empty if there is none, as in images from scratch.
fn read_user_file(rootfs: &Path, name: &'static str) -> Result<String> {
    let place = rootfs.join(name.trim_start_matches('/'));
    let Some(file) = open_file_in_root(rootfs, name.as_bytes()).at("cannot read", &place)? else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    file.take(MAX_USER_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .at("cannot read", &place)?;
    if bytes.len() as u64 > MAX_USER_FILE_BYTES {
        return Err(ImageError::TooLarge {
            what: format!("{name} of the image"),
            limit: MAX_USER_FILE_BYTES,
            unit: "bytes",
        });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(|l| l.split(':').collect())
}

fn parse_passwd(text: &str) -> Vec<PasswdEntry> {
    let entry = |fields: Vec<&str>| {
        Some(PasswdEntry {
            name: (*fields.first()?).to_owned(),
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: fields.get(5).copied().unwrap_or_default().to_owned(),
        })
    };
    lines(text).filter_map(entry).collect()
}

fn parse_group(text: &str) -> Vec<GroupEntry> {
    let entry = |fields: Vec<&str>| {
        Some(GroupEntry {
            name: (*fields.first()?).to_owned(),
            gid: fields.get(2)?.parse().ok()?,
            members: fields
                .get(3)
                .map(|m| m.split(',').map(|n| n.trim().to_owned()).collect())
                .unwrap_or_default(),
        })
    };
    lines(text).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rootfs(passwd: &str, group: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(dir.path().join("etc/group"), group).unwrap();
        dir
    }

    #[test]
    fn every_form() {
        let dir = rootfs(
            "# comment\nroot:x:0:0:root:/root:/bin/sh\nredis:x:999:998::/data:/bin/false\nbroken line\n",
            "root:x:0:\nredis:x:998:\nextra:x:50:redis,root\nmore:x:40:redis\n",
        );
        let user = |uid, gid, groups: &[u32], home: &str| ResolvedUser {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        };
        for (text, wanted) in [
            ("", user(0, 0, &[50], "/root")),
            ("0", user(0, 0, &[50], "/root")),
            ("redis", user(999, 998, &[40, 50], "/data")),
            ("999", user(999, 998, &[40, 50], "/data")),
            ("1000", user(1000, 0, &[], "/")),
            ("1000:1001", user(1000, 1001, &[], "/")),
            ("redis:extra", user(999, 50, &[], "/data")),
            ("redis:0", user(999, 0, &[], "/data")),
            (":redis", user(0, 998, &[], "/root")),
        ] {
            assert_eq!(resolve_user(dir.path(), text).unwrap(), wanted, "{text:?}");
        }
        for text in ["nobody", "redis:nogroup", "-1", "4294967296"] {
            let error = resolve_user(dir.path(), text).unwrap_err();
            assert!(
                matches!(error, ImageError::UnknownUser { .. }),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn images_without_the_files_know_numbers_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resolve_user(dir.path(), "").unwrap().uid, 0);
        assert_eq!(resolve_user(dir.path(), "5:6").unwrap().gid, 6);
        assert!(resolve_user(dir.path(), "root").is_err());
    }

    proptest! {
        #[test]
        fn any_files_resolve_or_are_refused(passwd in "[a-c0-3:\n#,x]{0,60}|.{0,60}", group in "[a-c0-3:\n,]{0,60}", user in "[a-c0-3:]{0,6}") {
            let dir = rootfs(&passwd, &group);
            let _ = resolve_user(dir.path(), &user);
        }
    }
}
