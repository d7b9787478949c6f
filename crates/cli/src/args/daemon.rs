//! Flags of what runs a node: founding, joining, restoring, going on.

use super::WaitArgs;
use clap::{Args, ValueEnum};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use warren_types::RaftProfile;

/// Where the daemon keeps its data.
pub const DATA_DIR_DEFAULT: &str = "/var/lib/warren";
/// Where a new cluster's API listens: nobody else is let in before that is asked for.
pub const API_ADDR_DEFAULT: &str = "127.0.0.1:8080";
/// Where the API of a manager that joins listens: the other managers have to reach it.
pub const JOIN_API_ADDR_DEFAULT: &str = "0.0.0.0:8080";
/// Where metrics and health are served.
pub const METRICS_ADDR_DEFAULT: &str = "127.0.0.1:9090";
/// Longest passphrase in bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 512;

/// A text that must not be shown: its debug form hides it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Hidden(String);

impl Hidden {
    /// Hides a text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

/// Where metrics and health are served; `None` means nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsAddr(pub Option<SocketAddr>);

impl FromStr for MetricsAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text == "none" {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| {
            format!("'{text}' is neither IP:PORT, such as {METRICS_ADDR_DEFAULT}, nor 'none'")
        })?;
        Ok(Self(Some(address)))
    }
}

/// `host:port` that others can dial: a name or an address, and a port from 1 on.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn host_port(text: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("'{text}' is not HOST:PORT, such as 10.0.0.1:8080: {why}");
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err(wrong("port 0 cannot be dialled"))
        } else if address.ip().is_unspecified() {
            Err(wrong(
                "others cannot dial it; name the address that they see",
            ))
        } else {
            Ok(text.to_owned())
        };
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| wrong("it has no port"))?;
    if !port.parse::<u16>().is_ok_and(|p| p != 0) {
        return Err(wrong("the port is not a number from 1 to 65535"));
    }
    let name = !host.is_empty()
        && host.len() <= warren_types::limits::HOST_CHARS_MAX
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if name {
        Ok(text.to_owned())
    } else {
        Err(wrong("the host is neither a name nor an address"))
    }
}

/// Times of the consensus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum RaftProfileArg {
    /// Managers in one place or region.
    #[default]
    Lan,
    /// Managers far apart: ten times the times of lan.
    Wan,
}

impl RaftProfileArg {
    /// Name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lan => RaftProfile::Lan.name(),
            Self::Wan => RaftProfile::Wan.name(),
        }
    }
}

impl From<RaftProfileArg> for RaftProfile {
    fn from(arg: RaftProfileArg) -> Self {
        match arg {
            RaftProfileArg::Lan => Self::Lan,
            RaftProfileArg::Wan => Self::Wan,
        }
    }
}

/// The directory of a node.
#[derive(Debug, Clone, Args)]
pub struct DataDirArgs {
    /// Directory of all data.
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
}

/// Flags of `cluster init`.
#[derive(Debug, Clone, Args)]
pub struct ClusterInitArgs {
    /// Name of this node [default: the host name].
    #[arg(long, visible_alias = "name", value_name = "NAME")]
    pub node_id: Option<String>,
    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "warren")]
    pub cluster_name: String,
    /// Address of the API.
    #[arg(long, value_name = "IP:PORT", default_value = API_ADDR_DEFAULT)]
    pub api_addr: SocketAddr,
    /// Address at which other nodes reach the API [default: that of --api-addr, or this machine's first
    /// address when that is 0.0.0.0].
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub advertise_addr: Option<String>,
    /// Address of metrics and health; `none` means that they are not served.
    #[arg(long, value_name = "IP:PORT", default_value = METRICS_ADDR_DEFAULT)]
    pub metrics_addr: MetricsAddr,
    /// Directory of all data.
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
    /// Run no containers on this node.
    #[arg(long)]
    pub manager_only: bool,
    /// Times of the consensus protocol: `wan` when the managers will be far apart.
    #[arg(long, value_enum, value_name = "PROFILE", default_value_t)]
    pub raft_profile: RaftProfileArg,
}

/// What a joining node wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JoinRole {
    /// What its token is for.
    #[default]
    FromToken,
    /// It runs containers.
    Worker,
    /// It manages and runs containers.
    Hybrid,
    /// It manages and runs no containers.
    Manager,
}

