//! Where things are made.

use crate::error::NetworkError;
use std::path::PathBuf;
use warren_netplan::names;

/// Longest name of the nftables table in bytes; the kernel's own limit is larger.
const TABLE_NAME_BYTES_MAX: usize = 31;

/// Names of what is made on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name of the bridge, the same that the desired network carries.
    pub bridge: String,
    /// Name of the nftables table (family `ip`); nothing else may use it.
    pub table: String,
    /// Directory of the namespace files, one per container; best on a file system that a reboot
    /// clears, such as `/run`.
    pub netns_dir: PathBuf,
}

impl NetworkConfig {
    /// The names of an ordinary installation.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            bridge: "warren0".to_owned(),
            table: "warren".to_owned(),
            netns_dir: PathBuf::from("/run/warren/netns"),
        }
    }

    /// Checks the names.
    pub(crate) fn validate(&self) -> Result<(), NetworkError> {
        let fail = |what: &str| {
            Err(NetworkError::Config {
                reason: what.to_owned(),
            })
        };
        if !names::is_bridge_name(&self.bridge) {
            return fail(
                "the bridge's name must be 1 to 15 lower-case letters, digits and dashes, a letter first",
            );
        }
        let table = &self.table;
        let plain = table
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if table.is_empty() || table.len() > TABLE_NAME_BYTES_MAX || !plain {
            return fail(
                "the table's name must be 1 to 31 lower-case letters, digits and underscores",
            );
        }
        if !self.netns_dir.is_absolute() {
            return fail("the namespace directory must be an absolute path");
        }
        Ok(())
    }
}
