//! Whom to talk to: a manager over TLS, or the daemon of this machine over its socket.

use crate::error::{ClientError, ErrorKind};
use std::fmt;
use std::path::{Path, PathBuf};

/// Socket of the local daemon.
pub const DEFAULT_SOCKET: &str = "/var/run/warren.sock";
/// Port of a manager when the address names none.
pub const DEFAULT_PORT: u16 = 8080;
/// Environment variable with manager addresses, separated by commas.
pub const ENV_MANAGER: &str = "WARREN_MANAGER";
/// Environment variable with the path of the local socket.
pub const ENV_SOCKET: &str = "WARREN_SOCKET";
/// Environment variable with the directory that holds `node.crt`, `node.key` and `ca.crt`.
pub const ENV_CONTEXT_DIR: &str = "WARREN_CONTEXT_DIR";
/// Default of that directory, below the home directory.
pub const CONTEXT_DIR: &str = ".warren/certs/cli";

/// Certificate, key and CA of a client, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// Roots of the cluster; more than one during a rotation.
    pub ca_pem: Vec<String>,
    /// Own certificate chain and private key; `None` for calls that need none.
    pub own: Option<(String, String)>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TlsIdentity({} roots, {})",
            self.ca_pem.len(),
            if self.own.is_some() {
                "with certificate"
            } else {
                "no certificate"
            }
        )
    }
}

impl TlsIdentity {
    /// Reads `ca.crt`, `node.crt` and `node.key` of a directory.
    ///
    /// # Errors
    /// [`ErrorKind::Local`] names the file that is missing or unreadable.
    pub fn from_dir(dir: &Path) -> Result<Self, ClientError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|e| {
                ClientError::new(
                    ErrorKind::Local,
                    format!("cannot read {}: {e}", path.display()),
                    format!(
                        "copy ca.crt, node.crt and node.key of an admin there, or set {ENV_CONTEXT_DIR}"
                    ),
                )
            })
        };
        Ok(Self {
            ca_pem: vec![read("ca.crt")?],
            own: Some((read("node.crt")?, read("node.key")?)),
        })
    }
}

/// Where a client connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The socket of the local daemon.
    Unix(PathBuf),
    /// Managers over TLS; any of them will do, tried in order.
    Tcp {
        /// `host:port` each.
        addresses: Vec<String>,
        /// Whom to trust and who to be.
        identity: TlsIdentity,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix socket {}", path.display()),
            Self::Tcp { addresses, .. } => f.write_str(&addresses.join(", ")),
        }
    }
}

/// What the command line and the environment say about the target. Empty fields mean the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetOptions {
    /// Manager addresses, separated by commas (`--manager`).
    pub manager: Option<String>,
    /// Local socket (`--socket`).
    pub socket: Option<PathBuf>,
    /// Directory with certificate, key and CA.
    pub context_dir: Option<PathBuf>,
}

impl TargetOptions {
    /// Fills what is not set from the environment.
    #[must_use]
    pub fn or_env(mut self) -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        // A socket named by hand is stronger than a manager named by the environment.
        if self.manager.is_none() && self.socket.is_none() {
            self.manager = var(ENV_MANAGER);
        }
        if self.socket.is_none() {
            self.socket = var(ENV_SOCKET).map(PathBuf::from);
        }
        if self.context_dir.is_none() {
            self.context_dir = var(ENV_CONTEXT_DIR)
                .map(PathBuf::from)
                .or_else(|| var("HOME").map(|home| Path::new(&home).join(CONTEXT_DIR)));
        }
        self
    }

    /// A manager when one is named, else the local socket.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for an address that is none; [`ErrorKind::Local`] when the
    /// certificates cannot be read.
    pub fn resolve(self) -> Result<Target, ClientError> {
        let Some(manager) = self.manager else {
            let socket = self.socket.unwrap_or_else(|| DEFAULT_SOCKET.into());
            return Ok(Target::Unix(socket));
        };
        let addresses = manager
            .split(',')
            .map(str::trim)
            .filter(|a| !a.is_empty())
            .map(with_port)
            .collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(bad_address(&manager));
        }
        let dir = self.context_dir.ok_or_else(|| {
            ClientError::new(
                ErrorKind::Local,
                "no directory with certificates is known",
                format!("set {ENV_CONTEXT_DIR}"),
            )
        })?;
        Ok(Target::Tcp {
            addresses,
            identity: TlsIdentity::from_dir(&dir)?,
        })
    }
}

fn bad_address(text: &str) -> ClientError {
    ClientError::new(
        ErrorKind::InvalidArgument,
        format!("{text:?} is no manager address"),
        "write host:port, such as 10.0.0.1:8080 or [fd00::1]:8080",
    )
}

/// The address with the default port when it names none.
fn with_port(text: &str) -> Result<String, ClientError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| bad_address(text))?;
        let port = match after {
            "" => None,
            _ => Some(after.strip_prefix(':').ok_or_else(|| bad_address(text))?),
        };
        (format!("[{host}]"), port)
    } else {
        match text.matches(':').count() {
            0 => (text.to_owned(), None),
            1 => {
                let (host, port) = text.split_once(':').ok_or_else(|| bad_address(text))?;
                (host.to_owned(), Some(port))
            }
            // A bare IPv6 address.
            _ => (format!("[{text}]"), None),
        }
    };
    if host.is_empty() || host == "[]" || host.contains(['/', ' ', '@']) {
        return Err(bad_address(text));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(p) => p.parse().map_err(|_| bad_address(text))?,
    };
    if port == 0 {
        return Err(bad_address(text));
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_default_port() {
        for (text, wanted) in [
            ("a", "a:8080"),
            ("a:1", "a:1"),
            ("10.0.0.1:9", "10.0.0.1:9"),
            ("[fd00::1]", "[fd00::1]:8080"),
            ("[fd00::1]:5", "[fd00::1]:5"),
            ("fd00::1", "[fd00::1]:8080"),
        ] {
            assert_eq!(with_port(text).unwrap(), wanted, "{text}");
        }
        for wrong in [
            "a:", "a:0", "a:65536", ":8080", "[fd00::1", "[]:1", "http://a", "a b",
        ] {
            let error = with_port(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn nothing_named_means_the_local_socket() {
        let target = TargetOptions::default().resolve().unwrap();
        assert_eq!(target, Target::Unix(DEFAULT_SOCKET.into()));
    }

    #[test]
    fn a_missing_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let options = TargetOptions {
            manager: Some("m1, m2:9".to_owned()),
            context_dir: Some(dir.path().to_owned()),
            ..TargetOptions::default()
        };
        let error = options.resolve().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Local);
        assert!(error.message.contains("ca.crt"), "{error}");
    }
}