impl JoinRole {
    /// Name on the wire (`RequestCertificateRequest.role`); empty means that of the token.
    #[must_use]
    pub const fn wire(self) -> &'static str {
        match self {
            Self::FromToken => "",
            Self::Worker => "worker",
            Self::Hybrid => "hybrid",
            Self::Manager => "manager",
        }
    }
}

/// What makes this machine a node of an existing cluster, and runs it.
#[derive(Debug, Clone)]
pub struct JoinArgs {
    /// What it wants to be.
    pub role: JoinRole,
    /// Managers to ask, `host:port` each; at least one.
    pub managers: Vec<String>,
    /// Join token.
    pub token: Hidden,
    /// Name of this node; `None` means the host name.
    pub node_id: Option<String>,
    /// Address of the API, for when it is or becomes a manager.
    pub api_addr: SocketAddr,
    /// Address at which other nodes reach the API; `None`: find it from `api_addr`.
    pub advertise_addr: Option<String>,
    /// Address of metrics and health.
    pub metrics_addr: MetricsAddr,
    /// Directory of all data.
    pub data_dir: PathBuf,
}

/// Flags of whatever makes this machine a node of a cluster that exists.
#[derive(Debug, Clone, Args)]
pub struct NodeFlags {
    /// Name of this node [default: the host name].
    #[arg(long, visible_alias = "name", value_name = "NAME")]
    pub node_id: Option<String>,
    /// Address of the API, for as long as the node is a manager.
    #[arg(long, value_name = "IP:PORT", default_value = JOIN_API_ADDR_DEFAULT)]
    pub api_addr: SocketAddr,
    /// Address at which other nodes reach the API [default: that of --api-addr, or this machine's first
    /// address when that is 0.0.0.0].
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub advertise_addr: Option<String>,
    /// Address of metrics and health; `none` means that they are not served.
    #[arg(long, value_name = "IP:PORT", default_value = METRICS_ADDR_DEFAULT)]
    pub metrics_addr: MetricsAddr,
    /// Directory.
    #[command(flatten)]
    pub dir: DataDirArgs,
}

/// Flags that every join has.
#[derive(Debug, Clone, Args)]
pub struct JoinFlags {
    /// Token that `warren cluster join-token` printed. The managers to ask are named with --manager.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "WARREN_JOIN_TOKEN",
        hide_env_values = true
    )]
    pub token: Hidden,
    /// What the node is.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// Flags of `manager join` and `node join`.
#[derive(Debug, Clone, Args)]
pub struct ManagerJoinFlags {
    /// What every join has.
    #[command(flatten)]
    pub join: JoinFlags,
    /// Run no containers on this node.
    #[arg(long)]
    pub manager_only: bool,
}

impl JoinFlags {
    /// Puts the flags together with the role and the managers that the command line names elsewhere.
    #[must_use]
    pub fn into_args(self, role: JoinRole, managers: Vec<String>) -> JoinArgs {
        JoinArgs {
            role,
            managers,
            token: self.token,
            node_id: self.node.node_id,
            api_addr: self.node.api_addr,
            advertise_addr: self.node.advertise_addr,
            metrics_addr: self.node.metrics_addr,
            data_dir: self.node.dir.data_dir,
        }
    }
}

