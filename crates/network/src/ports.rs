//! Which process of the host listens on a port.
//!
//! The kernel's own tables in `/proc` are read: a trial bind would not see a listener on one address
//! only, whose traffic translation would take away all the same.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use warren_netplan::HostPort;
use warren_types::Protocol;

/// State number of a listening TCP socket in `/proc/net/tcp`.
const TCP_LISTEN: &str = "0A";
/// State number of an unconnected UDP socket in `/proc/net/udp`.
const UDP_UNCONNECTED: &str = "07";

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// Process id, if it could be found.
    pub pid: Option<u32>,
    /// Its command name, if it could be found.
    pub command: Option<String>,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.command) {
            (Some(pid), Some(command)) => write!(f, "{command} (process {pid})"),
            (Some(pid), None) => write!(f, "process {pid}"),
            _ => f.write_str("a process of this host"),
        }
    }
}

/// Ports with a listener, with the inode of its socket. Must run in the host's network namespace.
pub(crate) fn listening() -> std::io::Result<BTreeMap<HostPort, u64>> {
    let mut found = BTreeMap::new();
    for (file, protocol, state) in [
        ("tcp", Protocol::Tcp, TCP_LISTEN),
        ("tcp6", Protocol::Tcp, TCP_LISTEN),
        ("udp", Protocol::Udp, UDP_UNCONNECTED),
        ("udp6", Protocol::Udp, UDP_UNCONNECTED),
    ] {
        // `/proc/net` shows the main thread's namespace; this shows the caller's.
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => found.extend(parse(&text, protocol, state)),
            // A kernel without IPv6 has no such file.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.ends_with('6') => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The ports of the sockets in `state` of one table.
fn parse(text: &str, protocol: Protocol, state: &str) -> Vec<(HostPort, u64)> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = fields.get(1)?;
        (*fields.get(3)? == state).then_some(())?;
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        Some((HostPort { protocol, port }, fields.get(9)?.parse().ok()?))
    };
    text.lines()
        .skip(1)
        .filter_map(line)
        .filter(|(port, _)| port.port != 0)
        .collect()
}

/// The process that has the socket with this inode open.
pub(crate) fn holder(inode: u64) -> PortHolder {
    let wanted = format!("socket:[{inode}]");
    let has_socket = |process: &Path| {
        let Ok(files) = fs::read_dir(process.join("fd")) else {
            return false;
        };
        files.flatten().any(|f| {
            fs::read_link(f.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str())
        })
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        if has_socket(&process.path()) {
            let command = fs::read_to_string(process.path().join("comm")).ok();
            return PortHolder {
                pid: Some(pid),
                command: command.map(|c| c.trim().to_owned()),
            };
        }
    }
    PortHolder {
        pid: None,
        command: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
        1: 0100007F:1F91 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
        2: broken\n";

    #[test]
    fn listeners_only() {
        assert_eq!(
            parse(TABLE, Protocol::Tcp, TCP_LISTEN),
            [(
                HostPort {
                    protocol: Protocol::Tcp,
                    port: 8080
                },
                4711
            )]
        );
    }

    #[test]
    fn this_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = HostPort {
            protocol: Protocol::Tcp,
            port: socket.local_addr().unwrap().port(),
        };
        let inode = listening().unwrap()[&port];
        assert_eq!(holder(inode).pid, Some(std::process::id()));
    }
}
