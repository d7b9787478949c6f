#![allow(dead_code, reason = "each test file uses its part")]
//! A host made of a network namespace, with another host as its neighbour.
//!
//! Namespaces have no name and mounts happen in a mount namespace of the test's own thread, so all
//! vanishes with the test, however it ends.

use nix::sched::{CloneFlags, unshare};
use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::link::{LinkCreateExt, VethLink};
use nlink::netlink::namespace::Netns;
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::{Connection, Nftables, Route};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;
use warren_netplan::{Backend, BridgeNetwork, Endpoint, HostPort, NodeNetwork};
use warren_network::{HostNetwork, NetworkConfig};
use warren_types::{ContainerId, Protocol};

/// Address of the host on the line to its neighbour.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Address of the neighbour.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// How long an answer may take that is expected.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing must come that is not expected.
const SILENCE: Duration = Duration::from_millis(400);

/// The test's host and its neighbour.
pub struct Lab {
    pub host: Netns,
    pub outside: Netns,
    pub network: HostNetwork,
    pub dir: PathBuf,
}

/// Runs `test` on a fresh host; the closure runs in the host's namespace. Skipped without root.
///
/// The lab is shared with the test, not given away: an `async move` block takes only those fields
/// that it names, and the others would be dropped before it begins. Without the neighbour's
/// namespace the kernel removes the line to it, at a time of its own choosing.
pub fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce(Rc<Lab>) -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "SKIPPED (needs root): {}",
            std::thread::current().name().unwrap_or("?")
        );
        return;
    }
    // Removed when the thread has ended, and with it its mounts: a mount point cannot be removed.
    let held = tempfile::tempdir().unwrap();
    let dir = held.path().to_owned();
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = nix::mount::MsFlags::MS_PRIVATE | nix::mount::MsFlags::MS_REC;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (host, outside) = (new_netns(), new_netns());
        let inner = host.try_clone().unwrap();
        inner
            .run(|| {
                runtime.block_on(async {
                    connect(&host, &outside).await;
                    let network = HostNetwork::open(config(&dir)).unwrap();
                    let lab = Rc::new(Lab {
                        host,
                        outside,
                        network,
                        dir,
                    });
                    test(Rc::clone(&lab)).await;
                });
            })
            .unwrap();
    };
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(body).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub fn config(dir: &Path) -> NetworkConfig {
    NetworkConfig {
        netns_dir: dir.join("netns"),
        ..NetworkConfig::standard()
    }
}

fn new_netns() -> Netns {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Netns::current().unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

async fn connect(host: &Netns, outside: &Netns) {
    let (near, far) = (route(host), route(outside));
    near.add_link(VethLink::new("up0", "eth0").peer_netns_fd(outside).up())
        .await
        .unwrap();
    for (connection, name, address) in [(&near, "up0", HOST), (&far, "eth0", OUTSIDE)] {
        connection.set_link_up("lo").await.unwrap();
        connection.set_link_up(name).await.unwrap();
        connection
            .add_address(Ipv4Address::new(name, address, 24))
            .await
            .unwrap();
    }
    // So that containers have a way out that is not the neighbour's network either.
    near.add_route(Ipv4Route::from_addr(Ipv4Addr::UNSPECIFIED, 0).gateway(OUTSIDE))
        .await
        .unwrap();
}

pub fn route(netns: &Netns) -> Connection<Route> {
    Connection::new_in(netns).unwrap()
}

pub fn nft(netns: &Netns) -> Connection<Nftables> {
    Connection::new_in(netns).unwrap()
}

pub fn id(n: u8) -> ContainerId {
    ContainerId::from_u128(u128::from(n) << 64 | 0xfeed)
}

pub fn bridge() -> BridgeNetwork {
    BridgeNetwork::new("warren0", "10.89.0.0/24".parse().unwrap())
}

/// The address of container `n`.
pub fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 89, 0, n)
}

/// A desired network with containers `containers` and `ports`: protocol, host port, target port, backends.
pub fn desired(containers: &[u8], ports: &[(Protocol, u16, u16, &[u8])]) -> NodeNetwork {
    let mut network = NodeNetwork::empty(bridge());
    for n in containers {
        network
            .endpoints
            .insert(id(*n), Endpoint::new(id(*n), address(*n)));
    }
    for (protocol, port, target, backends) in ports {
        let backend = |n: &u8| Backend {
            container: id(*n),
            address: address(*n),
            port: *target,
        };
        network.published.insert(
            HostPort {
                protocol: *protocol,
                port: *port,
            },
            backends.iter().map(backend).collect(),
        );
    }
    network
}