/// Where a backup's passphrase comes from.
#[derive(Debug, Clone, Args)]
pub struct PassphraseArgs {
    /// File whose first line is the passphrase. Without it: the environment's WARREN_PASSPHRASE, else it
    /// is asked on the terminal.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// Flags of `cluster restore`.
#[derive(Debug, Clone, Args)]
pub struct ClusterRestoreFlags {
    /// File that `warren cluster backup` wrote.
    #[arg(short, long, value_name = "FILE")]
    pub input: PathBuf,
    /// Passphrase.
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// What the node is.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Run no containers on this node.
    #[arg(long)]
    pub manager_only: bool,
}

/// What makes this machine the first manager of a cluster from a backup, and runs it.
#[derive(Debug, Clone)]
pub struct RestoreArgs {
    /// File that `cluster backup` wrote; it could be opened when the command began.
    pub input: PathBuf,
    /// Passphrase that the backup was sealed with.
    pub passphrase: Hidden,
    /// Name of this node; `None` means the host name.
    pub node_id: Option<String>,
    /// Address of the API.
    pub api_addr: SocketAddr,
    /// Address at which other nodes reach the API; `None`: find it from `api_addr`.
    pub advertise_addr: Option<String>,
    /// Address of metrics and health.
    pub metrics_addr: MetricsAddr,
    /// Run no containers on this node.
    pub manager_only: bool,
    /// Directory of all data.
    pub data_dir: PathBuf,
}

impl ClusterRestoreFlags {
    /// Puts the flags together with the passphrase, once that is known.
    #[must_use]
    pub fn into_args(self, passphrase: Hidden) -> RestoreArgs {
        RestoreArgs {
            input: self.input,
            passphrase,
            node_id: self.node.node_id,
            api_addr: self.node.api_addr,
            advertise_addr: self.node.advertise_addr,
            metrics_addr: self.node.metrics_addr,
            manager_only: self.manager_only,
            data_dir: self.node.dir.data_dir,
        }
    }
}

/// Flags of `node run`. Absent addresses stay as they were.
#[derive(Debug, Clone, Args)]
pub struct NodeRunArgs {
    /// Directory of all data.
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
    /// New address of the API, from now on.
    #[arg(long, value_name = "IP:PORT")]
    pub api_addr: Option<SocketAddr>,
    /// New address at which other nodes reach the API, from now on.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub advertise_addr: Option<String>,
    /// New address of metrics and health, from now on; `none` means that they are not served.
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_addr: Option<MetricsAddr>,
}

/// Flags of `node stop`.
#[derive(Debug, Clone, Args)]
pub struct NodeStopArgs {
    /// How long the daemon may take to end what it does.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub grace: warren_types::Duration,
}

/// Flags of `node reset`.
#[derive(Debug, Clone, Args)]
pub struct NodeResetArgs {
    /// Directory of all data.
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
    /// Do not ask.
    #[arg(short = 'y', long, visible_alias = "force")]
    pub yes: bool,
}

/// Flags of `up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Manifest, directory or `-`; none means the hello service.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Stay in the foreground and run the node here.
    #[arg(long)]
    pub foreground: bool,
    /// Directory of all data, for a node that is started now.
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
    /// Address of the API, for a node that is started now.
    #[arg(long, value_name = "IP:PORT", default_value = API_ADDR_DEFAULT)]
    pub api_addr: SocketAddr,
    /// Address at which other nodes reach the API, for a node that is started now [default: that of
    /// --api-addr, or this machine's first address when that is 0.0.0.0].
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub advertise_addr: Option<String>,
    /// Address of metrics and health, for a node that is started now; `none` means that they are not served.
    #[arg(long, value_name = "IP:PORT", default_value = METRICS_ADDR_DEFAULT)]
    pub metrics_addr: MetricsAddr,
    /// Times of the consensus protocol, for a node that is started now: `wan` when the managers will be far apart.
    #[arg(long, value_enum, value_name = "PROFILE", default_value_t)]
    pub raft_profile: RaftProfileArg,
    /// Port of the hello service on this machine.
    #[arg(long, value_name = "PORT", default_value_t = crate::commands::up::HELLO_HOST_PORT)]
    pub hello_port: u16,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_others_cannot_dial_are_refused() {
        for good in [
            "10.0.0.1:8080",
            "[::1]:1",
            "edge-1.local:65535",
            "edge_1:80",
        ] {
            assert_eq!(host_port(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            ":80",
            "edge",
            "edge:0",
            "edge:65536",
            "edge:x",
            "0.0.0.0:80",
            "[::]:80",
            "10.0.0.1:0",
            "::1:80",
            "a b:80",
            "http://edge:80",
        ] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metrics_can_be_off() {
        for off in ["", "none"] {
            assert_eq!(off.parse(), Ok(MetricsAddr(None)));
        }
        assert!("127.0.0.1".parse::<MetricsAddr>().is_err());
        assert!("127.0.0.1:9090".parse::<MetricsAddr>().unwrap().0.is_some());
    }

    #[test]
    fn hidden_texts_do_not_show() {
        assert_eq!(format!("{:?}", Hidden::new("geheim".into())), "Hidden");
    }
}
