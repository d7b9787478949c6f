//! What can go wrong.

use crate::ports::PortHolder;
use std::path::PathBuf;
use warren_netplan::{HostPort, InvalidNetwork};
use warren_types::ContainerId;

/// Why the kernel could not be made to match, or not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The configured names cannot be used.
    #[error("network configuration: {reason}")]
    Config {
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// The desired value is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidNetwork),
    /// The desired network names another bridge than the one this was opened for.
    #[error(
        "the desired network is for bridge {desired}, but this node uses {configured}; set both to the same name"
    )]
    OtherBridge {
        /// In the desired value.
        desired: String,
        /// In the configuration.
        configured: String,
    },
    /// Rights are missing.
    #[error(
        "{action}: the kernel refused for lack of rights; run as root (CAP_NET_ADMIN and CAP_SYS_ADMIN)"
    )]
    Rights {
        /// What was tried.
        action: String,
    },
    /// The kernel lacks something.
    #[error(
        "{action}: this kernel does not support it ({source}); it needs bridge, veth and nftables with NAT (CONFIG_BRIDGE, CONFIG_VETH, CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_FIB_IPV4)"
    )]
    Unsupported {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: nlink::Error,
    },
    /// Any other answer of the kernel.
    #[error("{action}: {source}")]
    Kernel {
        /// What was tried, with the names involved.
        action: String,
        /// What the kernel said.
        source: nlink::Error,
    },
    /// A file could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A link with the name of ours is something else.
    #[error(
        "interface {name} exists and is {found}, not {wanted}; rename or remove it, or configure another bridge name"
    )]
    NotOurs {
        /// Name of the interface.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A process of the host listens on a port that is to be published.
    #[error("port {port} of this host is in use by {holder}; stop it or publish another host port")]
    PortInUse {
        /// The port.
        port: HostPort,
        /// Who has it.
        holder: PortHolder,
    },
    /// The address range of the containers is in use on this host.
    #[error(
        "subnet {subnet} of the containers overlaps {other} of interface {interface}; choose another container pool (cluster init --pool)"
    )]
    SubnetInUse {
        /// The containers' subnet.
        subnet: String,
        /// The address of the host it overlaps.
        other: String,
        /// The interface with that address.
        interface: String,
    },
    /// A file in the namespace directory is in the way.
    #[error("{} is not a network namespace of container {container}; remove it", path.display())]
    ForeignFile {
        /// The container whose namespace should be there.
        container: ContainerId,
        /// The file.
        path: PathBuf,
    },
}

/// Adds what was tried to an answer of the kernel.
pub(crate) trait Tried<T> {
    /// `action` names what was tried with the names involved.
    fn tried(self, action: impl FnOnce() -> String) -> Result<T, NetworkError>;
}

impl<T> Tried<T> for Result<T, nlink::Error> {
    fn tried(self, action: impl FnOnce() -> String) -> Result<T, NetworkError> {
        self.map_err(|source| {
            let action = action();
            if source.is_permission_denied() {
                NetworkError::Rights { action }
            } else if source.is_not_supported() {
                NetworkError::Unsupported { action, source }
            } else {
                NetworkError::Kernel { action, source }
            }
        })
    }
}