impl Lab {
    /// Attaches all containers of `network`, applies it, checks that it matches; the namespaces.
    pub async fn bring_up(&self, network: &NodeNetwork) -> Vec<Netns> {
        let mut all = Vec::new();
        for endpoint in network.endpoints.values() {
            let path = self
                .network
                .attach(&network.bridge, endpoint)
                .await
                .unwrap();
            all.push(Netns::from_path(path).unwrap());
        }
        let report = self.network.apply(network).await.unwrap();
        assert!(
            report.failed.is_empty() && report.missing.is_empty(),
            "{report:?}"
        );
        self.assert_matches(network).await;
        all
    }

    /// Nothing differs, and another apply writes nothing.
    pub async fn assert_matches(&self, network: &NodeNetwork) {
        assert_eq!(self.network.verify(network).await.unwrap(), []);
        let before = nft(&self.host).generation().await.unwrap();
        let report = self.network.apply(network).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(nft(&self.host).generation().await.unwrap(), before);
    }

    /// Links, tables, mounts and namespace files as text, to compare before and after.
    pub async fn inventory(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(
            route(&self.host)
                .get_links()
                .await
                .unwrap()
                .iter()
                .map(|l| format!("link {}", l.name().unwrap_or("?"))),
        );
        all.extend(
            nft(&self.host)
                .list_tables()
                .await
                .unwrap()
                .iter()
                .map(|t| format!("table {}", t.name)),
        );
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        all.extend(
            mounts
                .lines()
                .filter(|l| l.contains("nsfs"))
                .map(|l| format!("mount {l}")),
        );
        all.extend(
            std::fs::read_dir(&self.dir)
                .unwrap()
                .map(|e| format!("file {:?}", e.unwrap().file_name())),
        );
        all.sort();
        all
    }
}

/// A server in a namespace that answers with its name and the address it saw, until dropped.
pub struct Server {
    stop: Option<(Netns, SocketAddr, Protocol)>,
    thread: Option<JoinHandle<()>>,
}

const STOP: &[u8] = b"stop";

pub fn serve(
    netns: &Netns,
    protocol: Protocol,
    at: impl Into<IpAddr>,
    port: u16,
    name: &str,
) -> Server {
    let at = SocketAddr::new(at.into(), port);
    let name = name.to_owned();
    let thread = match protocol {
        Protocol::Tcp => {
            let listener = netns.run(|| TcpListener::bind(at)).unwrap().unwrap();
            std::thread::spawn(move || serve_tcp(&listener, &name))
        }
        Protocol::Udp => {
            let socket = netns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
            std::thread::spawn(move || serve_udp(&socket, &name))
        }
    };
    let local = if at.ip().is_unspecified() {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    } else {
        at
    };
    Server {
        stop: Some((netns.try_clone().unwrap(), local, protocol)),
        thread: Some(thread),
    }
}

fn serve_tcp(listener: &TcpListener, name: &str) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut question = [0; 4];
        if stream.read_exact(&mut question).is_ok() && question == STOP {
            return;
        }
        let peer = stream.peer_addr().unwrap().ip();
        let _ = write!(stream, "{name} saw {peer}");
    }
}

fn serve_udp(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 64];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if &buffer[..length] == STOP {
            return;
        }
        let _ = socket.send_to(format!("{name} saw {}", peer.ip()).as_bytes(), peer);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some((netns, at, protocol)) = self.stop.take() else {
            return;
        };
        let sent = netns.run(|| match protocol {
            Protocol::Tcp => {
                TcpStream::connect_timeout(&at, PATIENCE).and_then(|mut s| s.write_all(STOP))
            }
            Protocol::Udp => {
                UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(STOP, at).map(drop))
            }
        });
        // A server that cannot be reached any more ends with the process; never wait for it.
        if matches!(sent, Ok(Ok(())))
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Asks a server from a namespace.
pub fn ask(
    netns: &Netns,
    protocol: Protocol,
    to: impl Into<IpAddr>,
    port: u16,
) -> io::Result<String> {
    let to = SocketAddr::new(to.into(), port);
    netns.run(|| ask_here(protocol, to, PATIENCE)).unwrap()
}

/// Nobody answers, within a short time.
pub fn assert_silent(netns: &Netns, protocol: Protocol, to: impl Into<IpAddr>, port: u16) {
    let to = SocketAddr::new(to.into(), port);
    let answer = netns.run(|| ask_here(protocol, to, SILENCE)).unwrap();
    assert!(answer.is_err(), "{to} answered {answer:?}");
}

pub fn ask_here(protocol: Protocol, to: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut answer = String::new();
    match protocol {
        Protocol::Tcp => {
            let mut stream = TcpStream::connect_timeout(&to, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(b"ask?")?;
            stream.read_to_string(&mut answer)?;
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(patience))?;
            socket.send(b"ask?")?;
            let mut buffer = [0; 128];
            let length = socket.recv(&mut buffer)?;
            answer.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }
    Ok(answer)
}
